// What the layer store tells engines of a layer, in its file `info`.
import { type Digest, hex } from '../image/digest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { OpenLayer } from '../layer/layer.ts'
import type { AskedLayer } from './asked-image.ts'
import { compressionOf } from './facts.ts'

/**
 * Field names are containers/storage's. A DiffID is given only to who asks by it. Whatever is a claim is this image's own, not that of
 * another image with the same layer.
 */
export function infoOf(
  { index, descriptor, dialect }: AskedLayer,
  layer: Pick<OpenLayer, 'indexDigest'>,
  image: ResolvedImage,
  size: number,
): Uint8Array {
  const diffId = image.config.diffIds[index] as Digest // parseConfig: one a layer
  const info = { id: hex(descriptor.digest), 'diff-size': size, compression: compressionOf(descriptor, diffId) }
  if (dialect === 'index') {
    // no digest of the blob: an engine that finds the layer by it in another image wants a DiffID with it, and fails without
    return encode({
      ...info,
      'compressed-size': descriptor.size,
      'toc-digest': layer.indexDigest,
      flags: { 'expected-layer-diffid': diffId },
    })
  }
  return encode({
    ...info,
    'compressed-diff-digest': descriptor.digest,
    'compressed-size': descriptor.size,
    'diff-digest': diffId,
  })
}

function encode(info: object): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(info))
}
