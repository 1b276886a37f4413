// What this machine's cache knows of an image, read without changing anything.

import { within } from '../../engines/machine.ts'
import { describe, Failure } from '../../errors.ts'
import { planUnits } from '../../format/formats.ts'
import type { Digest } from '../../image/digest.ts'
import type { Descriptor } from '../../image/manifest.ts'
import { mapLimited } from '../../limit.ts'
import { CacheReader } from '../../store/reader.ts'
import { togetherIn } from '../../stores/together.ts'

/** What is known of a layer. */
export interface KnownLayer {
  /** The DiffIDs that its bytes were proven to have, with whichever tree. */
  diffIds: readonly Digest[]
  /** What its own index shows otherwise than its tar, a sentence; an index of another image's may lie of the same bytes. */
  refuted: string | undefined
  /** The DiffIDs that it lost to other images, until it is proven. */
  contested: readonly Digest[]
}

/** Of each, the records of all trees that were judged with it are open at once. */
const LAYERS_AT_ONCE = 8

const NOTHING: KnownLayer = { diffIds: [], refuted: undefined, contested: [] }

/** Undefined where there is no cache, or one that cannot be read, which `log` is told. */
export async function openKnown(dir: string, log: (message: string) => void): Promise<CacheReader | undefined> {
  return await within(CacheReader.open(dir), dir).catch((error) => unreadable(error, undefined, log))
}

/** Never rejects for what the cache is like. */
export async function knownOf(
  layers: readonly Descriptor[],
  cache: Pick<CacheReader, 'judged' | 'treesOf' | 'contested'> | undefined,
  log: (message: string) => void,
): Promise<KnownLayer[]> {
  const nothing = layers.map(() => NOTHING)
  if (cache === undefined) return nothing
  const plan = planUnits({ layers })
  const knownOfLayer = async (descriptor: Descriptor): Promise<KnownLayer> => {
    const together = togetherIn(plan, descriptor)
    const judged = await cache.judged(descriptor.digest, together !== undefined)
    const diffIds = judged.flatMap(({ verdict }) => (verdict.verdict === 'proven' ? [verdict.diffId] : []))
    const refuted = judged.flatMap(({ tree, verdict }) => (verdict.verdict === 'refuted' ? [{ tree, ...verdict }] : []))
    const contested = await cache.contested(descriptor.digest)
    const unit = plan.get(descriptor)
    if (refuted.length === 0 || unit === undefined || 'why' in unit) return { diffIds, refuted: undefined, contested }
    // what is shown empty is so in every image
    if (together === 'shows nothing') return { diffIds, refuted: refuted[0]?.why, contested }
    const own = await cache.treesOf(unit.index)
    return { diffIds, refuted: refuted.find(({ tree }) => own.has(tree))?.why, contested }
  }
  try {
    return await mapLimited(layers, LAYERS_AT_ONCE, knownOfLayer)
  } catch (error) {
    return unreadable(error, nothing, log)
  }
}

function unreadable<T>(error: unknown, nothing: T, log: (message: string) => void): T {
  if (!(error instanceof Failure)) throw error
  log(`what this machine knows of layers is left out: ${describe(error)}`)
  return nothing
}
