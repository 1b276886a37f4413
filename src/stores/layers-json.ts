// layers.json: the list of layers of a containers/storage root, as engines read it. Pure.
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Identity } from './chain.ts'
import { compressionOf } from './facts.ts'

/** A layer as its entry tells of it. */
export interface Listable {
  id: string
  parent: string | undefined
  identity: Identity
  descriptor: Descriptor
  /** As the image's config claims it. */
  diffId: Digest
  /** Bytes of the tar. */
  size: number
}

/** When a layer was listed tells nobody anything, and would differ after a restart. */
const CREATED = '1970-01-01T00:00:00Z'

/**
 * One layer's entry. One that is identified by its index has neither a DiffID, which the engine would believe, nor the digest of the
 * compressed layer, which without a DiffID breaks it.
 */
export function layerEntry({ id, parent, identity, descriptor, diffId, size }: Listable): string {
  const own =
    identity.by === 'index'
      ? { 'toc-digest': identity.digest, 'diff-size': size, flags: { 'expected-layer-diffid': diffId } }
      : {
          'compressed-diff-digest': descriptor.digest,
          'compressed-size': descriptor.size,
          'diff-digest': identity.digest,
          'diff-size': size,
          compression: compressionOf(descriptor),
        }
  return JSON.stringify({ id, ...(parent === undefined ? {} : { parent }), created: CREATED, ...own })
}

/** The whole file. Engines want each layer after its parent. */
export function layersJson(entries: Iterable<string>): Uint8Array {
  return new TextEncoder().encode(`[${[...entries].join(',\n')}]\n`)
}
