// What to ask for beyond what is missed. A single miss gets nothing more. A reader that goes through the layer in stored order
// (an import of a package, a walk that reads small files) shows as misses that each begin where an earlier one ended: from the
// third on, chunks behind the miss come along, twice as many bytes each time.
//
// The layer is in stored order nearly everywhere, so "behind" is where the next chunks in stored order lie. What comes along is in
// the same request; a round trip of 20 ms at 100 Mbit/s is worth 250 KB, so 1 MiB saves several of them for 84 ms of transfer.
import type { Range } from '../image/blob.ts'
import type { RunLimits } from './runs.ts'

/** Widening begins with this and doubles … */
const AHEAD_MIN_BYTES = 128 << 10
/** … up to this. */
const AHEAD_MAX_BYTES = 1 << 20
/** Misses in a row, each behind the other, before anything comes along. */
const NEIGHBOURS_MIN = 3
/** Readers told apart, the oldest forgotten first. */
const READERS_MAX = 8

/** The part of a ChunkTable that a plan looks at. */
export interface StoredOrder {
  readonly length: number
  storedRange(chunk: number): Range
  blobOf(chunk: number): number
}

interface Reader {
  blob: number
  /** Stored bytes up to here were asked for. */
  end: number
  neighbours: number
}

export class Plan {
  readonly #chunks: StoredOrder
  readonly #limits: RunLimits
  #readers: Reader[] = []
  /** Chunks in stored order; made when first needed. */
  #order: Uint32Array | undefined

  /** Misses that one request could join count as neighbours; what comes along keeps within one request. */
  constructor(chunks: StoredOrder, limits: RunLimits) {
    this.#chunks = chunks
    this.#limits = limits
  }

  /** The chunks that should come along with a miss of `range`, in stored order, those for which `wants` says false left out. */
  ahead(blob: number, range: Range, wants: (chunk: number) => boolean): number[] {
    const reader = this.#reader(blob, range.start)
    reader.end = range.end
    if (reader.neighbours < NEIGHBOURS_MIN) return []
    const doublings = Math.min(reader.neighbours - NEIGHBOURS_MIN, Math.log2(AHEAD_MAX_BYTES / AHEAD_MIN_BYTES))
    const limit = Math.min(range.end + AHEAD_MIN_BYTES * 2 ** doublings, range.start + this.#limits.runMaxBytes)
    const result: number[] = []
    let wantedEnd = range.end
    const order = this.#storedOrder()
    for (let i = this.#firstFrom(order, blob, range.end); i < order.length; i++) {
      const chunk = order[i] as number // i is below the length
      const { start, end } = this.#chunks.storedRange(chunk)
      if (this.#chunks.blobOf(chunk) !== blob || end > limit) break
      if (start - wantedEnd > this.#limits.gapMaxBytes) break // what lies between is here already
      reader.end = Math.max(reader.end, end)
      if (!wants(chunk)) continue
      result.push(chunk)
      wantedEnd = Math.max(wantedEnd, end)
    }
    return result
  }

  #reader(blob: number, start: number): Reader {
    const found = this.#readers.find(
      (each) => each.blob === blob && start >= each.end && start - each.end <= this.#limits.gapMaxBytes,
    )
    const reader = found ?? { blob, end: 0, neighbours: 0 }
    reader.neighbours++
    this.#readers = [reader, ...this.#readers.filter((each) => each !== reader)].slice(0, READERS_MAX)
    return reader
  }

  #storedOrder(): Uint32Array {
    const chunks = this.#chunks
    this.#order ??= Uint32Array.from({ length: chunks.length }, (_, i) => i).sort(
      (a, b) => chunks.blobOf(a) - chunks.blobOf(b) || chunks.storedRange(a).start - chunks.storedRange(b).start,
    )
    return this.#order
  }

  /** Where in `order` the first chunk of `blob` is that starts at or behind `start`. */
  #firstFrom(order: Uint32Array, blob: number, start: number): number {
    let low = 0
    let high = order.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const chunk = order[middle] as number // middle is below the length
      const before = this.#chunks.blobOf(chunk) - blob || (this.#chunks.storedRange(chunk).start < start ? -1 : 0)
      if (before < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
