// What lies beside a miss in its blob, fetched while the link is idle. Programs that are started read files here and there, each of
// which costs a round trip in which nothing is transferred: what is fetched then costs no time, but bytes, most of which nobody will
// ask for. So:
//
//   a few misses get nothing    only a reader who waits again and again is helped
//   a loan, then what is earned 512 KiB to find out whether neighbours are read here. From then on each that is read pays for more:
//                               half of what the link carries in the round trip that it saved; and each that was not here an eighth,
//                               because it may be the next that would have been. So waste takes at most half of the time that hits
//                               save, and an eighth of what misses wait, if it takes any
//   in the shadow               beside a miss, half of what a round trip carries is under way at most: it is here before the next miss
//                               is. Beside a hit nobody waits for the link, and it may be filled: a reader who goes forward in steps
//                               then goes at the link's rate
//
// Kept as it came: nothing is decoded, verified or written before somebody asks for it, as for every other chunk. That is also how a
// hit is seen, and what nobody asks for costs neither processor nor disk.
import type { Range } from '../image/blob.ts'
import type { StoredOrder } from './order.ts'
import { type AbsentOf, type Run, runs } from './plan.ts'
import type { Kept, Shelf } from './shelf.ts'
import { SHORT_MS } from './wire.ts'

/** Misses one after the other before anything comes along. */
const MISSES_MIN = 4
/** A pause after which they are counted anew: somebody has read what he wanted. */
const PAUSE_MS = 2_000
const LOAN_BYTES = 512 << 10
/** Of what a round trip carries: what a hit earns, and what may be under way beside a miss. */
const SHADOW = 1 / 2
const MISS_SHADOW = 1 / 8
/** Round trips' bytes that may be under way beside a hit: one fills the link, the other is what the reader goes through meanwhile. */
const FILLED = 2
/** However long and wide the link is, a hit earns no more, and so much is under way. */
const SHADOW_MAX_BYTES = 1 << 20
/** Less is not worth a request. */
const REACH_MIN_BYTES = 32 << 10
/** Of the reach, what lies before the miss: files are read forward a little more often than backward. */
const BEFORE = 1 / 4
/** The miss itself lies in between and is transferred again rather than asked around. */
const GAP_MAX_BYTES = 16 << 10

interface Piece extends Kept {
  readonly start: number
  readonly chunks: Set<number>
}

export class Nearby {
  readonly #order: StoredOrder
  readonly #pace: LinkPace
  readonly #shelf: Shelf
  readonly #now: () => number
  readonly #pieces = new Map<number, Piece>()
  readonly #coming = new Map<number, Promise<unknown>>()
  #comingBytes = 0
  #misses = 0
  #lastMiss = Number.NEGATIVE_INFINITY
  #allowance = LOAN_BYTES
  #closed = false

  /** @param now milliseconds */
  constructor(order: StoredOrder, pace: LinkPace, shelf: Shelf, now: () => number = () => performance.now()) {
    this.#order = order
    this.#pace = pace
    this.#shelf = shelf
    this.#now = now
  }

  /** What should be read along with a miss of `range`, at most one request. */
  besideMiss(blob: number, range: Range, absentOf: AbsentOf): Run[] {
    const now = this.#now()
    this.#misses = now - this.#lastMiss > PAUSE_MS ? 1 : this.#misses + 1
    this.#lastMiss = now
    if (this.#misses < MISSES_MIN) return []
    this.#allowance += this.#carried(MISS_SHADOW)
    const reach = this.#carried(SHADOW)
    // rather a whole one now and then than a small one each time: files that are read may lie far apart
    if (this.#allowance < reach) return []
    const found = this.#beside(blob, range, absentOf, reach, reach)
    return found.toSorted((a, b) => length(b.range) - length(a.range)).slice(0, 1)
  }

  /** The same for a chunk that is asked for and was here, or coming. */
  besideHit(blob: number, range: Range, absentOf: AbsentOf): Run[] {
    const reach = this.#carried(FILLED)
    return this.#beside(blob, range, absentOf, Math.min(this.#allowance, reach), reach)
  }

  #beside(blob: number, range: Range, absentOf: AbsentOf, reach: number, underWayMax: number): Run[] {
    let left = underWayMax - this.#comingBytes
    if (Math.min(reach, left) < REACH_MIN_BYTES) return []
    const start = Math.max(0, range.start - reach * BEFORE)
    const around = new Map<number, Range>()
    for (const { chunk, stored } of this.#order.from(blob, start)) {
      if (stored.start >= start + reach) break
      if (stored.end > start + reach || this.has(chunk)) continue
      around.set(chunk, stored)
    }
    const wanted = absentOf([...around.keys()]).map((index) => ({ index, blob, stored: around.get(index) as Range }))
    const runMaxBytes = Math.max(REACH_MIN_BYTES, this.#carried(SHADOW))
    return runs(wanted, { gapMaxBytes: GAP_MAX_BYTES, runMaxBytes }).filter(({ range }) => {
      if (length(range) < REACH_MIN_BYTES || length(range) > left) return false
      left -= length(range)
      return true
    })
  }

  /** `reading` brings what `beside` found. Resolves when it is here, also when it failed: then it is as if nobody had asked. */
  async keep({ chunks, range }: Run, reading: Promise<Uint8Array>): Promise<void> {
    const bytes = range.end - range.start
    this.#allowance -= bytes
    this.#comingBytes += bytes
    const arrived = reading.then(
      (bytes) => this.#put(bytes, range.start, chunks),
      () => {}, // whoever asks for one of them asks the registry
    )
    for (const chunk of chunks) this.#coming.set(chunk, arrived)
    await arrived
    this.#comingBytes -= bytes
    for (const chunk of chunks) this.#coming.delete(chunk)
  }

  /** Whether a chunk is here, or on its way. */
  has(chunk: number): boolean {
    return this.#pieces.has(chunk) || this.#coming.has(chunk)
  }

  /** When a chunk that is on its way is here, or failed to come. */
  coming(chunk: number): Promise<unknown> | undefined {
    return this.#coming.get(chunk)
  }

  /** The stored bytes of a chunk that somebody asks for now, if they are here; it is forgotten with that. */
  take(chunk: number, { start, end }: Range): Uint8Array | undefined {
    const piece = this.#pieces.get(chunk)
    if (piece === undefined) return undefined
    this.#pieces.delete(chunk)
    piece.chunks.delete(chunk)
    if (piece.chunks.size === 0) this.#shelf.remove(piece)
    this.#allowance += this.#carried(SHADOW)
    return piece.bytes.subarray(start - piece.start, end - piece.start)
  }

  /** Nothing is kept from now on. */
  close(): void {
    this.#closed = true
    for (const piece of new Set(this.#pieces.values())) this.#shelf.remove(piece)
    this.#pieces.clear()
  }

  #put(bytes: Uint8Array, start: number, chunks: readonly number[]): void {
    if (this.#closed) return
    const piece: Piece = {
      bytes,
      start,
      chunks: new Set(chunks),
      dropped: () => {
        for (const chunk of piece.chunks) this.#pieces.delete(chunk)
      },
    }
    for (const chunk of chunks) this.#pieces.set(chunk, piece)
    this.#shelf.put(piece)
  }

  /** Bytes that the link carries in so many round trips. */
  #carried(share: number): number {
    return Math.min(SHADOW_MAX_BYTES, this.#pace.roundTripBytes * share)
  }
}

function length({ start, end }: Range): number {
  return end - start
}

// How long the way to a blob is and how wide, learned from the reads that are made anyway.

/** What arrives while a read is under way tells of the round trip up to this size, because the transfer is short beside it; beyond, of the rate. */
const SHORT_MAX_BYTES = 32 << 10
/** The shortest read is the way itself, longer ones stood in queues; but ways change, in some hundred reads. */
const ROUND_TRIP_SHARE = 1 / 64
const RATE_SHARE = 1 / 4
/** Of a read's time, what counts as transfer at least: else a clock's grain makes any rate. */
const TRANSFER_MIN = 1 / 8
/** Until a rate is measured, a round trip is said to carry so much: enough for a read that measures it, little to ask for on trust. */
const FIRST_BYTES = 128 << 10
/** 1 Gbit/s. Beyond that it is memory that is measured, or a clock's grain. */
const MOST_BYTES_PER_SECOND = 125e6

/** What a link is like, and who tells of it. */
export interface LinkPace {
  /** A read begins. What is returned is called with its size when it has ended well. */
  begin(): (bytes: number) => void
  /** What could be transferred in the time of a round trip; 0 while none was measured. */
  readonly roundTripBytes: number
}

export class Pace implements LinkPace {
  #roundTripMs: number | undefined
  #bytesPerSecond: number | undefined
  #arrived = 0
  readonly #now: () => number

  /** @param now milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  begin(): (bytes: number) => void {
    const [begun, arrived] = [this.#now(), this.#arrived]
    return (bytes) => {
      this.#arrived += bytes
      // reads share the line: the rate is what all of them brought
      this.#learn(this.#arrived - arrived, this.#now() - begun)
    }
  }

  #learn(bytes: number, ms: number): void {
    const known = this.#roundTripMs
    if (bytes <= SHORT_MAX_BYTES) {
      this.#roundTripMs = known === undefined || ms < known ? ms : known + (ms - known) * ROUND_TRIP_SHARE
    } else if (known !== undefined) {
      const transferMs = Math.max(ms - known, ms * TRANSFER_MIN)
      const rate = Math.min(MOST_BYTES_PER_SECOND, (bytes / transferMs) * 1000)
      this.#bytesPerSecond ??= rate
      this.#bytesPerSecond += (rate - this.#bytesPerSecond) * RATE_SHARE
    }
  }

  /** Undefined: none was measured. */
  get roundTripMs(): number | undefined {
    return this.#roundTripMs
  }

  get roundTripBytes(): number {
    if (this.#roundTripMs === undefined) return 0
    return this.#bytesPerSecond === undefined ? FIRST_BYTES : (this.#roundTripMs / 1000) * this.#bytesPerSecond
  }
}

/** On a short way a request costs the processor more than its transfer costs the link: so much is brought as easily as nothing. */
const SHORT_BYTES = 256 << 10

/**
 * Of a link on which the background brings what lies beside a miss; but where the way is short that waits for a quiet moment (wire.ts), and who
 * reads one small file after the other has none until the last.
 */
export class BackgroundPace implements LinkPace {
  readonly #pace: Pace

  /** @param now milliseconds */
  constructor(now?: () => number) {
    this.#pace = new Pace(now)
  }

  begin(): (bytes: number) => void {
    return this.#pace.begin()
  }

  get roundTripBytes(): number {
    const isShort = (this.#pace.roundTripMs ?? SHORT_MS) < SHORT_MS
    return isShort ? Math.max(SHORT_BYTES, this.#pace.roundTripBytes) : 0
  }
}
