// How much may be under way at once, over all layers: stored bytes that are asked for and not yet decoded, and requests.
// Demand, prefetch and the background have a lane each, so that none waits for a later one; and so has each origin, so that nobody
// waits for another's registry. All lanes lead through one bound, the process's memory for what is not on disk yet.
//
//   demand      lanes by origin ──┐
//   prefetch    lanes by origin ──┼──▶ memory: 64 MiB; prefetch begins while less than 32 are taken, the background while less than 16
//   background  lanes by origin ──┘    ▲
//   first bytes, what came along, files, blobs read whole, chunks in place of the disk: counted, too
import type { Priority } from '../image/blob.ts'
import { ByteLimit } from '../limit.ts'
import { Shelf } from './shelf.ts'
import { Wires } from './wire.ts'

export interface LaneLimits {
  /** Bytes under way. A single request that is larger has the lane for itself. */
  maxBytes: number
  maxRequests: number
}

/** Of one origin. */
export type BudgetLimits = Readonly<Record<Priority, LaneLimits>>

export const BUDGET: BudgetLimits = {
  // four runs of 4 MiB, a tenth of a second at 1 Gbit/s; HTTP/2 servers allow 100 streams or more, of which prefetch and indexes need some
  demand: { maxBytes: 16 << 20, maxRequests: 64 },
  // two runs of 8 MiB: one is transferred while the other is answered or decoded. Of scattered small ones, as profiles want them, as many
  // as a few requests join (registry/joined-reads.ts)
  prefetch: { maxBytes: 16 << 20, maxRequests: 512 },
  // what is on the wire has a narrower bound (wire.ts); ranges are in memory as far as they have come
  background: { maxBytes: 16 << 20, maxRequests: 32 },
}

/** So many registries must stand still with a full lane each before anybody else waits for one of their requests. */
const LANES_MAX = 8

/**
 * What may be taken in all when more begins: four registries' demand, or one's beside whatever else there is. With what the agent has anyway
 * this fits into 200 MB.
 */
export const MEMORY: Readonly<Record<Priority, number>> = { demand: 64 << 20, prefetch: 32 << 20, background: 16 << 20 }
const RANKS: Readonly<Record<Priority, number>> = { demand: 0, prefetch: 1, background: 2 }

/** Files answer at once: a few at a time are as fast. */
const OF_FILES: BudgetLimits = {
  demand: { maxBytes: 8 << 20, maxRequests: 64 },
  prefetch: { maxBytes: 8 << 20, maxRequests: 64 },
  background: { maxBytes: 8 << 20, maxRequests: 32 },
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

  get idle(): boolean {
    return this.#requests === 0 && this.#waiting.size === 0
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

/** The lanes of each origin that has something under way, within one for all. */
class Lanes {
  readonly #limits: LaneLimits
  readonly #all: Lane
  readonly #each = new Map<string, Lane>()

  constructor(limits: LaneLimits) {
    this.#limits = limits
    this.#all = new Lane({ maxBytes: Number.POSITIVE_INFINITY, maxRequests: limits.maxRequests * LANES_MAX })
  }

  get bytes(): number {
    return this.#all.bytes
  }

  async acquire(origin: string, wanted: number, signal: AbortSignal): Promise<() => void> {
    const lane = this.#each.get(origin) ?? new Lane(this.#limits)
    this.#each.set(origin, lane)
    const forget = () => {
      if (lane.idle && this.#each.get(origin) === lane) this.#each.delete(origin)
    }
    const leave = await lane.acquire(wanted, signal).finally(forget)
    try {
      // its own first: what waits there takes nothing of the others'
      const leaveAll = await this.#all.acquire(Math.min(wanted, this.#limits.maxBytes), signal)
      return () => {
        leaveAll()
        leave()
        forget()
      }
    } catch (error) {
      leave()
      forget()
      throw error
    }
  }
}

/** Waits for memory, if anybody has to. @throws the signal's reason */
type Takes = (bytes: number, priority: Priority, signal: AbortSignal) => Promise<() => void>

/** One for all fillers of a process that ask registries. */
export class Budget {
  /** For what nobody has asked for yet. */
  readonly shelf: Shelf
  /** The ways that all of it takes. */
  readonly wires: Wires
  readonly #memory: ByteLimit
  readonly #takes: Takes
  readonly #lanes: Readonly<Record<Priority, Lanes>>
  #requests = 0

  /** @param of for whom it is made, whose memory it shares; they wait for nobody else */
  constructor(limits: BudgetLimits = BUDGET, wires = new Wires(), memory = MEMORY, of?: Budget) {
    this.wires = wires
    this.#lanes = {
      demand: new Lanes(limits.demand),
      prefetch: new Lanes(limits.prefetch),
      background: new Lanes(limits.background),
    }
    this.shelf = new Shelf((bytes) => this.tryTake(bytes, 'prefetch'))
    const shares = [memory.demand, memory.prefetch, memory.background]
    this.#memory = of === undefined ? new ByteLimit(shares, () => this.shelf.dropOldest()) : of.#memory
    this.#takes =
      of === undefined
        ? (bytes, priority, signal) => this.#memory.take(bytes, RANKS[priority], signal)
        : async (bytes) => this.counted(bytes)
  }

  /** One for fillers that read files: they wait for no registry, and what they have in memory counts. */
  ofFiles(): Budget {
    return new Budget(OF_FILES, new Wires(), MEMORY, this)
  }

  /**
   * Waits for room for one request of that many bytes. The caller must call the function it gets when they are decoded or dropped.
   * @param origin whom to ask: those of one origin wait for one another
   * @throws the signal's reason
   */
  async acquire(origin: string, bytes: number, priority: Priority, signal: AbortSignal): Promise<() => void> {
    this.#requests++
    const leave = await this.#lanes[priority].acquire(origin, bytes, signal)
    try {
      const giveBack = await this.#takes(bytes, priority, signal)
      return () => {
        giveBack()
        leave()
      }
    } catch (error) {
      leave()
      throw error
    }
  }

  /** Memory for what nobody waits for; undefined: there is none now. @returns what gives it back */
  tryTake(bytes: number, priority: Priority): (() => void) | undefined {
    return this.#memory.tryTake(bytes, RANKS[priority])
  }

  /** Counts what has a bound of its own. @param bytes negative: so many have gone */
  count(bytes: number): void {
    this.#memory.count(bytes)
  }

  /** The same until what it returns is called, once. */
  counted(bytes: number): () => void {
    this.count(bytes)
    return () => this.count(-bytes)
  }

  /** Bytes in memory, of all kinds. */
  get taken(): number {
    return this.#memory.taken
  }

  /** Bytes under way. */
  bytes(priority: Priority): number {
    return this.#lanes[priority].bytes
  }

  /** How many requests there ever were, and the bytes of those that are under way. */
  get traffic(): { read: number; underWay: number } {
    return { read: this.#requests, underWay: this.bytes('demand') + this.bytes('prefetch') }
  }
}
