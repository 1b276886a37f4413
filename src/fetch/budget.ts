// How much may be under way at once, over all layers: stored bytes that are asked for and not yet decoded, and requests.
// Demand and prefetch have a lane each, so that demand never waits for prefetch.
import type { Priority } from '../image/blob.ts'
import { Shelf } from './shelf.ts'

export interface LaneLimits {
  /** Bytes under way. A single request that is larger has the lane for itself. */
  maxBytes: number
  maxRequests: number
}

export type BudgetLimits = Readonly<Record<Priority, LaneLimits>>

export const BUDGET: BudgetLimits = {
  // eight runs of 4 MiB; HTTP/2 servers allow 100 streams or more, of which prefetch and indexes need some
  demand: { maxBytes: 32 << 20, maxRequests: 64 },
  // two runs of 8 MiB: one is transferred while the other is answered or decoded; scattered small ones go four at a time
  prefetch: { maxBytes: 16 << 20, maxRequests: 4 },
}

interface Waiting {
  bytes: number
  grant: () => void
}

class Lane {
  readonly #limits: LaneLimits
  readonly #waiting = new Set<Waiting>()
  #bytes = 0
  #requests = 0

  constructor(limits: LaneLimits) {
    this.#limits = limits
  }

  get bytes(): number {
    return this.#bytes
  }

  async acquire(wanted: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    const bytes = Math.min(wanted, this.#limits.maxBytes)
    if (this.#waiting.size > 0 || !this.#fits(bytes)) {
      await new Promise<void>((resolve, reject) => {
        const abort = () => {
          this.#waiting.delete(waiting)
          reject(signal.reason)
          this.#next() // the one that was given up may have held up smaller ones
        }
        const waiting = {
          bytes,
          grant: () => {
            signal.removeEventListener('abort', abort)
            resolve()
          },
        }
        this.#waiting.add(waiting)
        signal.addEventListener('abort', abort, { once: true })
      })
    } else {
      this.#take(bytes)
    }
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#bytes -= bytes
      this.#requests--
      this.#next()
    }
  }

  #fits(bytes: number): boolean {
    return this.#bytes + bytes <= this.#limits.maxBytes && this.#requests < this.#limits.maxRequests
  }

  #take(bytes: number): void {
    this.#bytes += bytes
    this.#requests++
  }

  /** First come, first served: a large one is not passed for ever by small ones. */
  #next(): void {
    for (const waiting of this.#waiting) {
      if (!this.#fits(waiting.bytes)) return
      this.#waiting.delete(waiting)
      this.#take(waiting.bytes)
      waiting.grant()
    }
  }
}

/** One for all fillers of a process. */
export class Budget {
  /** For what nobody has asked for yet. */
  readonly shelf = new Shelf()
  readonly #lanes: Readonly<Record<Priority, Lane>>

  constructor(limits: BudgetLimits = BUDGET) {
    this.#lanes = { demand: new Lane(limits.demand), prefetch: new Lane(limits.prefetch) }
  }

  /**
   * Waits for room for one request of that many bytes. The caller must call the function it gets when they are decoded or dropped.
   * @throws the signal's reason
   */
  acquire(bytes: number, priority: Priority, signal: AbortSignal): Promise<() => void> {
    return this.#lanes[priority].acquire(bytes, signal)
  }

  /** Bytes under way. */
  bytes(priority: Priority): number {
    return this.#lanes[priority].bytes
  }
}
