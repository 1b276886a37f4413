// What a RAFS bootstrap says (the tree of a whole nydus image, dragonflyoss/nydus `rafs/src/metadata/layout`), whichever version laid it
// out.
import type { Range } from '../../image/blob.ts'
import type { ChunkDigest } from '../../image/digest.ts'
import type { Entry } from '../../tree/entry.ts'

export interface Rafs {
  version: 5 | 6
  /** By the number that chunks name them by. */
  blobs: readonly RafsBlob[]
  /** Each (blob, number in it) once; extents name them by their place here. */
  chunks: readonly RafsChunk[]
  /**
   * As `Entry` says. Extents are in terms of `chunks`, from their first byte on. Of several names of an inode the first is the file, the
   * others are hard links to it.
   */
  entries: readonly Entry[]
  /** Paths that are wanted first, in that order; of a directory, all that is below it. */
  prefetch: readonly string[]
}

export interface RafsBlob {
  /** As it is written: 64 hex digits where it names a blob of a registry. */
  id: string
  /** Undefined: the bootstrap does not say it (version 5 without an extended blob table). */
  features: number | undefined
  compressor: Compressor
  digester: Digester
  /** Undefined as `features`. */
  chunkCount: number | undefined
  /** Of the blob, as the writer understood it: often less than the blob has. 0 where the bootstrap does not say it. */
  compressedSize: number
  /** Version 6: where the blob's own tables are; version 5 has none. */
  tables: RafsTables | undefined
}

/** Where a blob keeps what it says of its chunks. The offsets are in the blob `holder`. */
export interface RafsTables {
  /** The id of the blob that has them: this one, but where the chunks' data lies in a blob of another format. */
  holder: string
  compressor: Compressor
  offset: number
  storedSize: number
  decodedSize: number
  /** The last bytes of the blob: entries, and the header behind them; 0: none. */
  tocSize: number
  /** 32 bytes, SHA-256 of these. */
  tocDigest: Uint8Array
}

/** A chunk of a file. */
export interface RafsChunk {
  blob: number
  /** Its number in the blob. */
  index: number
  /** Decoded bytes. */
  size: number
  /** Undefined: the bootstrap has none, the blob's tables do (version 6 alone). */
  record: ChunkRecord | undefined
}

/** What a chunk record says. */
export interface ChunkRecord {
  blob: number
  index: number
  digest: ChunkDigest
  flags: number
  stored: Range
  size: number
  fileOffset: number
}

export type Compressor = 'none' | 'lz4_block' | 'gzip' | 'zstd'
export type Digester = 'blake3' | 'sha256'

/** The largest chunks that nydus makes. */
export const RAFS_CHUNK_MAX_BYTES = 16 << 20
export const RAFS_CHUNK_MIN_BYTES = 4 << 10
/** A chunk's address has 8 bits for its blob, of which 0 means none. */
export const RAFS_BLOBS_MAX = 255
/** Three bytes hold a chunk's number. */
export const RAFS_CHUNK_NUMBERS = 1 << 24
/**
 * Chunks of an image, all files together: 1.5 TB in chunks of 1 MiB. A chunk takes some 750 bytes of a worker until the tree is built, an
 * entry about as much, and a heap that is full can end the process.
 */
export const RAFS_CHUNKS_MAX = 1_500_000
