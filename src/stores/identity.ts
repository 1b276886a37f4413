// Whose name a layer may bear. Engines reuse a layer on its identity alone, across images, and a config's DiffID is chosen by
// whoever made the image: shown under a DiffID that its bytes were not proven to have, one image's files would run in another's
// containers. The digest of a layer's index is proven before anything is served; a DiffID is a claim until the whole layer was read.
// Pure: `decide` is given all that is known.
import { engineIndex } from '../format/engine-index.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest } from '../image/manifest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { Together, Verdict } from '../layer/layer.ts'
import type { Identity } from './chain.ts'
import { whyNotTogether } from './together-names.ts'

/**
 * Whether the DiffIDs that an image claims are trusted; otherwise why not: a sentence.
 * @param failing whether a failure that another try may not meet is the reason given (`why`), or is thrown
 */
export type TrustsDiffIds = (
  image: Pick<ResolvedImage, 'reference' | 'manifestBytes' | 'digest'>,
  failing?: 'why' | 'throw',
) => Promise<true | string>

/** Trusts every image's claims: for machines whose images all trust one another, or where a guard keeps them apart. */
export const trustAll: TrustsDiffIds = () => Promise.resolve(true)

/** Trusts no image's claims, which is the default. */
export const trustNone: TrustsDiffIds = () =>
  Promise.resolve(
    'the engine identifies layers by DiffID, and this one is only claimed by the image (lazylayer pull --prove has it proven)',
  )

/**
 * What an engine asks a layer by. Podman up to 5.0 asks by the digest of the compressed layer and takes the DiffID from us;
 * Podman 5.1 and later asks by the digest of its index, and makes that the layer's identity.
 */
export type Dialect = 'layer' | 'index'

/** Why a layer cannot be named: a sentence. */
export interface Nameless {
  why: string
  /** Another try may name it. */
  passing?: boolean
}

/** What an image claims of its layers. */
export interface Claims {
  manifest: Pick<Manifest, 'mediaType' | 'layers'>
  config: { diffIds: readonly Digest[] }
}

/** What came of opening a layer. */
export type LayerEvidence =
  | {
      is: 'open'
      indexDigest: Digest | undefined
      /** What reading all of it said, if that was ever done. */
      verdict: Verdict | undefined
      /** Its tree is one of several layers together, which are named all or none. */
      together: Together | undefined
      /** As TrustsDiffIds answered for the image. */
      trusted: true | string
    }
  /** Not opened any more because it was found to lie since it was listed. `index`: as its image says. */
  | { is: 'quarantined'; index: Digest | undefined }
  | { is: 'closed'; why: string; passing: boolean }

/** Everything that the names of an image's layers are decided by. */
export interface Evidence {
  /** From the base up. Layers above the first one without a name do not matter. */
  layers: readonly LayerEvidence[]
  /** Whether engines cannot tell images apart by an index. */
  isAmbiguous(index: Digest): boolean
  /** How the image was listed by an earlier process, if it was: then it is listed in the same way again, or not at all. */
  before?: { by: readonly Identity['by'][]; proven?: readonly boolean[] } | undefined
}

/** The names of an image's layers from the base up, and why the chain ends below the image's top. */
export interface Decision {
  names: readonly Identity[]
  /** Undefined: all of them are named. */
  why: string | undefined
  /** What ends the chain may be gone another time: it is no verdict on the layer. */
  passing: boolean
}

const BY_DIFFID = '(lazylayer pull IMAGE has it listed by its DiffID)'
const AMBIGUOUS = `engines before Podman 6 cannot tell images apart by its index ${BY_DIFFID}`
const UNSEEN = `engines look for no index of a layer in a Docker manifest ${BY_DIFFID}`

/** Names the layers of an image, as far as they were opened. */
export function decide(image: Claims, facts: Evidence): Decision {
  const names: Identity[] = []
  for (const [i, opened] of facts.layers.entries()) {
    const name = nameOf(image, i, opened, facts)
    if ('why' in name) return { names: upTo(names, facts), why: name.why, passing: name.passing === true }
    names.push(name)
  }
  return { names, why: undefined, passing: false }
}

/** Names, but for some of layers that are named all or none: these are the lowest. */
function upTo(names: readonly Identity[], { layers }: Evidence): readonly Identity[] {
  const together = layers.map((each) => (each.is === 'open' ? (each.together?.unit.layers.length ?? 0) : 0))
  return names.length < Math.max(0, ...together) ? [] : names
}

/** Names one layer of an image, or says why it has no name. */
export function nameOf(
  image: Claims,
  i: number,
  opened: LayerEvidence,
  facts: Omit<Evidence, 'layers'>,
): Identity | Nameless {
  const descriptor = image.manifest.layers[i] as Descriptor // one that was opened
  const diffId = image.config.diffIds[i] as Digest // parseConfig: one a layer
  const by = facts.before?.by[i]
  if (opened.is === 'closed') return opened
  if (opened.is === 'quarantined') return oldNameOf(opened.index, diffId, by)
  const never = opened.together && whyNotTogether(image, opened.together)
  if (never !== undefined) return { why: never }
  const name =
    by === undefined ? newNameOf(image, descriptor, diffId, opened, facts.isAmbiguous) : sameNameOf(diffId, opened, by)
  return 'why' in name ? { ...name, passing: facts.before?.proven?.[i] === true } : name
}

/** The DiffID of a layer of an image, or why it must not bear it. @param trusted as TrustsDiffIds answered for the image */
export function diffIdOf(
  { verdict, together }: Pick<OpenEvidence, 'verdict' | 'together'>,
  claimed: Digest,
  trusted: true | string,
): Identity | Nameless {
  if (verdict?.verdict === 'refuted') return { why: `it is quarantined: ${verdict.why}` }
  if (verdict !== undefined && verdict.diffId !== claimed) {
    return { why: `the image claims DiffID ${claimed} for it, and its bytes have ${verdict.diffId}` }
  }
  if (verdict !== undefined) return { by: 'diffid', digest: claimed }
  if (together?.shows) return { why: 'nobody has read all of the layer that shows the tree' } // it is small: that costs no belief
  return trusted === true ? { by: 'diffid', digest: claimed } : { why: trusted }
}

/** Why an index is no name of a layer of an image: a sentence. */
export function whyNotByIndex(
  { manifest }: Claims,
  descriptor: Descriptor,
  index: Digest,
  isAmbiguous: Evidence['isAmbiguous'],
): string | undefined {
  if (isAmbiguous(index)) return AMBIGUOUS
  return engineIndex(manifest, descriptor) === index ? undefined : UNSEEN
}

type OpenEvidence = Extract<LayerEvidence, { is: 'open' }>

/** A name for a layer that is new here: its DiffID where it may bear that, because engines prefer DiffIDs to indexes themselves. */
function newNameOf(
  image: Claims,
  descriptor: Descriptor,
  claimed: Digest,
  open: OpenEvidence,
  isAmbiguous: Evidence['isAmbiguous'],
): Identity | Nameless {
  const { indexDigest, verdict, trusted } = open
  const diffId = diffIdOf(open, claimed, trusted)
  // a layer whose claimed DiffID is false gets no name: an engine that took it by its index would refuse the image after the pull
  if (!('why' in diffId) || indexDigest === undefined || verdict !== undefined) return diffId
  const why = whyNotByIndex(image, descriptor, indexDigest, isAmbiguous)
  return why === undefined ? { by: 'index', digest: indexDigest } : { why }
}

/** The name of a layer that was listed before, by the same kind of identity as then. */
function sameNameOf(diffId: Digest, open: OpenEvidence, by: Identity['by']): Identity | Nameless {
  if (by === 'diffid') return diffIdOf(open, diffId, open.trusted)
  return open.indexDigest === undefined ? { why: 'it has no index' } : { by, digest: open.indexDigest }
}

/** The name that a layer was listed by which is quarantined now, and so not opened any more. */
function oldNameOf(index: Digest | undefined, diffId: Digest, by: Identity['by'] | undefined): Identity | Nameless {
  if (by === 'diffid') return { by, digest: diffId }
  return by === undefined || index === undefined ? { why: 'it is quarantined' } : { by, digest: index }
}
