// Fetches what is likely to be read soon, in few large ranges, while demand passes.
import { Failure } from '../errors.ts'
import type { Fills } from './flights.ts'

export interface Prefetched {
  /** Chunks that are ready now, those that were before included. */
  ready: number
  /** Chunks that were not filled, or no longer waited for; whoever reads them tries again. */
  failed: number
  /** The first error, of those that are no abort. */
  error?: unknown
}

/**
 * The first of these chunks come first. Resolves when everything is settled, and always. It stops early when `signal` aborts, and when the disk fails or is full:
 * what is left of it is for those who wait.
 */
export async function prefetch(filler: Fills, chunks: Iterable<number>, signal: AbortSignal): Promise<Prefetched> {
  const stop = new AbortController()
  const result: Prefetched = { ready: 0, failed: 0 }
  const wanted = [...new Set(chunks)]
  if (wanted.length === 0) return result
  return new Promise((resolve) => {
    filler.fillEach(
      wanted,
      'prefetch',
      (_, error) => {
        if (error === undefined) result.ready++
        else result.failed++
        if (error !== undefined && !(error instanceof Failure && error.code === 'aborted')) result.error ??= error
        if (error instanceof Failure && error.code === 'system') stop.abort()
        if (result.ready + result.failed === wanted.length) resolve(result)
      },
      AbortSignal.any([signal, stop.signal]),
    )
  })
}
