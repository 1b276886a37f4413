// How many requests a host gets at once, and who goes first: demand before prefetch, otherwise in order.
//
// A host that says that it has too much to do (429, 503) gets half as many at once, and one more for each round that it answers well, up
// to what its protocol carries. Until the pause is over that it asked for, it is asked only for what somebody waits for: that may be of
// another repository, which it has the time for.
import { abortion, Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'

/** What waits for a place: the background has a connection of its own. */
export type Queued = Exclude<Priority, 'background'>

/** More waiting requests than that mean that nobody bounds them; they are refused rather than remembered. */
const QUEUE_MAX = 16_384
/** A host is left alone no longer, whatever it asks for: whoever waits here is not to take it for silent. */
const REST_MAX_MS = 20_000

interface Waiter {
  admit(): void
}

/** A host's queue. */
export class Gate {
  #limit: number
  /** Requests at once as the host bears them, at most `#limit`. */
  #borne: number
  /** When it was halved last, and until when the host rests (performance.now). */
  #shedAt = Number.NEGATIVE_INFINITY
  #restUntil = Number.NEGATIVE_INFINITY
  #resting: NodeJS.Timeout | undefined
  readonly #reserve: number
  readonly #queues: Record<Queued, Set<Waiter>> = { demand: new Set(), prefetch: new Set() }
  #inside = 0

  /** Prefetch leaves `reserve` places free, so that demand finds the door open. */
  constructor(limit: number, reserve: number) {
    this.#limit = limit
    this.#borne = limit
    this.#reserve = reserve
  }

  /** Requests at once. */
  get limit(): number {
    return Math.min(this.#limit, Math.max(1, Math.floor(this.#borne)))
  }

  /** As a connection's protocol carries; may change while requests are under way. */
  set limit(limit: number) {
    if (limit === this.#limit) return
    this.#borne = this.#borne === this.#limit ? limit : Math.min(this.#borne, limit)
    this.#limit = limit
    this.#admit()
  }

  /**
   * The host said that it has too much to do, to a request that was sent at `sentAt` (performance.now).
   * @param afterMs the pause that it asked for
   */
  shed(sentAt: number, afterMs = 0): void {
    const now = performance.now()
    if (afterMs > 0) {
      this.#restUntil = Math.max(this.#restUntil, now + Math.min(REST_MAX_MS, afterMs))
      this.#wake()
    }
    if (sentAt < this.#shedAt) return // those that were under way together tell the same
    this.#shedAt = now
    this.#borne = Math.max(1, Math.min(this.#borne, this.#inside) / 2)
  }

  /** A request was answered well. */
  bore(): void {
    if (this.#borne < this.#limit) this.#borne = Math.min(this.#limit, this.#borne + 1 / this.#borne)
  }

  /** Resolves when the host rests no more. @throws Failure aborted, limit, or the signal's Failure */
  async rested(signal?: AbortSignal): Promise<void> {
    if (this.#isResting) (await this.enter('prefetch', signal))()
  }

  get #isResting(): boolean {
    return performance.now() < this.#restUntil
  }

  /** Lets prefetch in when the rest is over. */
  #wake(): void {
    clearTimeout(this.#resting)
    const ms = this.#restUntil - performance.now()
    this.#resting = setTimeout(() => (this.#isResting ? this.#wake() : this.#admit()), Math.max(1, Math.ceil(ms)))
    this.#resting.unref()
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
    if (this.#isResting) return false
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
