// One promise for many chunks.
import type { Priority } from '../image/blob.ts'
import type { Fills } from './flights.ts'

/** Resolves when all of them are verified; when some fail it waits for the others and throws the first error. */
export function fillAll(
  fills: Fills,
  wanted: Iterable<number>,
  priority: Priority,
  signal?: AbortSignal,
): Promise<void> {
  const chunks = new Set(wanted)
  return new Promise((resolve, reject) => {
    let left = chunks.size
    let failed: unknown
    const settled = (_: number, error?: unknown) => {
      failed ??= error
      if (--left > 0) return
      if (failed === undefined) resolve()
      else reject(failed)
    }
    if (left === 0) resolve()
    else fills.fillEach(chunks, priority, settled, signal)
  })
}
