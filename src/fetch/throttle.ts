// What may be fetched in a second where each byte costs something.

export class Throttle {
  readonly #bytesPerMs: number
  readonly #now: () => number
  /** When what was taken so far is paid for. */
  #paidAt = Number.NEGATIVE_INFINITY

  /** @param now milliseconds */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.#bytesPerMs = bytesPerSecond / 1000
    this.#now = now
  }

  /** So many bytes came. @returns milliseconds to wait before more do */
  take(bytes: number): number {
    const now = this.#now()
    this.#paidAt = Math.max(now, this.#paidAt) + bytes / this.#bytesPerMs
    return this.#paidAt - now
  }
}
