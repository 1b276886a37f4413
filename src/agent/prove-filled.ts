// What is here as a whole is proven, so that its image's next start finds it by its DiffID, too.
import type { Descriptor } from '../image/manifest.ts'
import { openLayer, type ResolvedImage } from '../layer/image.ts'
import { closeLayer, type OpenLayer } from '../layer/layer.ts'
import type { Agent } from './agent.ts'

/** Of a blob so much may have to be fetched for its proof alone: what is in no chunk (headers of a tar, tables), and was not read for them. */
const FETCHED_MAX = 1 / 8

/**
 * Proves a layer of which all chunks are here, and those that are shown with it as one tree, from what was read of their blobs. What would
 * have to be fetched again is not.
 * @throws Failure as Layers.prove
 */
export async function proveFilled(
  layer: Pick<OpenLayer, 'descriptor' | 'together'>,
  image: ResolvedImage,
  { layers, gathered, store }: Pick<Agent, 'layers' | 'gathered' | 'store'>,
): Promise<void> {
  const isHere = (of: Descriptor) =>
    store.wholes.has(of.digest) || (gathered !== undefined && gathered.missing(image.blob(of)) <= of.size * FETCHED_MAX)
  // those that show nothing come first: what shows their tree stands on them
  const all = layer.together === undefined ? [layer.descriptor] : layer.together.unit.layers
  for (const each of all) {
    if (!isHere(each)) continue
    const opened = await openLayer(image, each, layers)
    try {
      if (!('why' in opened) && (await opened.verdict()) === undefined) await layers.prove(opened, image.blob(each))
    } finally {
      await closeLayer(opened)
    }
  }
}
