// What needs no registry, a few at a time, so that what waits for its turn costs no more than its flight: bytes of an earlier life,
// verified in place, and chunks that are copied from elsewhere.
import type { Priority } from '../image/blob.ts'
import type { Flight } from './flights.ts'

/**
 * What a check says of a chunk. Damaged: its bytes differ from their digests. Unknown: there is nothing to compare them with, so they are
 * fetched again. That a check could not be made is no verdict, but an error.
 */
export type Verdict = 'right' | 'damaged' | 'unknown'

/** Under way at once: enough to keep the workers busy with whatever else they have to do. */
export const CHECKS_MAX: Readonly<Record<Priority, number>> = { demand: 64, prefetch: 8, background: 8 }
/** The same of copies, which come to thousands where an image's last version is here: as many as make full batches (codec/queue.ts). */
export const COPIES_MAX: Readonly<Record<Priority, number>> = { demand: 64, prefetch: 32, background: 32 }

export interface ChecksParts {
  /** Under way at once. */
  max: Readonly<Record<Priority, number>>
  /** Right: the chunk's state says so now. */
  verify: (flight: Flight) => Promise<Verdict>
  /** Is given each check as it begins; it never rejects. */
  track: (check: Promise<void>) => void
  checked: (flight: Flight, verdict: Verdict) => void
  /** It could not be checked. */
  failed: (flight: Flight, error: unknown) => void
}

export class Checks {
  readonly #parts: ChecksParts
  readonly #waiting: Readonly<Record<Priority, Set<Flight>>> = {
    demand: new Set(),
    prefetch: new Set(),
    background: new Set(),
  }
  readonly #checking: Record<Priority, number> = { demand: 0, prefetch: 0, background: 0 }
  #closed = false

  constructor(parts: ChecksParts) {
    this.#parts = parts
  }

  /** Checks it now, or in its turn. */
  add(flight: Flight): void {
    flight.stage = 'unchecked'
    this.#waiting[flight.priority].add(flight)
    this.#next(flight.priority)
  }

  /** Takes it out of those that wait. @returns whether it did */
  delete(flight: Flight): boolean {
    return Object.values(this.#waiting).some((waiting) => waiting.delete(flight))
  }

  /** No more is begun, and nobody is told of what is under way. */
  close(): void {
    this.#closed = true
    for (const waiting of Object.values(this.#waiting)) waiting.clear()
  }

  #next(priority: Priority): void {
    for (const flight of this.#waiting[priority]) {
      if (this.#checking[priority] >= this.#parts.max[priority]) return
      this.#waiting[priority].delete(flight)
      this.#parts.track(this.#check(flight, priority))
    }
  }

  /** @param priority with which it began; somebody may wait for it since */
  async #check(flight: Flight, priority: Priority): Promise<void> {
    flight.stage = 'checking'
    this.#checking[priority]++
    let tell: () => void
    try {
      const verdict = await this.#parts.verify(flight)
      tell = () => this.#parts.checked(flight, verdict)
    } catch (error) {
      tell = () => this.#parts.failed(flight, error)
    }
    this.#checking[priority]--
    if (this.#closed) return
    this.#next(priority)
    tell()
  }
}
