// Counts how often a client waits for answers, one wait after the other: a registry with these faults answers nobody before it is quiet, and
// all who have asked by then at once. What is asked together is one round; what needs an answer first is in a later one.
import type { Fault } from './faults.ts'

/** A client that has something to ask does so sooner, also on a loaded machine; a longer wait makes no other count. */
const QUIET_MS = 150

export class Rounds {
  #count = 0
  #next: { answered: Promise<void>; answer: () => void; timer: NodeJS.Timeout } | undefined

  /** For requests whose paths match; shared with other registries they count together. */
  fault(match: RegExp, more: Partial<Fault> = {}): Fault {
    const hold = () => this.#hold()
    return {
      match,
      ...more,
      get held() {
        return hold()
      },
    }
  }

  /** Rounds since it was last asked. */
  take(): number {
    const count = this.#count
    this.#count = 0
    return count
  }

  #hold(): Promise<void> {
    if (this.#next === undefined) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#next = { answered: promise, answer: resolve, timer: setTimeout(() => {}, 0) }
    }
    const next = this.#next
    clearTimeout(next.timer)
    next.timer = setTimeout(() => {
      this.#count++
      this.#next = undefined
      next.answer()
    }, QUIET_MS)
    return next.answered
  }
}
