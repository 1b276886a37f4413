// Layers that show one tree together: one has it, the others are empty. Engines know each by its DiffID and those below it, like any layer,
// so what is shown under these names must be nobody else's. Each layer that shows nothing is no tar, which no ordinary layer of that
// DiffID can be; the one that shows the tree stands on at least one such layer, and on nothing else.
import { OPAQUE_END_BYTES } from '../format/opaque.ts'
import type { Digest } from '../image/digest.ts'
import { DOCKER_MANIFEST, type Manifest } from '../image/manifest.ts'
import { TOGETHER, type Together } from '../layer/layer.ts'

/** What of an image is asked. */
interface Named {
  manifest: Pick<Manifest, 'mediaType' | 'layers'>
  config: { diffIds: readonly Digest[] }
}

/** Why the layers of a unit bear no DiffIDs in an image, whatever is proven or believed: a sentence. Undefined: they may. */
export function whyNotTogether({ manifest, config }: Named, { unit, parts }: Together): string | undefined {
  if (parts === undefined) return TOGETHER
  if (manifest.mediaType === DOCKER_MANIFEST) return IN_DOCKER_MANIFEST
  const below = unit.layers.slice(0, -1)
  if (unit.layers.at(-1) !== unit.shown || below.length === 0)
    return 'its tree stands on none of the layers that it shows'
  if (unit.layers.some(({ digest }, i) => manifest.layers[i]?.digest !== digest)) {
    return 'its tree is shown for several layers together, and others are below these'
  }
  const named = new Set(parts.map(({ digest }) => digest))
  const there = new Set(below.map(({ digest }) => digest))
  const [foreign] = there.difference(named)
  if (foreign !== undefined) return `layer ${foreign} is none of the blobs that its index names`
  const [missing] = named.difference(there)
  if (missing !== undefined) return `its index names blob ${missing}, which is none of its image's layers`
  const short = below.find(({ size }) => size < OPAQUE_END_BYTES)
  if (short !== undefined) return `layer ${short.digest} is so short that engines take it for an empty one`
  const other = below.findIndex(({ digest }, i) => config.diffIds[i] !== digest)
  if (other >= 0)
    return `the image claims DiffID ${config.diffIds[other]} for layer ${below[other]?.digest}, which is no tar`
  return undefined
}

/** What engines say of such an image: "unsupported docker v2s2 media type". */
const IN_DOCKER_MANIFEST =
  'engines refuse Docker manifests with such layers, whatever a store does: convert it again with an OCI manifest'
