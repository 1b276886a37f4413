// All layers of an image, for who shows the whole of it: lazy where a format serves them so; the others are fetched whole and served from
// their tars.
import { describe, Failure } from '../errors.ts'
import { HOW_TO_CONVERT } from '../format/formats.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from './image.ts'
import { closeLayer, type EagerLayer, type LayerLease } from './layer.ts'
import type { Layers } from './layers.ts'

/** Is told of the layers that will be fetched whole, each with the reason, before a byte of them is; what it throws ends it there. */
export type BeforeWhole = (image: ResolvedImage, eager: readonly EagerLayer[]) => void

/** What of Layers opens all layers of an image. */
export type AllLayersOpener = LayerOpener & Pick<Layers, 'everRefuted'>

/**
 * Why an index is of no use; the bytes of its layer, whose digest the manifest has as well, still may be. What a registry does not answer
 * now is no such reason: it would not give the whole layer either.
 */
const UNUSABLE: ReadonlySet<string> = new Set(['corrupt', 'unsupported', 'limit', 'missing'])

/** Refuses to fetch layers whole. @throws Failure unsupported: always */
export const refuseWhole: BeforeWhole = ({ reference }, eager) => {
  throw Failure.unsupported(`${referenceText(reference)} has layers that cannot be served lazily`, {
    why: eager.map((each) => `layer ${each.descriptor.digest}: ${each.why}`).join('; '),
    fix: HOW_TO_CONVERT,
  })
}

/**
 * Opens every layer of an image that has something to show, the lowest first: not those of which another layer shows the tree.
 * @returns what the caller closes
 * @throws what `beforeWhole` throws; Failure unsupported: a format refuses some of them; as Layers.open, Layers.openWhole
 */
export async function openAllLayers(
  image: ResolvedImage,
  layers: AllLayersOpener,
  beforeWhole: BeforeWhole,
): Promise<LayerLease[]> {
  const plan = layers.plan(image.manifest)
  const all = image.manifest.layers.filter((each) => {
    const unit = plan.get(each)
    return unit === undefined || 'why' in unit || unit.shown === each
  })
  const found = await settledOrClosed(all.map((each) => openOrEager(image, each, layers)))
  const eager = found.filter((each): each is EagerLayer => 'why' in each)
  if (eager.length === 0) return found.filter((each): each is LayerLease => !('why' in each))
  try {
    checkNotRefused(image, eager)
    beforeWhole(image, eager)
  } catch (error) {
    await closeAll(found)
    throw error
  }
  const opening = found.map((each) => ('why' in each ? openWhole(image, each, layers) : Promise.resolve(each)))
  return await settledOrClosed(opening)
}

/** @throws Failure unsupported */
function checkNotRefused({ reference }: ResolvedImage, eager: readonly EagerLayer[]): void {
  const found = eager.find(({ refused }) => refused)
  if (found === undefined) return
  throw Failure.unsupported(
    `${referenceText(reference)} cannot be shown: layer ${found.descriptor.digest}: ${found.why}`,
    {
      fix: HOW_TO_CONVERT,
    },
  )
}

/** Also a layer whose index is of no use comes back with the reason, where its bytes alone are a tree. */
export async function openOrEager(
  image: ResolvedImage,
  descriptor: Descriptor,
  layers: AllLayersOpener,
): Promise<LayerLease | EagerLayer> {
  try {
    return await openLayer(image, descriptor, layers)
  } catch (error) {
    if (!(error instanceof Failure) || !UNUSABLE.has(error.code)) throw error
    const unit = layers.plan(image.manifest).get(descriptor)
    if (unit === undefined || 'why' in unit || unit.layers.length > 1) throw error
    if (await layers.everRefuted(descriptor.digest)) throw error // who lies is served in no way
    return { descriptor, why: `its index cannot be used (${describe(error)})` }
  }
}

/** Fetches a layer that is not lazy, if it was not, and opens it. @throws Failure as Layers.openWhole */
export async function openWhole(
  image: ResolvedImage,
  { descriptor }: EagerLayer,
  layers: LayerOpener,
): Promise<LayerLease> {
  const layer = await layers.openWhole(descriptor, image.blob(descriptor), true, 'anywhere', image.repository)
  if (layer === undefined) throw new TypeError('a layer that is fetched whole is open') // as openWhole promises
  return layer
}

/** The first failure is thrown when all have ended, and what is open is closed. */
async function settledOrClosed<T extends LayerLease | EagerLayer>(opening: readonly Promise<T>[]): Promise<T[]> {
  const settled = await Promise.allSettled(opening)
  const done = settled.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  const failed = settled.find((each) => each.status === 'rejected')
  if (failed === undefined) return done
  await closeAll(done)
  throw failed.reason
}

async function closeAll(layers: readonly (LayerLease | EagerLayer)[]): Promise<void> {
  await Promise.all(layers.map(closeLayer))
}
