// Bytes of an earlier life, verified in place: those that somebody waits for at once, the others a few at a time.
import type { Flight } from './flight.ts'

/** What stands in the way of demand. */
const PREFETCH_CHECKS_MAX = 8

export interface ChecksParts {
  /** True: the chunk matches its digests, and its state says so now. */
  verify: (flight: Flight) => Promise<boolean>
  /** Is given each check as it begins; it never rejects. */
  track: (check: Promise<void>) => void
  checked: (flight: Flight, matches: boolean) => void
}

export class Checks {
  readonly #parts: ChecksParts
  readonly #waiting = new Set<Flight>()
  #prefetching = 0
  #closed = false

  constructor(parts: ChecksParts) {
    this.#parts = parts
  }

  /** Checks it now, or in its turn. */
  add(flight: Flight): void {
    if (flight.priority === 'prefetch' && this.#prefetching >= PREFETCH_CHECKS_MAX) {
      flight.stage = 'unchecked'
      this.#waiting.add(flight)
      return
    }
    this.#parts.track(this.#check(flight))
  }

  /** Takes it out of those that wait. */
  delete(flight: Flight): void {
    this.#waiting.delete(flight)
  }

  /** No more is begun, and nobody is told of what is under way. */
  close(): void {
    this.#closed = true
    this.#waiting.clear()
  }

  async #check(flight: Flight): Promise<void> {
    flight.stage = 'checking'
    const counted = flight.priority === 'prefetch' ? 1 : 0
    this.#prefetching += counted
    let matches: boolean
    try {
      matches = await this.#parts.verify(flight)
    } catch {
      matches = false // the disk does not give it back: as good as damaged, and fetching overwrites it
    }
    this.#prefetching -= counted
    if (this.#closed) return
    const [next] = this.#waiting
    if (counted > 0 && next !== undefined) {
      this.#waiting.delete(next)
      this.add(next)
    }
    this.#parts.checked(flight, matches)
  }
}
