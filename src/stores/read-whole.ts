// Chooses the layers of an image that are read whole before it is listed, so that they may bear their DiffIDs. Pure, but for asking which
// layers were proven before.
import { engineIndex } from '../format/engine-index.ts'
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest } from '../image/manifest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { Layers } from '../layer/layers.ts'
import { layerId } from './chain.ts'
import type { Evidence } from './identity.ts'
import { togetherIn } from './together.ts'

/**
 * Which layers of an image are read whole before it is listed: none; of those that no index names the few that keep lazy ones above
 * them from being listed, if they are small (an engine waits); all that no index names, but what is lazy of an image that is believed; or
 * all, so that each may bear its DiffID.
 */
export type Prove = (typeof PROVE)[number]

export const PROVE = ['none', 'small', 'needed', 'all'] as const

/** Of one image: many a base image has no more. They take under a second at 100 Mbit/s, and the engine would fetch them, too. */
const SMALL_MAX_BYTES = 8 << 20
/** Of one image: 9 s at 250 Mbit/s. The engine waits for 10, and fetches what did not come itself. */
const AMBIGUOUS_MAX_BYTES = 256 << 20
/** The same. */
const WITHDRAWN_MAX_BYTES = 256 << 20

/** Layers of an image that are fetched whole while an engine waits: small ones below lazy ones, and those with an ambiguous index. */
export async function missingWhole(
  { manifest }: Pick<ResolvedImage, 'manifest'>,
  layers: Pick<Layers, 'everProven' | 'plan'>,
  isAmbiguous: Evidence['isAmbiguous'],
): Promise<ReadonlySet<Descriptor>> {
  // a proof that cannot be read counts as none
  const plan = layers.plan(manifest)
  const isProven = (each: Descriptor) => layers.everProven(each.digest, togetherIn(plan, each) !== undefined)
  const proven = await Promise.all(manifest.layers.map((each) => isProven(each).catch(() => false)))
  const here = new Set(manifest.layers.filter((_, i) => proven[i]))
  return waitedFor(manifest, plan, isAmbiguous, (each) => here.has(each))
}

/**
 * Layers of an image that are fetched whole because what was listed under their IDs has lost its files: an engine takes a layer by its ID,
 * and could make nothing of it. All up to the highest of these; none when together they are too large to wait for.
 */
export function withdrawnIn(
  { manifest, config }: Pick<ResolvedImage, 'manifest' | 'config'>,
  hasNoFiles: (id: string) => boolean,
): ReadonlySet<Descriptor> {
  let parent: string | undefined
  let end = 0
  for (const [i, digest] of config.diffIds.entries()) {
    parent = layerId(parent, { by: 'diffid', digest })
    if (hasNoFiles(parent)) end = i + 1
  }
  const layers = manifest.layers.slice(0, end)
  const bytes = layers.reduce((sum, { size }) => sum + size, 0)
  return new Set(bytes <= WITHDRAWN_MAX_BYTES ? layers : [])
}

/** These layers, by what is known of each. */
export function waitedFor(
  manifest: Pick<Manifest, 'mediaType' | 'layers'>,
  plan: Units,
  isAmbiguous: Evidence['isAmbiguous'],
  isHere: (descriptor: Descriptor) => boolean,
): ReadonlySet<Descriptor> {
  const nameOf = (each: Descriptor) => {
    const index = claimedIndex(plan, each)
    return index !== undefined && engineIndex(manifest, each) === index ? index : undefined
  }
  const hasName = (each: Descriptor) => nameOf(each) !== undefined || togetherIn(plan, each) === 'shows'
  const small = smallBelowLazy(manifest.layers, hasName, isHere)
  const end = manifest.layers.findIndex((each) => !isHere(each) && !small.has(each) && !hasName(each))
  // nothing is listed above what the engine pulls
  const listable = manifest.layers.slice(0, end < 0 ? undefined : end)
  // also those that are proven: by another tree, maybe
  const ambiguous = listable.filter((each) => {
    const index = nameOf(each)
    return index !== undefined && isAmbiguous(index)
  })
  const bytes = ambiguous.reduce((sum, each) => sum + (isHere(each) ? 0 : each.size), 0)
  return bytes <= AMBIGUOUS_MAX_BYTES ? new Set([...small, ...ambiguous]) : small
}

/** Digest of a layer's index, as its image says; undefined: it says none. */
export function claimedIndex(plan: Units, descriptor: Descriptor): Digest | undefined {
  const unit = plan.get(descriptor)
  return unit !== undefined && 'identity' in unit ? unit.identity : undefined
}

/**
 * Layers without an index that have lazy ones above them and are not here yet; none when together they are too large to wait for.
 */
function smallBelowLazy(
  descriptors: readonly Descriptor[],
  isLazy: (descriptor: Descriptor) => boolean,
  isHere: (descriptor: Descriptor) => boolean,
): ReadonlySet<Descriptor> {
  const lazy = descriptors.map(isLazy)
  const below = descriptors.slice(0, Math.max(0, lazy.lastIndexOf(true)))
  const missing = below.filter((each, i) => !lazy[i] && !isHere(each))
  const bytes = missing.reduce((sum, { size }) => sum + size, 0)
  return new Set(bytes <= SMALL_MAX_BYTES ? missing : [])
}
