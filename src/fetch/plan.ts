// What to ask for: few requests for neighbouring chunks, and what should come along with a miss.
//
// A single miss gets nothing more. A reader that goes through the layer in stored order (an import of a package, a walk that reads small
// files) shows as misses that each begin where an earlier one ended: from the third on, chunks behind the miss come along, twice as many
// bytes each time.
//
// The layer is in stored order nearly everywhere, so "behind" is where the next chunks in stored order lie. What comes along is in
// the same request; a round trip of 20 ms at 100 Mbit/s is worth 250 KB, so 1 MiB saves several of them for 84 ms of transfer.
import type { Range } from '../image/blob.ts'
import type { StoredChunk, StoredOrder } from './order.ts'

export interface RunLimits {
  /** Bytes between two wanted ranges that are downloaded for nothing rather than asked around. */
  gapMaxBytes: number
  /** Bytes of one request; only a single chunk that is larger may exceed it. */
  runMaxBytes: number
}

export interface Wanted {
  index: number
  blob: number
  stored: Range
}

/** One request: it covers the stored ranges of `chunks`, which are in stored order. */
export interface Run {
  blob: number
  range: Range
  chunks: number[]
}

/**
 * Every chunk in exactly one run; runs ordered by blob and start. Ranges may overlap or be the same.
 */
export function runs(chunks: readonly Wanted[], limits: RunLimits): Run[] {
  const sorted = chunks.toSorted((a, b) => a.blob - b.blob || a.stored.start - b.stored.start || a.index - b.index)
  const result: Run[] = []
  let last: Run | undefined
  for (const { index, blob, stored } of sorted) {
    if (
      last?.blob === blob &&
      stored.start - last.range.end <= limits.gapMaxBytes &&
      Math.max(stored.end, last.range.end) - last.range.start <= limits.runMaxBytes
    ) {
      last.range.end = Math.max(stored.end, last.range.end)
      last.chunks.push(index)
    } else {
      last = { blob, range: { start: stored.start, end: stored.end }, chunks: [index] }
      result.push(last)
    }
  }
  return result
}

/** Those of some chunks that are neither here nor under way. All are asked for at once, because each asking is a system call. */
export type AbsentOf = (chunks: readonly number[]) => readonly number[]

/** Widening begins with this and doubles … */
const AHEAD_MIN_BYTES = 128 << 10
/** … up to this. */
const AHEAD_MAX_BYTES = 1 << 20
/** Misses in a row, each behind the other, before anything comes along. */
const NEIGHBOURS_MIN = 3
/** Readers told apart, the oldest forgotten first. */
const READERS_MAX = 8

interface Reader {
  blob: number
  /** Stored bytes up to here were asked for. */
  end: number
  neighbours: number
}

export class Plan {
  readonly #order: StoredOrder
  readonly #limits: RunLimits
  #readers: Reader[] = []

  /** Misses that one request could join count as neighbours; what comes along keeps within one request. */
  constructor(order: StoredOrder, limits: RunLimits) {
    this.#order = order
    this.#limits = limits
  }

  /** The chunks that should come along with a miss of `range`, in stored order. */
  ahead(blob: number, range: Range, absentOf: AbsentOf): number[] {
    const reader = this.#reader(blob, range.start)
    reader.end = range.end
    if (reader.neighbours < NEIGHBOURS_MIN) return []
    const doublings = Math.min(reader.neighbours - NEIGHBOURS_MIN, Math.log2(AHEAD_MAX_BYTES / AHEAD_MIN_BYTES))
    const limit = Math.min(range.end + AHEAD_MIN_BYTES * 2 ** doublings, range.start + this.#limits.runMaxBytes)
    const behind: StoredChunk[] = []
    for (const each of this.#order.from(blob, range.end)) {
      if (each.stored.end > limit) break
      behind.push(each)
    }
    const absent = new Set(absentOf(behind.map(({ chunk }) => chunk)))
    const result: number[] = []
    let wantedEnd = range.end
    for (const { chunk, stored } of behind) {
      if (stored.start - wantedEnd > this.#limits.gapMaxBytes) break // what lies between is here already
      reader.end = Math.max(reader.end, stored.end)
      if (!absent.has(chunk)) continue
      result.push(chunk)
      wantedEnd = Math.max(wantedEnd, stored.end)
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
}
