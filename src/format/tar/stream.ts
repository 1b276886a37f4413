// A tar as a stream of pieces -> the bytes that a reader asks for, and the digest of all of them.
import { createHash } from 'node:crypto'
import { type Digest, finish } from '../../image/digest.ts'

export class TarStream {
  readonly #pieces: AsyncIterator<Uint8Array>
  readonly #hash = createHash('sha256')
  #piece = new Uint8Array()
  #at = 0

  constructor(tar: AsyncIterable<Uint8Array>) {
    this.#pieces = tar[Symbol.asyncIterator]()
  }

  /** Bytes taken so far. */
  get at(): number {
    return this.#at
  }

  /** One byte at least and `max` at most, as they come; none at the end. Good until the next call. */
  async some(max: number): Promise<Uint8Array> {
    while (this.#piece.length === 0) {
      const next = await this.#pieces.next()
      if (next.done) return this.#piece
      this.#hash.update(next.value)
      this.#piece = next.value as Uint8Array<ArrayBuffer>
    }
    const taken = this.#piece.subarray(0, max)
    this.#piece = this.#piece.subarray(taken.length)
    this.#at += taken.length
    return taken
  }

  /** `length` bytes, fewer only at the end. Good until the next call. */
  async take(length: number): Promise<Uint8Array> {
    if (length === 0) return new Uint8Array()
    const first = await this.some(length)
    if (first.length === length || first.length === 0) return first
    const taken = [first.slice()]
    for (let missing = length - first.length; missing > 0; ) {
      const more = await this.some(missing)
      if (more.length === 0) break
      taken.push(more.slice())
      missing -= more.length
    }
    return Buffer.concat(taken)
  }

  /** Of the whole tar, at its end. */
  digest(): Digest {
    return finish(this.#hash)
  }

  /** Lets go of a source that was not read to its end. */
  async close(): Promise<void> {
    await this.#pieces.return?.()
  }
}
