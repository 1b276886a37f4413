// How long things took, counted by bounds.

/** From a call within a machine, or to a registry in the same rack, to what is given up. */
const UP_TO_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60]

/** `counts`: of what took no longer than each of `upTo`, and longer than the one before; and, one more, of what took longer than all. */
export interface Times {
  /** Seconds. */
  readonly upTo: readonly number[]
  readonly counts: readonly number[]
  /** Of all together. */
  readonly seconds: number
}

export class Durations {
  readonly #counts = Array<number>(UP_TO_SECONDS.length + 1).fill(0)
  #seconds = 0

  note(seconds: number): void {
    const found = UP_TO_SECONDS.findIndex((each) => seconds <= each)
    const at = found < 0 ? UP_TO_SECONDS.length : found
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#seconds += seconds
  }

  get times(): Times {
    return { upTo: UP_TO_SECONDS, counts: [...this.#counts], seconds: this.#seconds }
  }
}
