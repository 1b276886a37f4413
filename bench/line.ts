// The arithmetic of a line: bytes are put on it one after the other at a fixed rate, and arrive a fixed time later.
//
//   enter ──► waits until the line is free ──► bytes / rate ──► delay ──► arrives

/** One direction of a link. Everything that enters shares its rate, in the order of entering. Times in ms. */
export class Line {
  readonly #delayMs: number
  readonly #bytesPerMs: number
  #freeAt = 0

  /** `bytesPerSecond`: Infinity where the rate is not limited. */
  constructor(delayMs: number, bytesPerSecond: number) {
    this.#delayMs = delayMs
    this.#bytesPerMs = bytesPerSecond / 1000
  }

  /** When the last of `bytes` that enter at `now` arrives; never before what entered earlier. */
  enter(now: number, bytes: number): number {
    this.#freeAt = Math.max(this.#freeAt, now) + bytes / this.#bytesPerMs
    return this.#freeAt + this.#delayMs
  }
}
