// What engines are told of a layer in either store.
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { OpenLayer } from '../layer/layer.ts'

/** The engine's numbers for compression (containers/storage archive.Compression). */
const NONE = 0
const GZIP = 2
const ZSTD = 4

/** @param diffId of its tar: that of the blob where it is stored as it is, or is no tar at all */
export function compressionOf({ mediaType, digest }: Descriptor, diffId: Digest): number {
  if (digest === diffId) return NONE
  if (mediaType.endsWith('zstd')) return ZSTD
  return mediaType.endsWith('.tar') ? NONE : GZIP
}

/** Bytes of the layer's tar: as read, else as its manifest claims them, else of its files: engines add these up to sizes of images. */
export async function tarSizeOf(layer: OpenLayer): Promise<number> {
  const { claimedTarSize, chunks, together, descriptor } = layer
  if (together?.shows === false) return descriptor.size // it is what engines take for its tar
  const verdict = await layer.verdict()
  if (verdict !== undefined) return verdict.tarSize
  return claimedTarSize ?? chunks.deviceSize
}
