// What an image's layers are opened from comes early: their indexes while the config does, and what two need of a blob once.
import type { Descriptor } from '../image/manifest.ts'
import { type EarlyImage, type ResolvedImage, sourceOf } from './image.ts'
import type { LayerLease } from './layer.ts'
import type { Layers } from './layers.ts'

/**
 * Begins to open what of an image's layers is lazy, so that whoever opens them next finds that under way: its indexes come while its config
 * does, and what is wanted first of each as soon as its index is there. Never rejects; what fails is tried again by them.
 */
export async function openAhead(
  image: EarlyImage,
  layers: Pick<Layers, 'plan' | 'open' | 'keep' | 'everProven'>,
  prefetch: (layer: LayerLease) => Promise<unknown>,
): Promise<void> {
  const units = new Set([...layers.plan(image.manifest).values()].flatMap((each) => ('why' in each ? [] : [each])))
  const opening = [...units].map(async (unit) => {
    await keepForIndex(image, unit.shown, layers)
    const layer = await layers.open(unit, sourceOf(image), image.origin)
    await prefetch(layer).finally(() => layer.close())
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
