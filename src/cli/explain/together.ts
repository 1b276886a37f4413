// Layers that show one tree together, on their way to engines, which know each by its DiffID alone, and cannot pull one of them themselves:
// all of the image comes through a store, or its pull fails. Pure, from what is known of the image.
import type { Unit } from '../../format/format.ts'
import { HOW_TO_CONVERT, type Units, type Unplanned } from '../../format/formats.ts'
import type { Descriptor } from '../../image/manifest.ts'
import type { ResolvedImage } from '../../layer/image.ts'
import type { Together } from '../../layer/layer.ts'
import { engineRefusal } from '../../stores/engine-refusal.ts'
import { isReadAtOnce } from '../../stores/together.ts'
import { whyNotTogether } from '../../stores/together-names.ts'
import { type LayerFacts, type Named, type Unbelieved, type Ways, waysOf, waysOfNone } from './layer.ts'

const NO_ENGINE = 'Show it without an engine: lazylayer mount IMAGE DIR.'

/** What engines refuse of such an image, whatever a store does, and what to do instead. */
export const NEVER = [
  'engines pull and run this image, and no more: save, push, commit and builds on it end in an error, whatever a store does, because they',
  'do not know the media type of its layers. Instead: skopeo copy docker://FROM docker://TO; build on the image that it was converted from;',
  'podman export CONTAINER | podman import - IMAGE makes an ordinary image.',
]

/**
 * The ways of an image's layers, some of which may show one tree together.
 * @param indexes what such layers are by the index that was read just now
 * @param facts of each layer, lowest first
 * @param waited layers that the agent reads whole while an engine waits
 */
export function waysOfImage(
  image: Pick<ResolvedImage, 'manifest' | 'config'>,
  plan: Units,
  indexes: ReadonlyMap<Descriptor, Together>,
  facts: readonly LayerFacts[],
  waited: ReadonlySet<Descriptor>,
): Ways[] {
  const refusal = engineRefusal(image.manifest)
  if (refusal !== undefined) return facts.map(() => waysOfNone({ why: refusal, fix: NO_ENGINE }))
  const all: LayerFacts[] = []
  for (const [i, descriptor] of image.manifest.layers.entries()) {
    const of = facts[i] as LayerFacts // one a layer
    const unit = plan.get(descriptor) as Unit | Unplanned // of each layer
    if ('why' in unit && unit.refused) return facts.map(() => waysOfNone({ why: unit.why, fix: HOW_TO_CONVERT }))
    if ('why' in unit || unit.layers.length === 1) {
      all.push(of)
      continue
    }
    const named = nameOf(image, descriptor, indexes.get(descriptor), of, waited.has(descriptor))
    if ('why' in named) return facts.map(() => waysOfNone(named))
    all.push({ ...of, named })
  }
  // all of them are listed, or none
  const listed = all.some(({ named }) => named?.listed)
  return waysOf(all.map(({ named, ...of }) => (named === undefined ? of : { ...of, named: { ...named, listed } })))
}

/** How engines know one of several, or why they do not. @param isWaited whether it is read whole while they wait */
function nameOf(
  image: Pick<ResolvedImage, 'manifest' | 'config'>,
  descriptor: Descriptor,
  together: Together | undefined,
  { format, proven, believed }: LayerFacts,
  isWaited: boolean,
): Named | Unbelieved {
  if ('why' in format) return { why: format.why, fix: format.fix ?? HOW_TO_CONVERT }
  const never = together && whyNotTogether(image, together)
  if (never !== undefined) return { why: never, fix: NO_ENGINE }
  if (typeof believed !== 'string' && believed.false) return believed
  if (proven || (together !== undefined && isReadAtOnce(descriptor, together)))
    return { identity: 'proven', listed: false }
  if (typeof believed === 'string') return { identity: believed, listed: false }
  if (isWaited) return { identity: 'proven', listed: true }
  return { why: `engines know such layers by their DiffIDs only, and ${believed.why}`, fix: believed.fix }
}
