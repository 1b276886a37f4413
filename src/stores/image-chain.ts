// The layers of an image, opened from the base up, each with all that is below it: as far as they can be listed.
import { describe, Failure } from '../errors.ts'
import { engineIndex } from '../format/engine-index.ts'
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest } from '../image/manifest.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import type { EagerLayer, From, Layers, OpenLayer } from '../layer/layer.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Resolver } from './asked-image.ts'
import { type Identity, layerId, linkName } from './chain.ts'
import { tarSizeOf } from './facts.ts'
import { type Believe, diffIdOf, identityOf, type Nameless } from './identity.ts'
import type { Listable } from './layers-json.ts'

/** An image whose layers were listed. */
export interface ListedImage {
  reference: string
  manifest: Digest
  /** What its layers were identified by, the lowest first; those above were left to the engine. */
  by: readonly Identity['by'][]
  /** Which of them were proven to bear it; none where it is not said. */
  proven?: readonly boolean[]
}

/** What was listed, kept on disk. */
export interface Listings {
  /** Resolves when it is durable; once is enough. */
  keep(image: ListedImage): Promise<void>
  /** It is not there after a restart. */
  forget(image: ListedImage): Promise<void>
  /** The first that was kept first. */
  all(): Promise<ListedImage[]>
}

/** A layer with everything below it. */
export interface Link extends Listable {
  /** Undefined: it was quarantined in an earlier life, and stands in the list for the engines that know it, without its files. */
  layer: OpenLayer | undefined
  /** All of its bytes, as they are stored: where they are asked for first, and where else. */
  blobs: readonly StoredBlob[]
  /** Short names of the layers below, the next one first. */
  below: readonly string[]
}

/** `why` it ends below the image's top; undefined when it does not. */
export interface Chain {
  image: ResolvedImage
  links: readonly Link[]
  why: string | undefined
  /** As it was listed in an earlier life. */
  before?: ListedImage | undefined
  /** What ends it is no verdict: it may go on another time. */
  passing?: boolean
}

/** What chains are opened with. */
export interface ChainParts {
  images: Resolver
  layers: LayerOpener & Pick<Layers, 'prove' | 'everProven' | 'everRefuted'>
  listings: Listings
  believe: Believe
  log(message: string): void
}

/** What one chain is opened with. */
export interface Opening extends Pick<ChainParts, 'layers' | 'believe'> {
  /** Whether engines cannot tell images apart by an index: then it names no layer. */
  isAmbiguous(index: Digest): boolean
}

/**
 * Which layers of an image are read whole before it is listed: none; of those that no index names the few that keep lazy ones above
 * them from being listed, if they are small (an engine waits); all that no index names; or all, so that each may bear its DiffID.
 */
export type Prove = (typeof PROVE)[number]

export const PROVE = ['none', 'small', 'needed', 'all'] as const

/** Of one image: many a base image has no more. They take under a second at 100 Mbit/s, and the engine would fetch them, too. */
const SMALL_MAX_BYTES = 8 << 20
/** Of one image: 9 s at 250 Mbit/s. The engine waits for 10, and fetches what did not come itself. */
const AMBIGUOUS_MAX_BYTES = 256 << 20
const BY_DIFFID = '(lazylayer pull IMAGE has it listed by its DiffID)'
const AMBIGUOUS = `engines before Podman 6 cannot tell images apart by its index ${BY_DIFFID}`
const UNSEEN = `engines look for no index of a layer in a Docker manifest ${BY_DIFFID}`

/** How a chain is opened that was listed in an earlier life. */
interface Before {
  listed: ListedImage
  /** 'anywhere': what was proven once and is no more, because its proof was lost, is read whole again. */
  from: From
}

/**
 * Opens an image's layers from the base up, as far as they can be listed; never rejects.
 * @param prove which layers are read whole before; a set: these
 * @param before how it was listed before: again so, or not at all
 */
export async function openChain(
  image: ResolvedImage,
  { layers, believe, isAmbiguous }: Opening,
  prove: Exclude<Prove, 'small'> | ReadonlySet<Descriptor>,
  before?: Before,
): Promise<Chain> {
  const { by, proven: wasProven } = before?.listed ?? {}
  const wanted = image.manifest.layers.slice(0, by?.length)
  const proving = (each: Descriptor) => (typeof prove === 'string' ? prove : prove.has(each) ? 'all' : 'none')
  const notByIndex = (index: Digest, descriptor: Descriptor) => {
    if (isAmbiguous(index)) return AMBIGUOUS
    return engineIndex(image.manifest, descriptor) === index ? undefined : UNSEEN
  }
  const opening = wanted.map((each, i) => {
    if (before === undefined) return open(image, each, { layers, notByIndex }, proving(each))
    return openAgain(image, each, layers, before.from, by?.[i] === 'diffid' && wasProven?.[i] === true)
  })
  for (const each of opening) each.catch(() => {}) // those above the chain's end are nobody's concern
  const links: Link[] = []
  const end = (why: string, passing = false): Chain => ({ image, links, why, before: before?.listed, passing })
  let parent: string | undefined
  let below: readonly string[] = []
  try {
    let believed: Promise<true | string> | undefined
    for (const [i, descriptor] of wanted.entries()) {
      const diffId = image.config.diffIds[i] as Digest // parseConfig: one a layer
      const layer = await (opening[i] as (typeof opening)[number]).catch(async (error) => {
        if (by === undefined || !(await layers.everRefuted(descriptor.digest))) throw error
        return undefined
      })
      if (layer !== undefined && 'why' in layer) return end(`it is not lazy: ${layer.why}`, wasProven?.[i])
      // what disk knows is enough where it was listed before: then nobody has to be asked
      if (before === undefined) believed ??= believe(image)
      else if (by?.[i] === 'diffid' && (await layer?.verdict()) === undefined) believed ??= believe(image, 'throw')
      const identity =
        layer === undefined
          ? oldNameOf(indexOf(layers.plan(image.manifest), descriptor), diffId, by?.[i])
          : await nameOf(layer, diffId, (await believed) ?? NOT_ASKED, notByIndex, by?.[i])
      if ('why' in identity) return end(identity.why, wasProven?.[i])
      const id = layerId(parent, identity)
      const size = layer === undefined ? descriptor.size : await tarSizeOf(layer)
      const verdict = await layer?.verdict()
      const proven = verdict?.verdict === 'proven' && verdict.diffId === identity.digest
      const listable = { id, parent, identity, descriptor, diffId, proven, size, tree: layer?.tree }
      links.push({ ...listable, layer, blobs: [image.blob(descriptor)], below })
      parent = id
      below = [linkName(id), ...below]
    }
  } catch (error) {
    return end(describe(error), !(error instanceof Failure) || !FINAL.has(error.code))
  }
  return { image, links, why: undefined, before: before?.listed }
}

const NOT_ASKED = 'nobody was asked'
/** What another try would end with, too. */
const FINAL: ReadonlySet<string> = new Set(['unsupported', 'usage', 'aborted'])

/** Layers of an image that are fetched whole while an engine waits: small ones below lazy ones, and those with an ambiguous index. */
export async function missingWhole(
  { manifest }: Pick<ResolvedImage, 'manifest'>,
  layers: Pick<ChainParts['layers'], 'everProven' | 'plan'>,
  isAmbiguous: Opening['isAmbiguous'],
): Promise<ReadonlySet<Descriptor>> {
  // what cannot be read is as good as not here
  const proven = await Promise.all(manifest.layers.map(({ digest }) => layers.everProven(digest).catch(() => false)))
  const here = new Set(manifest.layers.filter((_, i) => proven[i]))
  return waitedFor(manifest, layers.plan(manifest), isAmbiguous, (each) => here.has(each))
}

/** These layers, by what is known of each. */
export function waitedFor(
  manifest: Pick<Manifest, 'mediaType' | 'layers'>,
  plan: Units,
  isAmbiguous: Opening['isAmbiguous'],
  isHere: (descriptor: Descriptor) => boolean,
): ReadonlySet<Descriptor> {
  const hasName = (each: Descriptor) => {
    const index = indexOf(plan, each)
    return index !== undefined && engineIndex(manifest, each) === index
  }
  const small = smallBelowLazy(manifest.layers, hasName, isHere)
  const end = manifest.layers.findIndex((each) => !isHere(each) && !small.has(each) && !hasName(each))
  // nothing is listed above what the engine pulls
  const listable = manifest.layers.slice(0, end < 0 ? undefined : end)
  // also those that are proven: by another tree, maybe
  const ambiguous = listable.filter((each) => hasName(each) && isAmbiguous(indexOf(plan, each) as Digest))
  const bytes = ambiguous.reduce((sum, each) => sum + (isHere(each) ? 0 : each.size), 0)
  return bytes <= AMBIGUOUS_MAX_BYTES ? new Set([...small, ...ambiguous]) : small
}

/** Digest of a layer's index, as its image says; undefined: it says none. */
function indexOf(plan: Units, descriptor: Descriptor): Digest | undefined {
  const unit = plan.get(descriptor)
  return unit !== undefined && 'identity' in unit ? unit.identity : undefined
}

/**
 * Layers without an index that have lazy ones above them and are not here yet; none when together they are too large to wait for.
 */
function smallBelowLazy(
  descriptors: readonly Descriptor[],
  isLazy: (descriptor: Descriptor) => boolean,
  isHere: (descriptor: Descriptor) => boolean,
): ReadonlySet<Descriptor> {
  const lazy = descriptors.map(isLazy)
  const below = descriptors.slice(0, Math.max(0, lazy.lastIndexOf(true)))
  const missing = below.filter((each, i) => !lazy[i] && !isHere(each))
  const bytes = missing.reduce((sum, { size }) => sum + size, 0)
  return new Set(bytes <= SMALL_MAX_BYTES ? missing : [])
}

/** Why an index is no name of a layer: a sentence. */
type NotByIndex = (index: Digest, descriptor: Descriptor) => string | undefined

async function open(
  image: ResolvedImage,
  descriptor: Descriptor,
  { layers, notByIndex }: Pick<Opening, 'layers'> & { notByIndex: NotByIndex },
  prove: Exclude<Prove, 'small'>,
) {
  const layer = await openLayer(image, descriptor, layers, { fetchWhole: prove !== 'none' })
  if ('why' in layer || prove === 'none') return layer
  const { indexDigest } = layer
  if (prove === 'all' || indexDigest === undefined || notByIndex(indexDigest, descriptor) !== undefined) {
    await layers.prove(layer, image.blob(descriptor))
  }
  return layer
}

/** @param wasProven a proof that it has no more was lost, and so may all else be that was made of its bytes */
async function openAgain(
  image: ResolvedImage,
  descriptor: Descriptor,
  layers: Opening['layers'],
  from: From,
  wasProven: boolean,
): Promise<OpenLayer | EagerLayer> {
  const mends = from === 'anywhere' && wasProven
  const layer = await openLayer(image, descriptor, layers, { from, fetchWhole: mends })
  if (mends && !('why' in layer) && (await layer.verdict()) === undefined) {
    await layers.prove(layer, image.blob(descriptor))
  }
  return layer
}

async function nameOf(
  layer: OpenLayer,
  diffId: Digest,
  believed: true | string,
  notByIndex: NotByIndex,
  by: Identity['by'] | undefined,
): Promise<Identity | Nameless> {
  if (by === undefined) {
    const identity = await identityOf(layer, diffId, believed)
    if ('why' in identity || identity.by !== 'index') return identity
    const why = notByIndex(identity.digest, layer.descriptor)
    return why === undefined ? identity : { why }
  }
  if (by === 'diffid') return await diffIdOf(layer, diffId, believed)
  return layer.indexDigest === undefined ? { why: 'it has no index' } : { by, digest: layer.indexDigest }
}

/** What a layer that is opened no more was listed by. */
function oldNameOf(index: Digest | undefined, diffId: Digest, by: Identity['by'] | undefined): Identity | Nameless {
  if (by === 'diffid') return { by, digest: diffId }
  return by === undefined || index === undefined ? { why: 'it is quarantined' } : { by, digest: index }
}
