// What clients call the layers of an image before they have them: made of what the image claims. Pure.
import { createHash } from 'node:crypto'
import { buildKitIndex } from '../format/engine-index.ts'
import type { Digest } from '../image/digest.ts'
import type { Manifest } from '../image/manifest.ts'

/** Chain IDs, the base first: each is the digest of the one below and a DiffID (OCI image specification, "Layer ChainID"). */
export function chainOf(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) chain.push(onTopOf(chain.at(-1), diffId))
  return chain
}

/**
 * The same by BuildKit from 0.34 on, where its snapshotter is called stargz: what it knows a layer by is its DiffID and the digest of its table
 * of contents, where an annotation has one (BuildKit's cache/manager.go, snapshot/snapshotid.go).
 */
export function buildKitTargetsOf({ layers }: Pick<Manifest, 'layers'>, diffIds: readonly Digest[]): string[] {
  const bound = diffIds.map((diffId, place) => {
    const layer = layers[place]
    const index = layer && buildKitIndex(layer)
    return index === undefined ? diffId : onTopOf(diffId, index)
  })
  return chainOf(bound).map((chain) => `buildkit-layer-snapshot-v1-${chain.replace(':', '-')}`)
}

/** Places of layers that BuildKit knows by their DiffIDs alone. */
export function unboundIn({ layers }: Pick<Manifest, 'layers'>): ReadonlySet<number> {
  return new Set(layers.flatMap((layer, place) => (buildKitIndex(layer) === undefined ? [place] : [])))
}

function onTopOf(below: Digest | undefined, digest: Digest): Digest {
  if (below === undefined) return digest
  return `sha256:${createHash('sha256').update(`${below} ${digest}`).digest('hex')}`
}
