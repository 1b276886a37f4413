// What engines are told of a layer in either store.
import type { Descriptor } from '../image/manifest.ts'
import type { OpenLayer } from '../layer/layer.ts'

/** The engine's numbers for compression (containers/storage archive.Compression). */
const NONE = 0
const GZIP = 2
const ZSTD = 4

export function compressionOf({ mediaType }: Descriptor): number {
  if (mediaType.endsWith('zstd')) return ZSTD
  return mediaType.endsWith('.tar') ? NONE : GZIP
}

/** Bytes of the layer's tar: as read, else as its manifest claims them, else of its files: engines add these up to sizes of images. */
export async function tarSizeOf(layer: OpenLayer): Promise<number> {
  const { claimedTarSize, chunks } = layer
  const verdict = await layer.verdict()
  if (verdict !== undefined) return verdict.tarSize
  return claimedTarSize ?? chunks.deviceSize
}
