// Whose name a layer may bear. Engines reuse a layer on its identity alone, across images, and a config's DiffID is chosen by
// whoever made the image: shown under a DiffID that its bytes were not proven to have, one image's files would run in another's
// containers. The digest of a layer's index is proven before anything is served; a DiffID is a claim until the whole layer was read.
import type { Digest } from '../image/digest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { type OpenLayer, TOGETHER } from '../layer/layer.ts'
import type { Identity } from './chain.ts'

/** Which claims of images are believed: none, those of images with a signature that policy.json asks for, or all. */
export type DiffIdPolicy = 'proven' | 'signed' | 'claimed'

export const DIFF_ID_POLICIES: readonly DiffIdPolicy[] = ['proven', 'signed', 'claimed']

/**
 * Whether the DiffIDs that an image claims are believed; otherwise why not: a sentence.
 * @param failing what becomes of failures that pass: they are why it is not believed, or thrown
 */
export type Believe = (
  image: Pick<ResolvedImage, 'reference' | 'manifestBytes' | 'digest'>,
  failing?: 'why' | 'throw',
) => Promise<true | string>

/** Where every image trusts every other. */
export const believeAll: Believe = () => Promise.resolve(true)

/** The default. */
export const believeNone: Believe = () =>
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
}

/** The DiffID of a layer of an image, or why it must not bear it. @param believed as Believe answered for the image */
export async function diffIdOf(
  layer: OpenLayer,
  claimed: Digest,
  believed: true | string,
): Promise<Identity | Nameless> {
  const verdict = await layer.verdict()
  if (verdict?.verdict === 'refuted') return { why: `it is quarantined: ${verdict.why}` }
  if (verdict !== undefined && verdict.diffId !== claimed) {
    return { why: `the image claims DiffID ${claimed} for it, and its bytes have ${verdict.diffId}` }
  }
  if (verdict !== undefined) return { by: 'diffid', digest: claimed }
  if (layer.together) return { why: TOGETHER } // whatever is believed: another image may have it as an ordinary layer
  if (believed === true) return { by: 'diffid', digest: claimed }
  return { why: believed }
}

/** What engines that know indexes, too, are to know a layer by: its DiffID where it may bear that, as they prefer it themselves. */
export async function identityOf(
  layer: OpenLayer,
  claimed: Digest,
  believed: true | string,
): Promise<Identity | Nameless> {
  const diffId = await diffIdOf(layer, claimed, believed)
  // a false claim is no engine's to accept: it would refuse the image after a pull
  if (!('why' in diffId) || layer.indexDigest === undefined || (await layer.verdict()) !== undefined) return diffId
  return { by: 'index', digest: layer.indexDigest }
}
