// How many requests a host gets at once, and who goes first: demand before prefetch, otherwise in order.
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'

/** What waits for a place: the background has a connection of its own. */
export type Queued = Exclude<Priority, 'background'>

/** More waiting requests than that mean that nobody bounds them; they are refused rather than remembered. */
const QUEUE_MAX = 16_384

interface Waiter {
  admit(): void
}

/** A host's queue. */
export class Gate {
  /** Requests at once; may change while requests are under way. */
  limit: number
  readonly #reserve: number
  readonly #queues: Record<Queued, Set<Waiter>> = { demand: new Set(), prefetch: new Set() }
  #inside = 0

  /** Prefetch leaves `reserve` places free, so that demand finds the door open. */
  constructor(limit: number, reserve: number) {
    this.limit = limit
    this.#reserve = reserve
  }

  get idle(): boolean {
    return this.#inside === 0 && this.#queues.demand.size + this.#queues.prefetch.size === 0
  }

  /** Resolves with the function that gives the place back. @throws Failure aborted, limit, or the signal's Failure */
  async enter(priority: Queued, signal?: AbortSignal): Promise<() => void> {
    if (signal?.aborted) throw abortion(signal)
    if (!this.#open(priority)) await this.#wait(priority, signal)
    else this.#inside++
    let left = false
    return () => {
      if (left) return
      left = true
      this.#inside--
      this.#admit()
    }
  }

  #open(priority: Queued): boolean {
    if (priority === 'demand') return this.#inside < this.limit
    return this.#queues.demand.size === 0 && this.#inside < Math.max(1, this.limit - this.#reserve)
  }

  #wait(priority: Queued, signal?: AbortSignal): Promise<void> {
    const queue = this.#queues[priority]
    if (queue.size >= QUEUE_MAX) throw Failure.limit(`more than ${QUEUE_MAX} requests wait for one host`)
    return new Promise((resolve, reject) => {
      const leave = () => {
        queue.delete(waiter)
        reject(abortion(signal))
      }
      const waiter = {
        admit: () => {
          queue.delete(waiter)
          signal?.removeEventListener('abort', leave)
          this.#inside++
          resolve()
        },
      }
      queue.add(waiter)
      signal?.addEventListener('abort', leave, { once: true })
    })
  }

  #admit(): void {
    for (const priority of ['demand', 'prefetch'] as const) {
      for (const waiter of this.#queues[priority]) {
        if (!this.#open(priority)) return
        waiter.admit()
      }
    }
  }
}

/** What an aborted signal means to its caller: its own Failure (a deadline), else `aborted`. */
export function abortion(signal: AbortSignal | undefined): Failure {
  const reason: unknown = signal?.reason
  return reason instanceof Failure ? reason : Failure.aborted('the request was given up', { cause: reason })
}
