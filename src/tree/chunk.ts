// A chunk: the unit that is fetched, decoded and verified.
import type { Range } from '../image/blob.ts'
import type { ChunkDigest } from '../image/digest.ts'

/**
 * How a chunk is stored, and what decoding it needs beside its own bytes. A gzip chunk with a seed begins within a stream: the seed is
 * the decoder's state there. Chunks share a seed or a dictionary by sharing the array.
 */
export type Codec =
  | { readonly name: 'none' }
  | { readonly name: 'gzip'; readonly seed?: Uint8Array }
  | { readonly name: 'zstd'; readonly dictionary?: Uint8Array }
  | { readonly name: 'lz4' }

export const NONE: Codec = { name: 'none' }
export const GZIP: Codec = { name: 'gzip' }
export const ZSTD: Codec = { name: 'zstd' }
export const LZ4: Codec = { name: 'lz4' }

/** No chunk decodes to more, since it is held in memory while it is checked; tools make chunks of 4 MiB, or some more. */
export const CHUNK_MAX_BYTES = 64 << 20
/**
 * No chunk is stored in more: deflate and zstd lengthen hopeless input by less than a thousandth, the rest is for what lies behind it, as
 * tar headers do.
 */
export const CHUNK_STORED_MAX_BYTES = 96 << 20

/** What decoding needs beside the chunk's own bytes. */
export function stateOf(codec: Codec): Uint8Array | undefined {
  if (codec.name === 'gzip') return codec.seed
  return codec.name === 'zstd' ? codec.dictionary : undefined
}

/** `range` of the stored or the decoded bytes has this digest. */
export interface Check {
  of: 'stored' | 'decoded'
  range: Range
  digest: ChunkDigest
}

/** `length` bytes from `from` in the decoded chunk lie at `at` on the layer's device. */
export interface Place {
  from: number
  length: number
  at: number
}

/** A chunk as a format's parser knows it, before the layout gave it places. */
export interface StoredChunk {
  /** Index into the layer's blobs. */
  blob: number
  stored: Range
  /** Decoded bytes wanted from it; the stream may hold more (tar headers after a file's data), which are dropped. */
  size: number
  codec: Codec
  /** Together they cover every decoded byte that an extent uses. */
  checks: readonly Check[]
}

export interface Chunk extends StoredChunk {
  /** At least one; sorted by `from`; together they cover exactly the bytes used. */
  places: readonly Place[]
}
