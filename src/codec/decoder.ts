// What decodes a chunk's stored bytes and makes digests of them. `wasm.ts` is the decoder; `fallback.ts` serves where that cannot be
// instantiated.
import { Failure } from '../errors.ts'
import type { ChunkDigest } from '../image/digest.ts'
import type { Codec } from '../tree/chunk.ts'
import type { Piece } from './digests.ts'

/** Views of memory that belongs to this thread; valid until the decoder's next `decode` or `release`. */
export interface Decoded {
  /** The stored bytes, copied: the caller's lie on shared memory, and what is hashed must be what is decoded. */
  stored: Uint8Array
  /** The first `size` decoded bytes; nothing vouches for them yet. */
  decoded: Uint8Array
}

export interface Decoder {
  /**
   * The first `size` bytes (1 … CHUNK_MAX_BYTES) that `stored` (at most CHUNK_STORED_MAX_BYTES) decodes to: gzip members or zstd
   * frames one after the other, or gzip from within a stream (`seed.ts`); with codec none the bytes themselves. What follows those
   * `size` bytes is dropped, whatever it is: an eStargz member holds the next entries' headers after a file's bytes. An lz4 block
   * has no end of its own, and holds exactly `size` bytes.
   * Checksums within gzip and zstd may go unchecked; digests are what counts.
   * @throws Failure corrupt (no such stream, or less than `size` bytes), limit (needs more memory than a decoder may take),
   * unsupported (`streamOf`)
   */
  decode(codec: Codec, stored: Uint8Array, size: number): Promise<Decoded>
  /** In the order of the pieces, which are parts of what `decode` just returned, or all lie in other memory. */
  digests(pieces: readonly Piece[]): ChunkDigest[]
  /** Gives memory back that large chunks took. Ends the life of what `decode` returned. */
  release(): void
}

/**
 * What kind of stream a chunk is stored as.
 * @throws Failure unsupported: no decoder is built for it
 */
export function streamOf(codec: Codec): Codec['name'] {
  if (codec.name === 'zstd' && codec.dictionary) throw Failure.unsupported('zstd cannot be decoded with a dictionary')
  return codec.name
}
