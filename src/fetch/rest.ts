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
  next({ gapMaxBytes, runMaxBytes }: RunLimits): RestRange | undefined {
    while (this.#count > 0) {
      const found = this.#look(gapMaxBytes, runMaxBytes)
      const missing = new Set(this.#parts.missing(found.map(({ chunk }) => chunk)))
      // what came meanwhile is a gap now
      const run: Found[] = []
      for (const each of found) {
        const last = run.at(-1)
        if (!missing.has(each.chunk)) this.#take(each.chunk)
        else if (last === undefined || each.start - last.end <= gapMaxBytes) run.push(each)
        else break
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
  #look(gapMaxBytes: number, runMaxBytes: number): Found[] {
    for (;;) {
      const { blob, start } = this.#at
      const found: Found[] = []
      for (const { chunk, stored } of this.#parts.order.from(blob, start)) {
        if (this.#open[chunk] !== 1) continue
        const [first, last] = [found[0], found.at(-1)]
        const goesOn = first === undefined || stored.end - first.start <= runMaxBytes
        if (!goesOn || found.length === LOOKED_MAX) break
        if (last !== undefined && stored.start - last.end > gapMaxBytes) break
        found.push({ chunk, ...stored })
      }
      if (found.length > 0) return found
      this.#at = { blob: (blob + 1) % this.#parts.blobs, start: 0 }
    }
  }
}
