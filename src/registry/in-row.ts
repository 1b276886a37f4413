// What happened so often in a row that it is no accident, and is reckoned with for a while.

/** Things of which that is remembered. */
const KEYS_MAX = 1024

interface Seen {
  inRow: number
  /** When it happened last. Requests that were made before that tell nothing new. */
  at: number
}

export class InRow {
  readonly #max: number
  readonly #forMs: number
  readonly #now: () => number
  readonly #seen = new Map<string, Seen>()

  /**
   * @param max so often in a row
   * @param forMs reckoned with for so long; then it is tried again
   * @param now milliseconds
   */
  constructor(max: number, forMs: number, now: () => number = () => performance.now()) {
    this.#max = max
    this.#forMs = forMs
    this.#now = now
  }

  /** Whether it is to be reckoned with now. */
  of(key: string): boolean {
    const seen = this.#seen.get(key)
    if (seen === undefined || seen.inRow < this.#max) return false
    if (this.#now() - seen.at < this.#forMs) return true
    this.#seen.delete(key)
    return false
  }

  /** It happened to a request that was made at `began`. */
  happened(key: string, began: number): void {
    const seen = this.#seen.get(key)
    if (seen !== undefined && began < seen.at) return
    const [oldest] = this.#seen.keys()
    if (seen === undefined && this.#seen.size >= KEYS_MAX && oldest !== undefined) this.#seen.delete(oldest)
    this.#seen.set(key, { inRow: (seen?.inRow ?? 0) + 1, at: this.#now() })
  }

  /** It did not happen. */
  ended(key: string): void {
    this.#seen.delete(key)
  }
}
