// Why engines do not find a lazy layer by its index: pure, from its manifest.
import { engineIndex } from '../../format/engine-index.ts'
import type { Descriptor, Manifest } from '../../image/manifest.ts'
import type { Unnamed } from './layer.ts'

const ONLY: Unnamed = { why: 'no layer is named by its index', fix: 'Serve without --diffid-only' }
const ONLY_LARGE: Unnamed = {
  ...ONLY,
  why: `${ONLY.why}, and such layers of this image are together too large to be fetched while an engine waits`,
}
const UNSEEN: Unnamed = {
  why: 'engines look for no index of a layer in a Docker manifest',
  fix: 'Push the image with an OCI manifest',
}

/** @param waited layers that an engine waits for, if the agent is served with --diffid-only; undefined: it is not */
export function unnamedOf(
  manifest: Pick<Manifest, 'mediaType'>,
  descriptor: Descriptor,
  waited: ReadonlySet<Descriptor> | undefined,
): Unnamed | undefined {
  if (engineIndex(manifest, descriptor) === undefined) return UNSEEN
  if (waited === undefined) return undefined
  return waited.has(descriptor) ? { ...ONLY, whole: true } : ONLY_LARGE
}
