// Neighbouring stored ranges -> few requests.
import type { Range } from '../image/blob.ts'

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
