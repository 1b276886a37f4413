// Which of the images that were listed are forgotten: those that no engine refers to, the longest ago asked for first. Pure.
import type { Digest } from '../image/digest.ts'
import type { ListedImage } from './image-chain.ts'
import type { KnownBy } from './image-ids.ts'

/** An image that was listed, its layers from the base up. */
export interface ShownImage {
  /** What is kept of it. */
  image: ListedImage
  ids: readonly string[]
  /** Of entries that tell of the same layers' blobs. */
  blobIds: readonly string[]
  /** What engines may make its ID of, and by that of which configuration. */
  config: Digest
  known: KnownBy
}

/** What may be forgotten. */
export interface Forgettable {
  /** Milliseconds since 1970: what was asked for since then stays. */
  askedBefore: number
  /** Layers that are enough. */
  layers: number
}

/** When it was last asked for: milliseconds since 1970. */
function askedAt({ image }: ShownImage): number {
  return image.askedAt ?? 0
}

/**
 * Images that are not used and go, until enough layers do with them.
 * @param used layers that engines refer to, with all below them
 */
export function unusedImages(
  images: Iterable<ShownImage>,
  used: ReadonlySet<string>,
  { askedBefore, layers }: Forgettable,
): ShownImage[] {
  const all = [...images]
  /** By ID, of how many images that stay a layer is. */
  const counts = new Map<string, number>()
  for (const { ids } of all) for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1)
  const unused: ShownImage[] = []
  let left = layers
  for (const each of all.sort((a, b) => askedAt(a) - askedAt(b))) {
    // of an image without listed layers nobody knows whether it is used
    if (left <= 0 || askedAt(each) >= askedBefore) break
    if (each.ids.length === 0 || isUsed(each, used)) continue
    unused.push(each)
    for (const id of each.ids) {
      const others = (counts.get(id) ?? 0) - 1
      counts.set(id, others)
      if (others === 0) left--
    }
  }
  return unused
}

/** Whether an engine refers to one of its layers. */
export function isUsed({ ids, blobIds }: ShownImage, used: ReadonlySet<string>): boolean {
  return ids.some((id) => used.has(id)) || blobIds.some((id) => used.has(id))
}
