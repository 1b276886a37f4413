// A chunk: the unit that is fetched, decoded and verified.
import type { Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

export type Codec = 'none' | 'gzip' | 'zstd'

/** `range` of the stored or the decoded bytes has this digest. */
export interface Check {
  of: 'stored' | 'decoded'
  range: Range
  digest: Digest
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
