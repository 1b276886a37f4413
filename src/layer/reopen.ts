// A layer that was open before, opened again from what is kept of its image, with the tree that it had.
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { parseReference, referenceText } from '../image/reference.ts'
import { type Images, type LayerOpener, openLayer, type ResolvedImage } from './image.ts'
import { type LayerLease, type OpenLayer, WHOLE } from './layer.ts'
import type { From } from './layers.ts'

/** Where a layer is: enough to open it again. */
export interface KeptPlace {
  reference: string
  manifest: Digest
  /** In the manifest's layers. */
  place: number
  blob: Digest
  tree: Digest
  /** Served from its whole tar. */
  whole: boolean
}

export function placeOfLayer({ descriptor, tree, format }: OpenLayer, image: ResolvedImage): KeptPlace {
  const { layers } = image.manifest
  return {
    reference: referenceText(image.reference),
    manifest: image.digest,
    place: layers.findIndex((each) => each.digest === descriptor.digest && each.size === descriptor.size),
    blob: descriptor.digest,
    tree,
    whole: format === WHOLE,
  }
}

export interface Reopening {
  images: Pick<Images, 'kept' | 'resolve'>
  layers: LayerOpener
  signal: AbortSignal
}

/** The image, by the digest of its manifest. @throws Failure missing: it is not on disk; as Images.resolve */
export async function imageAgain(
  { reference: text, manifest }: Pick<KeptPlace, 'reference' | 'manifest'>,
  from: From,
  { images, signal }: Reopening,
): Promise<ResolvedImage> {
  const reference = { ...parseReference(text), digest: manifest }
  const kept = await images.kept(reference)
  if (kept !== undefined) return kept
  if (from === 'anywhere') return await images.resolve(reference, signal)
  throw Failure.missing(`manifest ${manifest}, or its config, is not in the cache`)
}

/** @returns what the caller closes. @throws Failure corrupt: it has another tree now; missing, unsupported: it cannot be opened; as Layers.open */
export async function layerAgain(
  { place, blob, tree, whole }: KeptPlace,
  image: ResolvedImage,
  from: From,
  { layers }: Reopening,
): Promise<LayerLease> {
  const descriptor = image.manifest.layers[place]
  if (descriptor?.digest !== blob) throw Failure.corrupt(`manifest ${image.digest} has no layer ${blob} there`)
  const layer = whole
    ? await layers.openWhole(descriptor, image.blob(descriptor), from === 'anywhere', from, image.repository)
    : await openLayer(image, descriptor, layers, { from })
  if (layer === undefined) throw Failure.missing(`layer ${blob} is not in the cache`)
  if ('why' in layer) throw Failure.unsupported(layer.why)
  if (layer.tree === tree) return layer
  await layer.close()
  throw Failure.corrupt(`layer ${blob} has another tree now: ${layer.tree}`)
}
