// Layers that show one tree together, on their way to engines: which of them are read whole, and that all have names or none.
import { Failure } from '../errors.ts'
import type { Units } from '../format/formats.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { EagerLayer, LayerLease, OpenLayer, Together } from '../layer/layer.ts'
import type { Layers } from '../layer/layers.ts'
import { nameOf } from './identity.ts'

/** Reading so much is no more than its index took already: tables are some 2% of what they are about. */
const TABLE_MAX_BYTES = 64 << 20

/** Whether a layer of a unit of several is read whole when it is opened, whoever waits: it takes no more than reading the unit's index did. */
export function isReadAtOnce({ size }: Pick<Descriptor, 'size'>, together: Together): boolean {
  return together.shows || (!together.hasChunks && size <= TABLE_MAX_BYTES)
}

/**
 * Has a layer of a unit of several read whole, as far as it takes no more than reading the unit's index did: what shows the tree, for
 * what its tar is called; and what has no chunks.
 * @param all also what has chunks; and the tree is filled, if it was not, with what was read
 * @throws Failure as Layers.prove
 */
export async function proveTogether(
  layer: OpenLayer,
  together: Together,
  image: Pick<ResolvedImage, 'blob'>,
  layers: Pick<Layers, 'prove'>,
  all: boolean,
): Promise<void> {
  const { descriptor } = layer
  if (together.parts === undefined || !(all || isReadAtOnce(descriptor, together))) return
  if (all || (await layer.verdict()) === undefined) await layers.prove(layer, image.blob(descriptor))
}

/** What a layer is by the plan of its image: one of several that show one tree, maybe the one that shows it. */
export function togetherIn(plan: Units, descriptor: Descriptor): 'shows' | 'shows nothing' | undefined {
  const unit = plan.get(descriptor)
  if (unit === undefined || 'why' in unit || unit.layers.length === 1) return undefined
  return unit.shown === descriptor ? 'shows' : 'shows nothing'
}

/**
 * That all layers of a unit of several bear their DiffIDs in an image: whoever got only some of them would run another image.
 * @param open opens one of the image's layers
 * @param trusted whether one of them is believed, or why not
 * @param all whether those are read whole that are not proven
 * @throws Failure unsupported: one of them bears no DiffID; as `open`, Layers.prove
 */
export async function checkTogether(
  image: ResolvedImage,
  { unit }: Together,
  open: (index: number) => Promise<LayerLease | EagerLayer>,
  layers: Pick<Layers, 'prove'>,
  { trusted, all }: { trusted: (index: number, layer: OpenLayer) => true | string; all: boolean },
): Promise<void> {
  for (const i of unit.layers.keys()) {
    const layer = await open(i)
    if ('why' in layer) throw Failure.unsupported('it is not lazy', { why: layer.why })
    try {
      const { indexDigest, together } = layer
      if (together !== undefined) await proveTogether(layer, together, image, layers, all)
      const evidence = {
        is: 'open',
        indexDigest,
        verdict: await layer.verdict(),
        together,
        trusted: trusted(i, layer),
      } as const
      const name = nameOf(image, i, evidence, { isAmbiguous: () => true })
      if ('why' in name)
        throw Failure.unsupported(`layer ${layer.descriptor.digest} has no name here`, { why: name.why })
    } finally {
      await layer.close()
    }
  }
}
