// Images that engines refuse before they look for layers: nothing of them is shown, so that nobody counts on it.
import { CONFIG_TYPES, type Manifest, OCI_MANIFEST } from '../image/manifest.ts'

/** Why engines refuse an image, whatever a store does: a sentence. Undefined: they do not for this. */
export function engineRefusal({ mediaType, config }: Pick<Manifest, 'mediaType' | 'config'>): string | undefined {
  // the error is "unsupported image-specific operation on artifact"
  if (mediaType !== OCI_MANIFEST || ['', ...CONFIG_TYPES].includes(config.mediaType)) return undefined
  return `engines take it for an artifact, because its configuration is of type ${config.mediaType}: make the image with an ordinary one`
}
