// How long an engine is kept waiting. It looks layers up one after the other under a lock, so a slow registry must not stall a
// node: what makes no progress is answered "not here" (the engine then pulls normally), and goes on behind the answer.
import { Failure } from '../errors.ts'

export interface Patience {
  /** Without any progress. */
  stallMs: number
  /** In all. */
  totalMs: number
}

export const LOOKUP_PATIENCE: Patience = { stallMs: 2_000, totalMs: 10_000 }

const POLL_MS = 100

/**
 * The promise's outcome, or Failure timeout once `progress` (any growing number) stands still for too long. The promise itself
 * goes on; its outcome must be handled elsewhere too.
 */
export async function patiently<T>(promise: Promise<T>, progress: () => number, patience: Patience): Promise<T> {
  const started = performance.now()
  let last = progress()
  let moved = started
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      const now = performance.now()
      const current = progress()
      if (current !== last) [last, moved] = [current, now]
      if (now - started > patience.totalMs) reject(Failure.timeout(`not ready after ${patience.totalMs} ms`))
      else if (now - moved > patience.stallMs) reject(Failure.timeout(`no progress for ${patience.stallMs} ms`))
    }, POLL_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearInterval(timer)
  }
}
