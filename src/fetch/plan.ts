// What to ask for: few requests for neighbouring chunks, and what should come along with a miss.
//
// A single miss gets nothing more. A reader that goes through the layer in stored order (a large file, an import of a package, a walk that
// reads small files) shows as misses that each begin where an earlier one ended: from the third on, what lies behind the miss is fetched,
// twice as many bytes each time. Once the reader is half through it, which shows when he waits for a chunk that is under way, the next
// part is asked for; so the link is not idle while he reads.
//
// The layer is in stored order nearly everywhere, so "behind" is where the next chunks in stored order lie.
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

/** Reading ahead begins with this, or with as much as was missed, and doubles … */
const AHEAD_MIN_BYTES = 128 << 10
/** … up to this: what 100 Mbit/s bring in 0.7 s, and a reader who stops has had fetched for nothing. */
const AHEAD_MAX_BYTES = 8 << 20
/** Misses in a row, each behind the other, before anything is read ahead. */
const NEIGHBOURS_MIN = 3
/** Readers told apart, the oldest forgotten first. */
const READERS_MAX = 8

/** Those of some chunks that are neither here nor under way. All are asked for at once, because each asking is a system call. */
export type AbsentOf = (chunks: readonly number[]) => readonly number[]

interface Reader {
  readonly blob: number
  /** Stored bytes up to here were missed, or waited for. */
  at: number
  /** Stored bytes up to here were asked for. */
  end: number
  neighbours: number
  /** How far ahead of him was asked for last. */
  aheadBytes: number
}

export class Plan {
  readonly #order: StoredOrder
  readonly #limits: Pick<RunLimits, 'gapMaxBytes'>
  #readers: readonly Reader[] = []

  /** @param limits misses that one request could join count as neighbours */
  constructor(order: StoredOrder, limits: Pick<RunLimits, 'gapMaxBytes'>) {
    this.#order = order
    this.#limits = limits
  }

  /** The chunks to fetch ahead of whoever misses `range`, in stored order. */
  missed(blob: number, range: Range, absentOf: AbsentOf): number[] {
    const reader = this.#reader(blob, range.start) ?? { blob, at: 0, end: 0, neighbours: 0, aheadBytes: 0 }
    reader.neighbours++
    this.#readers = [reader, ...this.#readers.filter((each) => each !== reader)].slice(0, READERS_MAX)
    return this.#ahead(reader, range, absentOf)
  }

  /** The same, while `range` is under way: only for who is read ahead of. */
  reached(blob: number, range: Range, absentOf: AbsentOf): number[] {
    const reader = this.#reader(blob, range.start)
    return reader === undefined ? [] : this.#ahead(reader, range, absentOf)
  }

  #ahead(reader: Reader, range: Range, absentOf: AbsentOf): number[] {
    reader.at = Math.max(reader.at, range.end)
    reader.end = Math.max(reader.end, range.end)
    if (reader.neighbours < NEIGHBOURS_MIN || reader.end - reader.at > reader.aheadBytes / 2) return []
    const bytes = Math.min(AHEAD_MAX_BYTES, Math.max(AHEAD_MIN_BYTES, reader.aheadBytes * 2, range.end - range.start))
    reader.aheadBytes = bytes
    const behind: StoredChunk[] = []
    for (const each of this.#order.from(reader.blob, reader.end)) {
      if (each.stored.end > reader.at + bytes) break
      behind.push(each)
    }
    const absent = new Set(absentOf(behind.map(({ chunk }) => chunk)))
    const result: number[] = []
    let wantedEnd = reader.end
    for (const { chunk, stored } of behind) {
      if (stored.start - wantedEnd > this.#limits.gapMaxBytes) break // what lies between is here already
      reader.end = Math.max(reader.end, stored.end)
      if (!absent.has(chunk)) continue
      result.push(chunk)
      wantedEnd = Math.max(wantedEnd, stored.end)
    }
    return result
  }

  /** Who reads on from here. */
  #reader(blob: number, start: number): Reader | undefined {
    const gap = this.#limits.gapMaxBytes
    return this.#readers.find((each) => each.blob === blob && start >= each.at && start <= each.end + gap)
  }
}
