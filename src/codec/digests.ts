// Digests of pieces of a chunk, by whichever algorithm an index checks them.
import type { algorithmOf, ChunkDigest, Digest } from '../image/digest.ts'

export interface Piece {
  algorithm: ReturnType<typeof algorithmOf>
  bytes: Uint8Array
}

/** What makes digests. */
interface Kernels {
  /** In the order of the pieces. */
  sha256(pieces: readonly Uint8Array[]): Digest[]
  /** 32 bytes. */
  blake3(bytes: Uint8Array): Uint8Array
}

/** In the order of the pieces. */
export function digestsOf(pieces: readonly Piece[], { sha256, blake3 }: Kernels): ChunkDigest[] {
  const sha256s = sha256(pieces.filter(({ algorithm }) => algorithm === 'sha256').map(({ bytes }) => bytes)).values()
  return pieces.map(({ algorithm, bytes }): ChunkDigest => {
    if (algorithm === 'blake3') return `blake3:${Buffer.from(blake3(bytes)).toString('hex')}`
    return sha256s.next().value as Digest // one each
  })
}
