// Bootstraps of nydus images, and the tables of their blobs, as the format takes them together: an index.

import type { Unit } from '../../../src/format/format.ts'
import { nydus } from '../../../src/format/nydus/nydus.ts'
import { type BlobTables, packIndex } from '../../../src/format/nydus/nydus-index.ts'
import { digestOf } from '../../../src/image/digest.ts'
import type { Outcome } from '../target.ts'
import { outcomeOf } from '../well-formed.ts'

/** Of what the crafts call a blob. */
const BLOB = { digest: `sha256:${'ab'.repeat(32)}`, size: 100_000 } as const

const bootstrapLayer = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest: digestOf(new Uint8Array()),
  size: 1000,
  annotations: {},
}
export const UNIT: Unit = {
  format: nydus.name,
  layers: [bootstrapLayer],
  shown: bootstrapLayer,
  index: bootstrapLayer.digest,
  identity: undefined,
  blobs: [BLOB],
  tarSize: undefined,
}

export function readNydus(bootstrap: Uint8Array, tables: readonly BlobTables[] = []): Outcome {
  return outcomeOf(() => nydus.parseIndex(packIndex({ bootstrap, tables }), UNIT))
}
