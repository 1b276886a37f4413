// Chooses which listed images are forgotten: images that no engine refers to, the one that was asked for the longest ago first. Pure.
import type { Digest } from '../image/digest.ts'
import type { ListedImage } from './image-chain.ts'
import type { KnownBy } from './image-ids.ts'

/** An image that was listed, with the IDs of its layers from the base up. */
export interface ShownImage {
  /** The record that is kept of it on disk. */
  image: ListedImage
  ids: readonly string[]
  /** IDs of the further entries that name the blobs of these layers, whether or not they are in the list. */
  blobIds: readonly string[]
  /** The image's configuration, and what engines may compute the image's ID from. */
  config: Digest
  known: KnownBy
}

/** Which images may be forgotten, and how many. */
export interface Forgettable {
  /** Milliseconds since 1970: an image that was asked for at that time or later stays. */
  askedBefore: number
  /** No further image is forgotten once this many layers go. */
  layers: number
}

/** When an image was last asked for, in milliseconds since 1970; 0 where no record says. */
function askedAt({ image }: ShownImage): number {
  return image.askedAt ?? 0
}

/**
 * The images to forget.
 * @param used layers that engines refer to, with all below them
 */
export function unusedImages(
  images: Iterable<ShownImage>,
  used: ReadonlySet<string>,
  { askedBefore, layers }: Forgettable,
): ShownImage[] {
  const all = [...images]
  /** By layer ID: how many of the images that stay have the layer. */
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
