// The digests of zeros, by which a file is known to be nothing else.
import { createHash } from 'node:crypto'
import { type Digest, finish } from '../../image/digest.ts'

/** Hashed for one table: some seconds in a worker, and more than a layer has in such files. */
const HASHED_MAX_BYTES = 4 * 2 ** 30
const PIECE = new Uint8Array(1 << 20)

export class ZeroDigests {
  readonly #known = new Map<number, Digest>()
  #left = HASHED_MAX_BYTES

  /** Of so many zeros; undefined: it would take too long. */
  of(bytes: number): Digest | undefined {
    const known = this.#known.get(bytes)
    if (known !== undefined || bytes > this.#left) return known
    this.#left -= bytes
    const hash = createHash('sha256')
    for (let at = 0; at < bytes; at += PIECE.length) hash.update(PIECE.subarray(0, bytes - at))
    const digest = finish(hash)
    this.#known.set(bytes, digest)
    return digest
  }
}
