// Why a layer is lazy or not, for engines of each era: pure, from what is known of the layer and of this machine.

import type { Era } from '../../engines/versions.ts'
import { HOW_TO_CONVERT } from '../../format/formats.ts'
import type { DiffIdPolicy } from '../../stores/diff-id-policy.ts'

/** What is known of a layer alone. */
export interface LayerFacts {
  /**
   * Name of its lazy format, `unnamed` where its index does not name it; or why it has none, and what to do if that is not to convert it,
   * `small`: the agent fetches it whole for the sake of lazy layers above it, while an engine waits.
   */
  format: { name: string; unnamed?: Unnamed | undefined } | { why: string; fix?: string; small?: true }
  /** Of a layer that shows one tree together with others: how engines know it. */
  named?: Named
  /** Why the agent did not list it though it believes its DiffID: another image says otherwise, and so on. */
  unlisted?: Unbelieved
  /** Whether this machine has proven that its bytes have the DiffID that the image claims. */
  proven: boolean
  /**
   * Why the agent believes the DiffIDs that the image claims, by the policy that has it do so; or why it does not; `false`: this
   * one is known to be another's, so that it bears no name.
   */
  believed: Exclude<DiffIdPolicy, 'proven'> | (Unbelieved & { false?: true })
}

/** The DiffID of one of several layers. */
export interface Named {
  identity: IdentityBasis
  /** Not before the image is listed: one of them is read whole then, while an engine waits. */
  listed: boolean
}

/** Why engines do not find a layer by its index, and how they would; `whole`: the agent fetches it whole, while an engine waits. */
export interface Unnamed {
  why: string
  /** A sentence without its end. */
  fix: string
  whole?: true
}

/** A clause, and what to do. */
export interface Unbelieved {
  why: string
  fix: string
}

/** And of the layers below it. */
export interface KnownFacts extends LayerFacts {
  /** Whether a layer below it in the same image is not in the image store, for this era: its chain ends there. */
  chainEnded: boolean
}

/** The store that an engine finds a layer in. */
export type Door = 'layers' | 'images'
/** What the engine knows a layer by: the digest of its index, or a DiffID that was proven, or that the image claims and a policy believes. */
export type IdentityBasis = 'index' | DiffIdPolicy

/** How an engine gets a layer; `fails`: it cannot pull it itself either. */
export type LayerWay =
  | { door: Door; identity: IdentityBasis; lazy: boolean; why?: string }
  | { door: undefined; why: string; fix: string; fails?: true }

const PULLED = 'the engine pulls it'
const COMPLETE = 'it is complete on this machine'
const WHOLE = 'so the agent fetches it whole when the image is listed'
const SMALL = `it is small and below lazy layers, ${WHOLE}`
const FETCH = 'have the agent fetch it whole, once for all images: lazylayer pull IMAGE.'
const ABOVE: LayerWay = {
  door: undefined,
  why: `a layer below it is not in the image store, so ${PULLED}, too`,
  fix: 'See the lowest layer that is pulled.',
}

/**
 * The best way an engine of this era has. In the image store a layer hangs on those below it; in the layer store each stands alone.
 */
export function wayOf(era: Era, facts: KnownFacts): LayerWay {
  const inLayers = era === 'image' ? undefined : throughLayers(era, facts)
  if (inLayers !== undefined) return inLayers
  const inImages = throughImages(era, facts)
  if (inImages === undefined) return pulled(era, facts)
  return facts.chainEnded ? ABOVE : inImages
}

function throughLayers(era: 'layer' | 'index', { format, named, proven, believed }: KnownFacts): LayerWay | undefined {
  if (named !== undefined) {
    return era === 'layer' && !named.listed ? { door: 'layers', identity: named.identity, lazy: true } : undefined
  }
  if (!('name' in format)) {
    return era === 'layer' && proven ? { door: 'layers', identity: 'proven', lazy: false, why: COMPLETE } : undefined
  }
  if (era === 'index') return format.unnamed ? undefined : { door: 'layers', identity: 'index', lazy: true }
  if (proven) return { door: 'layers', identity: 'proven', lazy: true }
  return typeof believed === 'string' ? { door: 'layers', identity: believed, lazy: true } : undefined
}

function throughImages(era: Era, { format, named, unlisted, proven, believed }: KnownFacts): LayerWay | undefined {
  if (unlisted !== undefined) return undefined
  if (named !== undefined) return { door: 'images', identity: named.identity, lazy: true }
  const lazy = 'name' in format
  if (proven) {
    return lazy
      ? { door: 'images', identity: 'proven', lazy }
      : { door: 'images', identity: 'proven', lazy, why: COMPLETE }
  }
  if (!lazy) return format.small ? { door: 'images', identity: 'proven', lazy, why: SMALL } : undefined
  // believed DiffIDs are what all of an image is listed by; engines that know DiffIDs only find nothing under an index's name
  if (typeof believed === 'string') return { door: 'images', identity: believed, lazy }
  if (believed.false) return undefined
  const { unnamed } = format
  if (unnamed?.whole) return { door: 'images', identity: 'proven', lazy: false, why: `${unnamed.why}, ${WHOLE}` }
  return era === 'layer' || unnamed ? undefined : { door: 'images', identity: 'index', lazy }
}

function pulled(era: Era, { format, unlisted, believed, chainEnded }: KnownFacts): LayerWay {
  if ('why' in format) {
    const usual = `${HOW_TO_CONVERT} Or ${FETCH}`
    return { door: undefined, why: `${format.why}, so ${PULLED}`, fix: format.fix ?? usual }
  }
  if (unlisted !== undefined) return { door: undefined, why: `${unlisted.why}, so ${PULLED}`, fix: unlisted.fix }
  if (typeof believed === 'string') throw new TypeError('a layer with an index that is believed has a way')
  const { why, fix } = believed
  if (believed.false) return { door: undefined, why: `${why}, so ${PULLED}`, fix }
  if (era !== 'layer') {
    const { unnamed } = format
    if (unnamed === undefined) throw new TypeError('a layer with an index that names it has a way')
    if (chainEnded) return ABOVE // so nobody has asked whether it would be waited for
    return { door: undefined, why: `${unnamed.why}, so ${PULLED}`, fix: `${unnamed.fix}, or ${FETCH}` }
  }
  return { door: undefined, why: `this engine knows layers by DiffID only, and ${why}, so ${PULLED}`, fix }
}

/** The ways of each layer of an image that no engine has, nor can pull. */
export function waysOfNone({ why, fix }: Unbelieved): Ways {
  const way: LayerWay = { door: undefined, why: `${why}, so the engine's pull fails`, fix, fails: true }
  return { layer: way, index: way, image: way }
}

/** A layer's ways, for engines of each era. */
export type Ways = Readonly<Record<Era, LayerWay>>

/** The ways of all layers of an image, lowest first. */
export function waysOf(layers: readonly LayerFacts[]): Ways[] {
  const ended = { layer: false, index: false, image: false }
  const way = (era: Era, layer: LayerFacts): LayerWay => {
    const facts = { ...layer, chainEnded: ended[era] }
    // a layer is listed under its parent, so nothing can be listed above one that is not, whichever door that one comes through
    if (throughImages(era, facts) === undefined) ended[era] = true
    return wayOf(era, facts)
  }
  return layers.map((each) => ({ layer: way('layer', each), index: way('index', each), image: way('image', each) }))
}
