// Trying an idempotent request again: how often, after which pause.
import { setTimeout as pause } from 'node:timers/promises'
import { abortion, Failure } from '../errors.ts'
import type { Limits } from './limits.ts'

/** Failures of one attempt after which another may succeed, and the pause (ms) that the peer asked for. */
const passingFailures = new WeakMap<Failure, number>()

/** Failures in which nobody answered: the network's, and deadlines. */
const unansweredFailures = new WeakSet<Failure>()

/** Marks a failure as one in which nobody answered. */
export function unanswered(failure: Failure): Failure {
  unansweredFailures.add(failure)
  return failure
}

export function isUnanswered(failure: Failure): boolean {
  return unansweredFailures.has(failure)
}

/** Marks a failure as one that may pass: `retry` then tries again, at the earliest after `afterMs`. */
export function passing(failure: Failure, afterMs = 0): Failure {
  passingFailures.set(failure, afterMs)
  return failure
}

/** Whether `retry` would try again after it. */
export function isPassing(error: unknown): boolean {
  return error instanceof Failure && passingFailures.has(error)
}

/**
 * Runs `attempt` until it succeeds, fails for good, or is tried `enough`: by default `limits.attempts` times. `onRetry` counts, and is told why.
 * @throws Failure: the last attempt's
 */
export async function retry<T>(
  attempt: () => Promise<T>,
  limits: Limits,
  signal: AbortSignal | undefined,
  onRetry: (failure: Failure) => void,
  enough: (tries: number, failure: Failure, afterMs: number) => boolean = (tries) => tries >= limits.attempts,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      const afterMs = error instanceof Failure ? passingFailures.get(error) : undefined
      if (!(error instanceof Failure) || afterMs === undefined) throw error
      // `enough` hears of every failure
      if (enough(tries, error, afterMs) || afterMs > limits.retryAfterMaxMs) {
        // final: whoever retries around us must not multiply the tries
        passingFailures.delete(error)
        throw error
      }
      await rest(Math.max(afterMs, pauseMs(tries, limits, Math.random())), signal)
      onRetry(error)
    }
  }
}

/** Counts a request that is tried again. */
export function countRetry(counters: { retries: number; retriesUnanswered: number }, failure: Failure): void {
  counters.retries++
  if (isUnanswered(failure)) counters.retriesUnanswered++
}

/** Half of the doubled pause is certain, half is chance, so that many clients do not come back together. */
export function pauseMs(tries: number, limits: Limits, chance: number): number {
  const full = Math.min(limits.pauseMaxMs, limits.pauseMs * 2 ** (tries - 1))
  return full / 2 + (full / 2) * chance
}

async function rest(ms: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await pause(ms, undefined, signal ? { signal } : {})
  } catch (error) {
    if (signal?.aborted) throw abortion(signal)
    throw error
  }
}

/** A Retry-After header in milliseconds from `now`: seconds or a date (RFC 9110 10.2.3); 0 when there is none that means anything. */
export function retryAfterMs(header: string | undefined, now: number): number {
  if (header === undefined) return 0
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? 0 : Math.max(0, date - now)
}

/** What a server takes for now (RFC 9110 6.6.1), else this machine: absolute times that it names are meant so. Milliseconds since 1970. */
export function serverNow(header: (name: string) => string | undefined): number {
  const clock = Date.parse(header('date') ?? '')
  return Number.isNaN(clock) ? Date.now() : clock
}

/** The pause that an answer asks for, in milliseconds; 0: none. */
export function pauseAskedMs(header: (name: string) => string | undefined): number {
  return retryAfterMs(header('retry-after'), serverNow(header))
}

// What happened so often in a row that it is no accident, and is reckoned with for a while.

/** Things of which that is remembered. */
const KEYS_MAX = 1024

interface Seen {
  inRow: number
  /** When it happened last. Requests that were made before that tell nothing new. */
  at: number
}

export class InRow {
  readonly #max: number
  readonly #forMs: number
  readonly #now: () => number
  readonly #seen = new Map<string, Seen>()

  /**
   * @param max so often in a row
   * @param forMs reckoned with for so long; then it is tried again
   * @param now milliseconds
   */
  constructor(max: number, forMs: number, now: () => number = () => performance.now()) {
    this.#max = max
    this.#forMs = forMs
    this.#now = now
  }

  /** Whether it is to be reckoned with now. */
  of(key: string): boolean {
    const seen = this.#seen.get(key)
    if (seen === undefined || seen.inRow < this.#max) return false
    if (this.#now() - seen.at < this.#forMs) return true
    this.#seen.delete(key)
    return false
  }

  /** It happened to a request that was made at `began`. */
  happened(key: string, began: number): void {
    const seen = this.#seen.get(key)
    if (seen !== undefined && began < seen.at) return
    const [oldest] = this.#seen.keys()
    if (seen === undefined && this.#seen.size >= KEYS_MAX && oldest !== undefined) this.#seen.delete(oldest)
    this.#seen.set(key, { inRow: (seen?.inRow ?? 0) + 1, at: this.#now() })
  }

  /** It did not happen. */
  ended(key: string): void {
    this.#seen.delete(key)
  }
}
