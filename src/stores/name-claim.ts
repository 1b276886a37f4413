// What an image says of a layer: that a blob, read by an index, has a DiffID. A layer that bears a DiffID because its image is believed must
// not be taken for another image's: two images are *rivals* about a layer when both name one DiffID, or one blob, and mean something else by
// it: another blob or DiffID, another index, another tree. Pure.
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { type Claimant, claimOf } from '../layer/claim.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { togetherIn } from './together.ts'

/** What an image says of one of its layers. */
export interface NameClaim {
  readonly diffId: Digest
  readonly blob: Digest
  /** Digest of the index by which the image has the blob read; undefined: it is to be unpacked. */
  readonly index: Digest | undefined
  /** Digest of the tree that comes of that; undefined: it is not open. */
  readonly tree: Digest | undefined
  /** Whether it is one of several layers that show one tree together. */
  readonly together: boolean
}

/** What an image claims of its layers. @param opened those that are, by their places */
export function nameClaimsOf(
  image: Pick<ResolvedImage, 'manifest' | 'config'>,
  plan: Units,
  opened: readonly ({ tree: Digest | undefined } | undefined)[],
): NameClaim[] {
  return image.manifest.layers.map((_, i) => nameClaimOf(image, i, plan, opened[i]?.tree))
}

/** What it claims of one. @param tree undefined: it is not open */
export function nameClaimOf(
  { manifest, config }: Pick<ResolvedImage, 'manifest' | 'config'>,
  i: number,
  plan: Units,
  tree: Digest | undefined,
): NameClaim {
  const descriptor = manifest.layers[i] as Descriptor // of one of its layers
  const diffId = config.diffIds[i] as Digest // parseConfig: one a layer
  const together = togetherIn(plan, descriptor) !== undefined
  return { diffId, blob: descriptor.digest, index: indexOf(plan, descriptor), tree, together }
}

/** Digest of the index by which a layer is read. What shows nothing shows it whatever the index of its unit is: images share such layers. */
export function indexOf(plan: Units, descriptor: Descriptor): Digest | undefined {
  if (togetherIn(plan, descriptor) === 'shows nothing') return descriptor.digest
  const unit = plan.get(descriptor)
  return unit !== undefined && 'index' in unit ? unit.index : undefined
}

/** What others may have in common with a claim. */
export function namesOf({ diffId, blob }: NameClaim): Digest[] {
  return diffId === blob ? [diffId] : [diffId, blob]
}

/** Whether a claim is about this layer under this DiffID. */
export function isOf(name: NameClaim, layer: Claimant, diffId: Digest): boolean {
  const { blob, tree, together = false } = claimOf(layer)
  return name.diffId === diffId && name.blob === blob && name.tree === tree && name.together === together
}

/** Whether two images cannot both be right about a layer, or show it differently. */
export function areRivals(one: NameClaim, other: NameClaim): boolean {
  return (one.diffId === other.diffId || one.blob === other.blob) && !isSame(one, other)
}

/** Two trees that are known decide whether there is a difference; without them the indexes do, of which a tree is made. */
export function isSame(one: NameClaim, other: NameClaim): boolean {
  if (one.diffId !== other.diffId || one.blob !== other.blob || one.together !== other.together) return false
  if (one.tree !== undefined && other.tree !== undefined) return one.tree === other.tree
  return one.index === other.index
}
