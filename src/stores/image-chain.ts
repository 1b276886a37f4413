// Opens the layers of an image from the base up, as far as they can be listed: a layer is listed with all layers below it, or not at all.
import { describe, Failure } from '../errors.ts'
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { keepForIndex } from '../layer/ahead.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import { closeLayer, type EagerLayer, type LayerLease, type Verdict } from '../layer/layer.ts'
import type { From, Layers } from '../layer/layers.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Resolver } from './asked-image.ts'
import { type Identity, layerId, linkName } from './chain.ts'
import { engineRefusal } from './engine-refusal.ts'
import { tarSizeOf } from './facts.ts'
import { decide, type Evidence, type LayerEvidence, nameOf, type TrustsDiffIds, whyNotByIndex } from './identity.ts'
import type { Listable } from './layers-json.ts'
import { indexOf, type NameClaim, nameClaimOf } from './name-claim.ts'
import { claimedIndex, type Prove } from './read-whole.ts'
import { proveTogether, togetherIn } from './together.ts'

/** An image whose layers were listed. */
export interface ListedImage {
  reference: string
  manifest: Digest
  /** What its layers were identified by, the lowest first; those above were left to the engine. */
  by: readonly Identity['by'][]
  /** Which of these layers were proven to bear that identity; absent: none was. */
  proven?: readonly boolean[]
  /** When the image was last asked for, in milliseconds since 1970; absent in records of earlier versions. */
  askedAt?: number
}

/** What was listed, kept on disk. */
export interface Listings {
  /** Resolves when the record is durable. Keeping an image again only updates what was proven since, and when it was asked for. */
  keep(image: ListedImage): Promise<void>
  /** The image is not listed again after a restart. */
  forget(image: ListedImage): Promise<void>
  /** All of them, in the order in which they were first kept. */
  all(): Promise<ListedImage[]>
}

/** A layer with everything below it. */
export interface ChainLink extends Listable {
  /** Undefined: an earlier process quarantined the layer. It stays in the list, without its files, for engines that know its ID. */
  layer: LayerLease | undefined
  /** Sources of the whole stored layer, in the order in which they are tried. */
  blobs: readonly StoredBlob[]
  /** Short names of the layers below, the next one first. */
  below: readonly string[]
  /** Digest of the index by which its image has it read, whether or not engines know that; undefined: it has none. */
  index: Digest | undefined
}

/**
 * An image's layers as far as they can be listed. `why` says what ends the chain below the image's top; undefined: nothing does. Its layers
 * are open until it is closed.
 */
export interface Chain {
  image: ResolvedImage
  links: readonly ChainLink[]
  why: string | undefined
  /** How an earlier process listed the image, if one did. */
  before?: ListedImage | undefined
  /** What ends the chain may be gone another time: it is no verdict on the layer. */
  passing: boolean
}

/** Closes its layers. What shows them holds them open. */
export async function closeChain({ links }: Chain): Promise<void> {
  await Promise.all(links.map(({ layer }) => layer?.close()))
}

/** What chains are opened with. */
export interface ChainParts {
  images: Resolver
  layers: LayerOpener & Pick<Layers, 'prove' | 'keep' | 'everProven' | 'everRefuted'>
  listings: Listings
  trustsDiffIds: TrustsDiffIds
  log(message: string): void
}

/** What one chain is opened with. */
export interface ChainOpening extends Pick<ChainParts, 'layers' | 'trustsDiffIds'>, Pick<Evidence, 'isAmbiguous'> {
  /** Why a layer is not believed though its image is; undefined: it is. Not asked for what was listed before. */
  whyNot(claim: NameClaim): string | undefined
}

/** How a chain is opened that was listed in an earlier life. */
interface Before {
  listed: ListedImage
  /** 'anywhere': a layer that was proven and whose proof is lost is also read whole again. */
  from: From
}

/** A layer that was opened, and what its name is decided by. */
interface TriedLayer {
  opened: LayerEvidence
  /** Undefined: it is quarantined, or could not be opened. */
  layer: LayerLease | undefined
  /** Bytes of its tar. */
  size: number
}

/** Failures that every further try would meet again. */
const FINAL: ReadonlySet<string> = new Set(['unsupported', 'usage', 'aborted'])

/**
 * Opens an image's layers from the base up, as far as they can be listed; never rejects.
 * @param prove which layers are read whole first; a set names them
 * @param before how the image was listed before: it is listed in the same way again, or not at all
 */
export async function openChain(
  image: ResolvedImage,
  opening: ChainOpening,
  prove: Exclude<Prove, 'small'> | ReadonlySet<Descriptor>,
  before?: Before,
): Promise<Chain> {
  const refused = before === undefined ? engineRefusal(image.manifest) : undefined
  if (refused !== undefined) return { image, links: [], why: refused, passing: false }
  const facts = { isAmbiguous: opening.isAmbiguous, before: before?.listed }
  const candidates: TriedLayer[] = []
  const layers = beginAll(image, opening, prove, before)
  const found = finders(image, layers, opening, before)
  // layers above the first one without a name are not waited for
  for (const [i, find] of found.entries()) {
    const candidate = await find()
    candidates.push(candidate)
    if ('why' in nameOf(image, i, candidate.opened, facts)) break
  }
  // opening a layer again joins an opening that is under way: one from anywhere must not join one that looks on disk alone
  if (before?.from === 'disk') await Promise.allSettled(layers)
  const { names, why, passing } = decide(image, { ...facts, layers: candidates.map(({ opened }) => opened) })
  // those above the chain's end are nobody's concern
  for (const each of layers.slice(names.length)) void each.then(closeLayer, () => {})
  return {
    image,
    links: linksOf(image, opening.layers.plan(image.manifest), names, candidates),
    why,
    passing,
    before: before?.listed,
  }
}

function linksOf(
  image: ResolvedImage,
  plan: Units,
  names: readonly Identity[],
  candidates: readonly TriedLayer[],
): ChainLink[] {
  const links: ChainLink[] = []
  let parent: string | undefined
  let below: readonly string[] = []
  for (const [i, identity] of names.entries()) {
    const { layer, opened, size } = candidates[i] as TriedLayer // each has a name
    const descriptor = image.manifest.layers[i] as Descriptor
    const diffId = image.config.diffIds[i] as Digest // parseConfig: one a layer
    const id = layerId(parent, identity)
    const verdict = opened.is === 'open' ? opened.verdict : undefined
    const stands = opened.is !== 'open' || !opened.together?.shows || links.every((each) => each.proven)
    const proven = verdict?.verdict === 'proven' && verdict.diffId === identity.digest && stands
    const listable = { id, parent, identity, descriptor, diffId, proven, size, tree: layer?.tree }
    links.push({ ...listable, layer, blobs: [image.blob(descriptor)], below, index: indexOf(plan, descriptor) })
    parent = id
    below = [linkName(id), ...below]
  }
  return links
}

/** Begins to open all of them at once. */
function beginAll(
  image: ResolvedImage,
  opening: ChainOpening,
  prove: Parameters<typeof openChain>[2],
  before: Before | undefined,
): Promise<LayerLease | EagerLayer>[] {
  const { by, proven: wasProven } = before?.listed ?? {}
  const proving = (each: Descriptor) => (typeof prove === 'string' ? prove : prove.has(each) ? 'all' : 'none')
  const begun: Promise<LayerLease | EagerLayer>[] = []
  for (const [i, descriptor] of image.manifest.layers.slice(0, by?.length).entries()) {
    const mends = by?.[i] === 'diffid' && wasProven?.[i] === true
    const below = Promise.allSettled(begun)
    const layer =
      before === undefined
        ? open(image, descriptor, opening, proving(descriptor), below)
        : openAgain(image, descriptor, opening.layers, before.from, mends)
    layer.catch(() => {}) // it may fail while one below it is still waited for
    begun.push(layer)
  }
  return begun
}

/** What says of each layer what came of opening it, the base first; none rejects. */
function finders(
  image: ResolvedImage,
  opened: readonly Promise<LayerLease | EagerLayer>[],
  opening: ChainOpening,
  before: Before | undefined,
): (() => Promise<TriedLayer>)[] {
  const { layers } = opening
  const { by, proven: wasProven } = before?.listed ?? {}
  const trusted = truster(image, opening, before)
  return opened.map((each, i) => async () => {
    const descriptor = image.manifest.layers[i] as Descriptor // one each
    try {
      const layer = await each.catch(async (error) => {
        const together = togetherIn(layers.plan(image.manifest), descriptor) !== undefined
        if (before === undefined || !(await layers.everRefuted(descriptor.digest, together))) throw error
        return undefined // a layer that lies keeps the name it was listed by
      })
      if (layer === undefined) return quarantined(descriptor, claimedIndex(layers.plan(image.manifest), descriptor))
      const isKnown = wasProven?.[i] === true
      const candidate = await candidateOf(layer, by?.[i], isKnown, trusted)
      if (by?.[i] === 'diffid' && !isKnown && isFalse(candidate, image.config.diffIds[i])) {
        await candidate.layer?.close()
        return quarantined(descriptor, undefined) // one that was believed keeps the name, too
      }
      return before === undefined
        ? guarded(candidate, nameClaimOf(image, i, layers.plan(image.manifest), candidate.layer?.tree), opening)
        : candidate
    } catch (error) {
      return closed(describe(error), !(error instanceof Failure) || !FINAL.has(error.code))
    }
  })
}

/** Asks at most once whether an image's claims are trusted, and not at all where proofs on disk suffice for what was listed before. */
function truster(image: ResolvedImage, { trustsDiffIds }: ChainOpening, before: Before | undefined) {
  let trusted: Promise<true | string> | undefined
  return async (by: Identity['by'] | undefined, verdict: Verdict | undefined): Promise<true | string> => {
    if (before === undefined) trusted ??= trustsDiffIds(image)
    else if (by === 'diffid' && verdict === undefined) trusted ??= trustsDiffIds(image, 'throw')
    return (await trusted) ?? 'nobody was asked'
  }
}

async function candidateOf(
  layer: LayerLease | EagerLayer,
  by: Identity['by'] | undefined,
  wasProven: boolean,
  trusted: ReturnType<typeof truster>,
): Promise<TriedLayer> {
  if ('why' in layer) return closed(`it is not lazy: ${layer.why}`, wasProven)
  const verdict = await layer.verdict()
  const { indexDigest, together } = layer
  const opened = { is: 'open', indexDigest, verdict, together, trusted: await trusted(by, verdict) } as const
  return { opened, layer, size: await tarSizeOf(layer) }
}

/** Whether a layer's bytes were found to have another DiffID than its image claims. */
function isFalse({ opened }: TriedLayer, claimed: Digest | undefined): boolean {
  return opened.is === 'open' && opened.verdict !== undefined && opened.verdict.diffId !== claimed
}

/** A layer that is believed with its image, unless another image says otherwise of it. */
function guarded(tried: TriedLayer, claim: NameClaim, { whyNot }: Pick<ChainOpening, 'whyNot'>): TriedLayer {
  const { opened } = tried
  if (opened.is !== 'open' || opened.verdict !== undefined || opened.trusted !== true) return tried
  return { ...tried, opened: { ...opened, trusted: whyNot(claim) ?? true } }
}

function quarantined({ size }: Descriptor, index: Digest | undefined): TriedLayer {
  return { opened: { is: 'quarantined', index }, layer: undefined, size }
}

function closed(why: string, passing: boolean): TriedLayer {
  return { opened: { is: 'closed', why, passing }, layer: undefined, size: 0 }
}

/** @param below settles with the layers below */
async function open(
  image: ResolvedImage,
  descriptor: Descriptor,
  { layers, isAmbiguous, trustsDiffIds }: Pick<ChainOpening, 'layers' | 'isAmbiguous' | 'trustsDiffIds'>,
  prove: Exclude<Prove, 'small'>,
  below: Promise<unknown>,
) {
  await keepForIndex(image, descriptor, layers)
  const layer = await openLayer(image, descriptor, layers, { fetchWhole: prove !== 'none' })
  if ('why' in layer) return layer
  const { indexDigest, together } = layer
  const isBelieved = prove === 'needed' && (await orClose(layer, trustsDiffIds(image))) === true
  if (together !== undefined) {
    if (together.shows) await below // what was read of them fills the tree
    await orClose(layer, proveTogether(layer, together, image, layers, prove !== 'none' && !isBelieved))
    return layer
  }
  if (prove === 'none' || (isBelieved && indexDigest !== undefined)) return layer
  const isNamed = indexDigest !== undefined && whyNotByIndex(image, descriptor, indexDigest, isAmbiguous) === undefined
  if (prove === 'all' || !isNamed) await proveOrClose(layer, image, layers)
  return layer
}

/** @throws as Layers.prove; the layer is closed then */
async function proveOrClose(layer: LayerLease, image: ResolvedImage, layers: ChainOpening['layers']): Promise<void> {
  await orClose(layer, layers.prove(layer, image.blob(layer.descriptor)))
}

/** @throws as `proving`; the layer is closed then */
async function orClose<T>(layer: LayerLease, proving: Promise<T>): Promise<T> {
  try {
    return await proving
  } catch (error) {
    await layer.close()
    throw error
  }
}

/** @param wasProven whether the layer was proven when it was listed: where its proof is gone, so may be what was made of its bytes */
async function openAgain(
  image: ResolvedImage,
  descriptor: Descriptor,
  layers: ChainOpening['layers'],
  from: From,
  wasProven: boolean,
): Promise<LayerLease | EagerLayer> {
  const mends = from === 'anywhere' && wasProven
  const layer = await openLayer(image, descriptor, layers, { from, fetchWhole: mends })
  if (mends && !('why' in layer) && (await layer.verdict()) === undefined) await proveOrClose(layer, image, layers)
  return layer
}
