// What an image's layers are opened from comes early: their indexes while the config does, and what two need of a blob once.
import type { Range } from '../image/blob.ts'
import type { Descriptor } from '../image/manifest.ts'
import { type EarlyImage, type ResolvedImage, sourceOf } from './image.ts'
import type { LayerLease } from './layer.ts'
import type { Layers } from './layers.ts'

type Opener = Pick<Layers, 'plan' | 'open'>
type Keeper = Pick<Layers, 'plan' | 'keep' | 'everProven'>

/**
 * Begins to open what of an image's layers is lazy, so that whoever opens them next finds that under way: its indexes come while its config
 * does. Never rejects; what fails is tried again by them.
 */
export async function openAhead(image: EarlyImage, layers: Opener): Promise<void> {
  await openUnits(image, layers, new Set(), { prefetch: async () => {}, early: async () => [] }, async () => {})
}

interface Wanted {
  /** Fetches what is wanted first of a layer that is open. */
  prefetch(layer: LayerLease): Promise<unknown>
  /** As Learned.early. */
  early(shown: Descriptor): Promise<readonly Range[]>
}

/**
 * The same for an image that a program is about to start from: what is wanted first begins to come with the indexes. Not above a layer that
 * is not lazy, since engines fetch all of those themselves, as a rule.
 */
export async function startAhead(image: EarlyImage, layers: Opener, wanted: Wanted): Promise<void> {
  await openUnits(image, layers, startingIn(image, layers), wanted, async () => {})
}

/** The same for an image whose layers will be named: as keepForIndex has it. */
export async function nameAhead(image: EarlyImage, layers: Opener & Keeper, wanted: Wanted): Promise<void> {
  await openUnits(image, layers, startingIn(image, layers), wanted, (shown) => keepForIndex(image, shown, layers))
}

/** Units of which a start wants something. */
function startingIn(image: EarlyImage, layers: Opener): ReadonlySet<unknown> {
  const plan = layers.plan(image.manifest)
  const units = image.manifest.layers.map((each) => plan.get(each))
  const end = units.findIndex((each) => each === undefined || 'why' in each)
  return new Set(end < 0 ? units : units.slice(0, end))
}

async function openUnits(
  image: EarlyImage,
  layers: Opener,
  starting: ReadonlySet<unknown>,
  wanted: Wanted,
  before: (shown: Descriptor) => Promise<void>,
): Promise<void> {
  const units = new Set([...layers.plan(image.manifest).values()].flatMap((each) => ('why' in each ? [] : [each])))
  const opening = [...units].map(async (unit) => {
    await before(unit.shown)
    const starts = starting.has(unit)
    const from = starts ? { early: () => wanted.early(unit.shown) } : 'anywhere'
    const layer = await layers.open(unit, sourceOf(image), image.origin, from)
    try {
      if (starts) await wanted.prefetch(layer)
    } finally {
      await layer.close() // it stays open for a while
    }
  })
  await Promise.allSettled(opening)
}

/** Indexes are at most that large where they are stored: what shows a tree and is larger is refused by its format, unread. */
const INDEX_STORED_MAX_BYTES = 128 << 20

/**
 * Has what an index of several layers is read from in files, where it is not known yet: the index is read from there, and so are the
 * proofs, which begin then. Whoever opens such a unit to name its layers has it done first, so that it is fetched once.
 * @throws Failure as Layers.keep
 */
export async function keepForIndex(
  image: Pick<ResolvedImage, 'manifest' | 'blob'>,
  descriptor: Descriptor,
  layers: Keeper,
): Promise<void> {
  const unit = layers.plan(image.manifest).get(descriptor)
  if (unit === undefined || 'why' in unit || unit.layers.length === 1 || unit.index !== unit.shown.digest) return
  if (unit.shown.size > INDEX_STORED_MAX_BYTES) return
  if (!(await layers.everProven(unit.index, true))) await layers.keep(unit.shown, image.blob(unit.shown))
}
