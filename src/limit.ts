// A bound on how much of some work is done at once: who comes later waits, first come, first served.
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

function gaveUp(signal: AbortSignal): Failure {
  return Failure.aborted('gave up while others were served', { cause: signal.reason })
}
