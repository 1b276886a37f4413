// A layer, built: what the mount needs and nothing of the format it came from.
import type { Digest } from '../image/digest.ts'
import type { ChunkTable } from './chunk-table.ts'

export interface Tree {
  /** The EROFS metadata image. Its device slot's tag is the chunk table's content digest, so equal images have equal devices. */
  image: Uint8Array
  /** SHA-256 of `image`: names the image and its device. */
  digest: Digest
  chunks: ChunkTable
}
