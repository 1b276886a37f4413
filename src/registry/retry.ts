// Trying an idempotent request again: how often, after which pause.
import { setTimeout as pause } from 'node:timers/promises'
import type { Failure } from '../errors.ts'
import { abortion } from './gate.ts'
import type { Limits } from './limits.ts'

/** Thrown by one attempt where another may succeed; `retry` turns the last one into its failure, so nobody else sees it. */
export class Transient extends Error {
  readonly failure: Failure
  /** The peer asked for at least this pause. */
  readonly afterMs: number

  constructor(failure: Failure, afterMs = 0) {
    super(failure.message)
    this.failure = failure
    this.afterMs = afterMs
  }
}

/**
 * Runs `attempt` until it succeeds, fails for good, or the tries are used up. `onRetry` counts.
 * @throws Failure: the last attempt's
 */
export async function retry<T>(
  attempt: () => Promise<T>,
  limits: Limits,
  signal: AbortSignal | undefined,
  onRetry: () => void,
): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      if (!(error instanceof Transient)) throw error
      if (tries >= limits.attempts || error.afterMs > limits.retryAfterMaxMs) throw error.failure
      await rest(Math.max(error.afterMs, pauseMs(tries, limits, Math.random())), signal)
      onRetry()
    }
  }
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
