// Whose name a layer may bear. Engines reuse a layer on its identity alone, across images, and a config's DiffID is chosen by
// whoever made the image: shown under a DiffID that its bytes were not proven to have, one image's files would run in another's
// containers. The digest of a layer's index is proven before anything is served; a DiffID is a claim.

/** Which claims of images are believed: none, or all (then every image on this node trusts every other). */
export type DiffIdPolicy = 'proven' | 'claimed'

export const DIFF_ID_POLICIES: readonly DiffIdPolicy[] = ['proven', 'claimed']

/**
 * What an engine asks a layer by. Podman up to 5.0 asks by the digest of the compressed layer and takes the DiffID from us;
 * Podman 5.1 and later asks by the digest of its index, and makes that the layer's identity.
 */
export type Dialect = 'layer' | 'index'

/** Why a layer must not be shown to an engine that asks in this dialect; undefined when it may be. */
export function whyHidden(dialect: Dialect, policy: DiffIdPolicy): string | undefined {
  if (dialect === 'index' || policy === 'claimed') return undefined
  return 'the engine identifies layers by DiffID, and this one is only claimed by the image (serve with --diffid claimed if every image on this machine trusts every other)'
}
