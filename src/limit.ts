// What is done at once: a bound on how much of some work (who comes later waits, first come, first served), and the same work once for all who ask.
import { Failure } from './errors.ts'

export class Limit {
  #free: number
  readonly #waiting = new Set<() => void>()

  constructor(max: number) {
    this.#free = max
  }

  /** Runs `work` when its turn has come. @throws Failure aborted when `signal` ended the wait; what `work` throws */
  async take<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    if (signal.aborted) throw gaveUp(signal)
    if (this.#free > 0) this.#free--
    else await this.#wait(signal)
    try {
      return await work()
    } finally {
      const [next] = this.#waiting
      if (next === undefined) this.#free++
      else next() // the turn is passed on
    }
  }

  #wait(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const next = () => {
        this.#waiting.delete(next)
        signal.removeEventListener('abort', abort)
        resolve()
      }
      const abort = () => {
        this.#waiting.delete(next)
        reject(gaveUp(signal))
      }
      this.#waiting.add(next)
      signal.addEventListener('abort', abort, { once: true })
    })
  }
}

/** The same bound for each of many, who do not wait for one another. */
export class LimitEach<K> {
  readonly #max: number
  /** Of those who have or want a turn. */
  readonly #turns = new Map<K, { turns: Limit; users: number }>()

  constructor(max: number) {
    this.#max = max
  }

  /** As Limit.take, among those of the same key. */
  async take<T>(key: K, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const found = this.#turns.get(key) ?? { turns: new Limit(this.#max), users: 0 }
    this.#turns.set(key, found)
    found.users++
    try {
      return await found.turns.take(work, signal)
    } finally {
      if (--found.users === 0) this.#turns.delete(key)
    }
  }
}

interface Wish {
  readonly bytes: number
  readonly grant: () => void
}

/**
 * A bound on bytes, for all that a process does. Who is of the first rank may fill it; the others may only while all together have taken
 * less than their rank's share, so that those before them find room. Who waits goes by rank, and then first come, first served.
 */
export class ByteLimit {
  /** By rank, each no larger than the one before. */
  readonly #shares: readonly number[]
  readonly #makesRoom: () => boolean
  readonly #waiting: readonly Set<Wish>[]
  #taken = 0
  #holders = 0
  #granting = false

  /** @param makesRoom gives back bytes that only may be wanted, when the first rank waits; false: there are none */
  constructor(shares: readonly number[], makesRoom: () => boolean = () => false) {
    this.#shares = shares
    this.#makesRoom = makesRoom
    this.#waiting = shares.map(() => new Set())
  }

  /** Bytes that are taken or counted. */
  get taken(): number {
    return this.#taken
  }

  /**
   * Waits for room. What is larger than its rank's share has the share for itself; and when nobody has anything, one may go on, whatever is
   * counted.
   * @returns what gives it back, once however often it is called
   * @throws the signal's reason
   */
  async take(bytes: number, rank: number, signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    const wanted = Math.min(bytes, this.#share(rank))
    await new Promise<void>((resolve, reject) => {
      const over = () => {
        this.#waiting[rank]?.delete(wish)
        signal.removeEventListener('abort', abort)
      }
      const wish: Wish = {
        bytes: wanted,
        grant: () => {
          over()
          this.#taken += wanted
          this.#holders++
          resolve()
        },
      }
      const abort = () => {
        over()
        reject(signal.reason)
        this.#grant() // others may have waited behind it
      }
      this.#waiting[rank]?.add(wish)
      signal.addEventListener('abort', abort, { once: true })
      this.#grant()
    })
    return this.#giver(wanted)
  }

  /** The same at once, for what nobody waits for; undefined: there is no room. */
  tryTake(bytes: number, rank: number): (() => void) | undefined {
    const isBehind = this.#waiting.slice(0, rank + 1).some(({ size }) => size > 0)
    if (isBehind || this.#taken + bytes > this.#share(rank)) return undefined
    this.#taken += bytes
    this.#holders++
    return this.#giver(bytes)
  }

  /** Counts bytes that have a bound of their own, and are there whoever waits. @param bytes negative: so many have gone */
  count(bytes: number): void {
    this.#taken += bytes
    if (bytes < 0) this.#grant()
  }

  #share(rank: number): number {
    return this.#shares[rank] ?? 0
  }

  #giver(bytes: number): () => void {
    let held = true
    return () => {
      if (!held) return
      held = false
      this.#taken -= bytes
      this.#holders--
      this.#grant()
    }
  }

  #grant(): void {
    if (this.#granting) return // those who make room give back within this
    this.#granting = true
    for (const [rank, wishes] of this.#waiting.entries()) {
      for (const wish of wishes) {
        const fits = () => this.#holders === 0 || this.#taken + wish.bytes <= this.#share(rank)
        while (!fits() && rank === 0 && this.#makesRoom());
        if (!fits()) {
          this.#granting = false
          return
        }
        wish.grant()
      }
    }
    this.#granting = false
  }
}

/** What becomes of all, in their order, a few at a time. @throws what `work` throws first; from then on no more is begun */
export async function mapLimited<T, R>(all: readonly T[], max: number, work: (one: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  const left = entriesOf(all)
  const lane = async (): Promise<void> => {
    for (const [i, one] of left) results[i] = await work(one)
  }
  await Promise.all(Array.from({ length: Math.min(max, all.length) }, lane))
  return results
}

/** Shared by those who take from it, and closed for all of them when one of them throws, as no array's own iterator is. */
function* entriesOf<T>(all: readonly T[]): Generator<[number, T]> {
  yield* all.entries()
}

function gaveUp(signal: AbortSignal): Failure {
  return Failure.aborted('gave up while others were served', { cause: signal.reason })
}

/** Asks once for each key, and again for what failed; of more than `max` all are asked for again. */
export function onceEach<T>(ask: (key: string) => Promise<T>, max: number): (key: string) => Promise<T> {
  const known = new Map<string, Promise<T>>()
  return (key) => {
    let asked = known.get(key)
    if (asked === undefined) {
      if (known.size >= max) known.clear()
      asked = ask(key).catch((error) => {
        known.delete(key)
        throw error
      })
      known.set(key, asked)
    }
    return asked
  }
}

/** Whoever asks for the same meanwhile waits for the same. */
export function joined<K, T>(running: Map<K, Promise<T>>, key: K, work: () => Promise<T>): Promise<T> {
  const found = running.get(key)
  if (found !== undefined) return found
  const promise = work().finally(() => running.delete(key))
  running.set(key, promise)
  return promise
}

/** Resolves when all of these have; undefined: there is nothing to wait for. */
export function untilAll(waits: readonly (Promise<void> | undefined)[]): Promise<void> | undefined {
  return waits.every((each) => each === undefined) ? undefined : Promise.all(waits).then(() => {})
}
