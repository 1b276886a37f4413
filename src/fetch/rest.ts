// What of a layer is missing, a range at a time: in stored order, from wherever somebody read last, and from the beginning when the end
// is reached. Each chunk is given out once, unless it is given back.
import type { StoredOrder } from './order.ts'
import type { RunLimits } from './plan.ts'

/** How many chunks are looked at to find a range: a file may be a few bytes, and who waits for a request waits for this. */
const LOOKED_MAX = 4096

export interface RestParts {
  order: StoredOrder
  /** Blobs that chunks are in: their numbers are below. */
  blobs: number
  /** Of these, those that are missing now. */
  missing(chunks: readonly number[]): readonly number[]
}

export interface RestLimits extends RunLimits {
  /** Bytes of chunks that are here, and come once more with what lies around them. */
  againMaxBytes: number
}

/** Chunks of one request. */
export interface RestRange {
  readonly chunks: readonly number[]
  /** From the first stored byte to the last. */
  readonly bytes: number
}

interface Found {
  readonly chunk: number
  readonly start: number
  readonly end: number
  /** Bytes of chunks that are here and lie between it and the one before. */
  readonly again: number
}

export class Rest {
  readonly #parts: RestParts
  /** By chunk: whether it is still to be given out. */
  readonly #open: Uint8Array
  #count: number
  #at = { blob: 0, start: 0 }

  /** @param open by chunk: 1, it was missing */
  constructor(open: Uint8Array, parts: RestParts) {
    this.#parts = parts
    this.#open = open
    this.#count = open.reduce((sum, each) => sum + each, 0)
  }

  /** Goes on from there: who read it may read what lies behind it next. */
  near(blob: number, start: number): void {
    this.#at = { blob, start }
  }

  /** The next range; undefined: all were given out. */
  next(limits: RestLimits): RestRange | undefined {
    while (this.#count > 0) {
      const found = this.#look(limits)
      const missing = new Set(this.#parts.missing(found.map(({ chunk }) => chunk)))
      const run: Found[] = []
      let again = 0
      for (const each of found) {
        again += each.again
        if (!missing.has(each.chunk)) {
          this.#take(each.chunk) // it came meanwhile
          again += each.end - each.start
          continue
        }
        if (run.length > 0 && again > limits.againMaxBytes) break
        run.push(each)
        again = 0
      }
      const [first, last] = [run[0], run.at(-1)]
      if (first === undefined || last === undefined) continue
      for (const { chunk } of run) this.#take(chunk)
      this.#at.start = last.start
      return { chunks: run.map(({ chunk }) => chunk), bytes: last.end - first.start }
    }
    return undefined
  }

  /** They did not come, and are given out again. */
  giveBack(chunks: readonly number[]): void {
    for (const chunk of chunks) {
      if (this.#open[chunk] === 1) continue
      this.#open[chunk] = 1
      this.#count++
    }
  }

  #take(chunk: number): void {
    this.#open[chunk] = 0
    this.#count--
  }

  /** Those that are open from the cursor on, as far as one request would go; some, as some are open. */
  #look({ gapMaxBytes, runMaxBytes, againMaxBytes }: RestLimits): Found[] {
    for (;;) {
      const { blob, start } = this.#at
      const found: Found[] = []
      let again = 0
      for (const { chunk, stored } of this.#parts.order.from(blob, start)) {
        const [first, last] = [found[0], found.at(-1)]
        if (this.#open[chunk] !== 1) {
          if (last !== undefined) again += stored.end - stored.start
          if (again > againMaxBytes) break
          continue
        }
        const goesOn = first === undefined || stored.end - first.start <= runMaxBytes
        if (!goesOn || found.length === LOOKED_MAX) break
        if (last !== undefined && stored.start - last.end > gapMaxBytes) break
        found.push({ chunk, ...stored, again })
        again = 0
      }
      if (found.length > 0) return found
      this.#at = { blob: (blob + 1) % this.#parts.blobs, start: 0 }
    }
  }
}
