// The bytes of a tar, by their places on the device of the tar's tree.
import { createHash } from 'node:crypto'
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { type Digest, finish, isDigest } from '../image/digest.ts'
import type { ChunkTable } from './chunk-table.ts'

/** Held at once; more gains nothing over the hashing. */
const READ_BYTES = 1 << 20
const NOTHING = new Uint8Array(READ_BYTES)

/** Bytes of the tar that are one piece of the device. */
interface Piece extends Range {
  chunk: number
}

export class TarBytes {
  readonly #chunks: ChunkTable
  readonly #read: (range: Range) => Uint8Array | Promise<Uint8Array>
  readonly #signal: AbortSignal | undefined
  /** Pieces of the device, ascending: begin, end, where in the tar, chunk. */
  readonly #begins: Float64Array
  readonly #ends: Float64Array
  readonly #tarAt: Float64Array
  readonly #chunkOf: Float64Array

  /** @throws Failure corrupt when the chunks are no pieces of one tar */
  constructor(
    chunks: ChunkTable,
    read: (range: Range) => Uint8Array | Promise<Uint8Array>,
    signal: AbortSignal | undefined,
  ) {
    this.#chunks = chunks
    this.#read = read
    this.#signal = signal
    const pieces: [number, number, number, number][] = []
    for (let i = 0; i < chunks.length; i++) {
      const { blob, codec, stored, places } = chunks.get(i)
      for (const { from, length, at } of places) {
        if (blob !== 0 || codec.name !== 'none' || stored.start + from + length > stored.end) {
          throw Failure.corrupt(`chunk ${i} of the tar's tree is no piece of the tar`)
        }
        pieces.push([at, at + length, stored.start + from, i])
      }
    }
    pieces.sort((a, b) => a[0] - b[0])
    const column = (of: 0 | 1 | 2 | 3) => Float64Array.from(pieces, (each) => each[of])
    this.#begins = column(0)
    this.#ends = column(1)
    this.#tarAt = column(2)
    this.#chunkOf = column(3)
  }

  /**
   * Of device ranges, one behind the other. Not read where it is the digest of one of the tar's own checks.
   * @throws Failure corrupt, aborted, and what reading throws
   */
  async digest(ranges: readonly Range[]): Promise<Digest> {
    return await this.#digestOf(ranges.flatMap((each) => this.#piecesOf(each)))
  }

  /** Whether two device ranges of one length hold the same bytes. @throws as `digest` */
  async isSame(a: Range, b: Range): Promise<boolean> {
    if (a.start === b.start) return true
    const [these, those] = [this.#piecesOf(a), this.#piecesOf(b)]
    if (these.length === those.length && these.every(({ start }, i) => start === those[i]?.start)) return true
    return (await this.#digestOf(these)) === (await this.#digestOf(those))
  }

  /** Whether a device range holds nothing but zeros. @throws as `digest` */
  async isZeros(range: Range): Promise<boolean> {
    for (const { start, end } of this.#piecesOf(range)) {
      for (let at = start; at < end; at += READ_BYTES) {
        const bytes = await this.#bytesOf({ start: at, end: Math.min(at + READ_BYTES, end) })
        if (Buffer.compare(bytes, NOTHING.subarray(0, bytes.length)) !== 0) return false
      }
    }
    return true
  }

  #piecesOf({ start, end }: Range): Piece[] {
    const pieces: Piece[] = []
    let at = start
    for (let i = lastAtOrBefore(this.#begins, start); at < end; i++) {
      const [begin, stop, tarAt, chunk] = [this.#begins[i], this.#ends[i], this.#tarAt[i], this.#chunkOf[i]]
      if (
        begin === undefined ||
        stop === undefined ||
        tarAt === undefined ||
        chunk === undefined ||
        begin > at ||
        stop <= at
      ) {
        throw Failure.corrupt(`no chunk of the tar's tree has byte ${at} of its device`)
      }
      const to = Math.min(stop, end)
      pieces.push({ start: tarAt + at - begin, end: tarAt + to - begin, chunk })
      at = to
    }
    return pieces
  }

  async #digestOf(pieces: readonly Piece[]): Promise<Digest> {
    const [only] = pieces
    const known = only && pieces.length === 1 ? this.#knownDigest(only) : undefined
    if (known !== undefined) return known
    const hash = createHash('sha256')
    for (const { start, end } of pieces) {
      for (let at = start; at < end; at += READ_BYTES) {
        hash.update(await this.#bytesOf({ start: at, end: Math.min(at + READ_BYTES, end) }))
      }
    }
    return finish(hash)
  }

  #knownDigest({ start, end, chunk }: Piece): Digest | undefined {
    const { stored, checks } = this.#chunks.get(chunk)
    const whole = checks.find(({ range }) => stored.start + range.start === start && stored.start + range.end === end)
    return isDigest(whole?.digest) ? whole.digest : undefined
  }

  async #bytesOf(range: Range): Promise<Uint8Array> {
    if (this.#signal?.aborted) throw Failure.aborted('the comparison was given up', { cause: this.#signal.reason })
    const bytes = await this.#read(range)
    if (bytes.length === range.end - range.start) return bytes
    throw Failure.corrupt(
      `the tar has ${bytes.length} bytes at ${range.start} where ${range.end - range.start} are needed`,
    )
  }
}

/** Index of the last of `sorted` that is not above `value`; -1 when there is none. */
export function lastAtOrBefore(sorted: Float64Array, value: number): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] as number) <= value) low = middle + 1
    else high = middle
  }
  return low - 1
}
