// What engines are told of a layer in either store.
import type { Descriptor } from '../image/manifest.ts'
import type { LayerOpener } from '../mount/image.ts'
import type { OpenLayer } from '../mount/layer.ts'

/** The engine's numbers for compression (containers/storage archive.Compression). */
const GZIP = 2
const ZSTD = 4

export function compressionOf({ mediaType }: Descriptor): number {
  return mediaType.endsWith('zstd') ? ZSTD : GZIP
}

/** Bytes of the layer's tar as its manifest claims them, else of its files: engines add these up to sizes of images. */
export function tarSizeOf({ descriptor, chunks }: OpenLayer, layers: LayerOpener): number {
  const format = layers.format(descriptor)
  const claimed = 'why' in format ? undefined : format.tarSize({ descriptor })
  return claimed ?? chunks.deviceSize
}
