// What an image's layers are opened from comes early: their indexes while the config does, and what two need of a blob once.
import type { Descriptor } from '../image/manifest.ts'
import { type EarlyImage, type ResolvedImage, sourceOf } from './image.ts'
import type { Layers } from './layers.ts'

type Opener = Pick<Layers, 'plan' | 'open' | 'keep' | 'everProven'>

/**
 * Begins to open what of an image's layers is lazy, so that whoever opens them next finds that under way: its indexes come while its config
 * does. Never rejects; what fails is tried again by them.
 */
export async function openAhead(image: EarlyImage, layers: Opener): Promise<void> {
  await openUnits(image, layers, new Set())
}

/**
 * The same for an image that a program is about to start from: what its indexes want first begins to come with them. Not above a layer that
 * is not lazy, since engines fetch all of those themselves, as a rule.
 */
export async function startAhead(image: EarlyImage, layers: Opener): Promise<void> {
  const plan = layers.plan(image.manifest)
  const units = image.manifest.layers.map((each) => plan.get(each))
  const end = units.findIndex((each) => each === undefined || 'why' in each)
  await openUnits(image, layers, new Set(end < 0 ? units : units.slice(0, end)))
}

/** @param starting those of which a start wants something */
async function openUnits(image: EarlyImage, layers: Opener, starting: ReadonlySet<unknown>): Promise<void> {
  const units = new Set([...layers.plan(image.manifest).values()].flatMap((each) => ('why' in each ? [] : [each])))
  const opening = [...units].map(async (unit) => {
    await keepForIndex(image, unit.shown, layers)
    const from = starting.has(unit) ? 'start' : 'anywhere'
    const layer = await layers.open(unit, sourceOf(image), image.origin, from)
    await layer.close() // it stays open for a while
  })
  await Promise.allSettled(opening)
}

/** Indexes are at most that large where they are stored: what shows a tree and is larger is refused by its format, unread. */
const INDEX_STORED_MAX_BYTES = 128 << 20

/**
 * Has what an index of several layers is read from in files, where it is not known yet: the index is read from there, and so are the
 * proofs. Whoever opens such a unit first has it done, so that it is fetched once.
 * @throws Failure as Layers.keep
 */
export async function keepForIndex(
  image: Pick<ResolvedImage, 'manifest' | 'blob'>,
  descriptor: Descriptor,
  layers: Pick<Layers, 'plan' | 'keep' | 'everProven'>,
): Promise<void> {
  const unit = layers.plan(image.manifest).get(descriptor)
  if (unit === undefined || 'why' in unit || unit.layers.length === 1 || unit.index !== unit.shown.digest) return
  if (unit.shown.size > INDEX_STORED_MAX_BYTES) return
  if (!(await layers.everProven(unit.index, true))) await layers.keep(image.blob(unit.shown))
}
