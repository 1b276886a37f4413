// The layers of an image, opened from the base up, each with all that is below it: as far as they can be listed.
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { parseReference } from '../image/reference.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../mount/image.ts'
import type { OpenLayer } from '../mount/layer.ts'
import type { Resolver } from './asked-image.ts'
import { type Identity, layerId, linkName } from './chain.ts'
import { tarSizeOf } from './facts.ts'
import type { DiffIdPolicy } from './identity.ts'
import type { Listable } from './layers-json.ts'
import { type Patience, patiently } from './patience.ts'

/** An image whose layers were listed. */
export interface ListedImage {
  reference: string
  manifest: Digest
  /** What its layers were identified by. */
  by: Identity['by']
}

/** What was listed, kept on disk. */
export interface Listings {
  /** Resolves when it is durable; once is enough. */
  keep(image: ListedImage): Promise<void>
  /** The first that was kept first. */
  all(): Promise<ListedImage[]>
}

/** A layer with everything below it. */
export interface Link extends Listable {
  layer: OpenLayer
  /** Short names of the layers below, the next one first. */
  below: readonly string[]
}

/** `why` it ends below the image's top; undefined when it does not. */
export interface Chain {
  image: ResolvedImage
  by: Identity['by']
  links: readonly Link[]
  why: string | undefined
}

/** What chains are opened with. */
export interface ChainParts {
  images: Resolver
  layers: LayerOpener
  listings: Listings
  diffId: DiffIdPolicy
  log(message: string): void
}

/** Each layer is hashed. */
const READ_AT_ONCE = 8
/** What is intact needs no network; what is damaged is fetched and built again, but does not keep the rest waiting for longer. */
const READ_PATIENCE: Patience = { stallMs: 30_000, totalMs: 30_000 }

/**
 * Everything that was listed, opened from disk, to be listed again. What an earlier policy believed and this one does not is left out;
 * what cannot be opened is, too: both are logged.
 * @throws Failure system
 */
export async function readBack(parts: ChainParts): Promise<Chain[]> {
  const { images, layers, listings, diffId, log } = parts
  const read = async ({ reference: text, manifest, by }: ListedImage): Promise<Chain> => {
    const reference = parseReference(text)
    const image = await images.kept({ ...reference, digest: manifest })
    if (image === undefined) throw Failure.missing(`manifest ${manifest} is not in the cache`)
    const chain = await openChain(image, by, layers)
    return { ...chain, image: { ...image, reference } }
  }
  const listed = await listings.all()
  const chains: Chain[] = []
  for (let at = 0; at < listed.length; at += READ_AT_ONCE) {
    const some = listed.slice(at, at + READ_AT_ONCE).map(async (each) => {
      try {
        if (each.by === 'diffid' && diffId !== 'claimed') {
          throw Failure.unsupported(`they bore DiffIDs that it claims, which --diffid ${diffId} does not believe`)
        }
        return [await patiently(read(each), () => performance.now(), READ_PATIENCE)]
      } catch (error) {
        log(`${each.reference}: its layers are not listed again: ${describe(error)}`)
        return []
      }
    })
    chains.push(...(await Promise.all(some)).flat())
  }
  return chains
}

/** Opens an image's layers from the base up, as far as they can be listed under such identities; never rejects. */
export async function openChain(image: ResolvedImage, by: Identity['by'], layers: LayerOpener): Promise<Chain> {
  const opening = image.manifest.layers.map((each) => openLayer(image, each, layers))
  for (const each of opening) each.catch(() => {}) // those above the chain's end are nobody's concern
  const links: Link[] = []
  const end = (why: string): Chain => ({ image, by, links, why })
  let parent: string | undefined
  let below: readonly string[] = []
  for (const [i, descriptor] of image.manifest.layers.entries()) {
    const diffId = image.config.diffIds[i] as Digest // parseConfig: one a layer
    try {
      const layer = await (opening[i] as (typeof opening)[number])
      if ('why' in layer) return end(`it is not lazy: ${layer.why}`)
      const identity: Identity = by === 'index' ? { by, digest: layer.indexDigest } : { by, digest: diffId }
      const id = layerId(parent, identity)
      links.push({ id, parent, identity, descriptor, diffId, size: tarSizeOf(layer, layers), layer, below })
      parent = id
      below = [linkName(id), ...below]
    } catch (error) {
      return end(describe(error))
    }
  }
  return { image, by, links, why: undefined }
}
