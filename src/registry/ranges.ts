// Remembers blobs that a host sends whole although a range was asked for. That says little of the host: a cache in front of a registry
// sends each blob whole once, while it fetches it. And whether it answers a request for several ranges with all of them.

/** So many answers of that kind in a row mean that it is no accident … */
const IN_ROW_MAX = 3
/** … for so long; then it is tried again. */
const RANGELESS_MS = 30_000
/** Whoever answers several ranges with one, or with the whole blob, is asked so again after that long. */
const APART_MS = 60 * 60_000
/** Blobs that are remembered. */
const BLOBS_MAX = 1024

interface Seen {
  inRow: number
  /** When the last one came. Requests that were made before that tell nothing new. */
  at: number
}

export class Ranges {
  readonly #now: () => number
  readonly #seen = new Map<string, Seen>()
  #givesItself = false
  #apartUntil = Number.NEGATIVE_INFINITY

  /** @param now milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Whether ranges of it are not worth asking for now. */
  ignoredFor(blob: string): boolean {
    const seen = this.#seen.get(blob)
    if (seen === undefined || seen.inRow < IN_ROW_MAX) return false
    if (this.#now() - seen.at < RANGELESS_MS) return true
    this.#seen.delete(blob)
    return false
  }

  /** A range that was asked for at `began` brought the whole blob. */
  cameWhole(blob: string, began: number): void {
    const seen = this.#seen.get(blob)
    if (seen !== undefined && began < seen.at) return
    const [oldest] = this.#seen.keys()
    if (seen === undefined && this.#seen.size >= BLOBS_MAX && oldest !== undefined) this.#seen.delete(oldest)
    this.#seen.set(blob, { inRow: (seen?.inRow ?? 0) + 1, at: this.#now() })
  }

  /** Blobs came from the host itself, or from a storage that it led to: of those that clouds have, none gives several ranges at once. */
  answered(itself: boolean): void {
    this.#givesItself = itself
  }

  /** Whether several ranges are worth asking for at once. Nothing is asked so before anything came. */
  get goTogether(): boolean {
    return this.#givesItself && this.#now() >= this.#apartUntil
  }

  /** Several ranges were asked for at once, and something else came. */
  cameApart(): void {
    this.#apartUntil = this.#now() + APART_MS
  }

  /** A range came. */
  came(blob: string): void {
    this.#seen.delete(blob)
  }
}
