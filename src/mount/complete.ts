// Which devices need nobody to fill them: all of their chunks were verified in this life, so the kernel may read the cache file itself.
//
// fs-verity would let the kernel check every later read of such a file, too. It is not used: it makes the file immutable for good, where
// a chunk that goes bad is healed by fetching it again, and none of the kernels this was tried on was built with it.

import type { OpenLayer } from '../layer/layer.ts'
import { READY_STORED, READY_VERIFIED } from '../tree/ready.ts'

/** What an earlier life left is read and hashed while an engine waits, up to so many bytes: a fifth of a second on two cores. */
const CHECKED_MAX_BYTES = 64 << 20
/** A disk that is slow, or a chunk that is damaged and fetched again, holds nobody up for longer. */
const CHECKED_MAX_MS = 2_000

/** What is asked of a layer. */
export type Checkable = Pick<OpenLayer, 'slots' | 'chunks' | 'filler' | 'reverify'>

/**
 * Whether each layer's device is complete. What was not checked for want of time is checked in the background, so that the answer is
 * better the next time. Never rejects for what a layer is like.
 */
export async function areComplete(layers: readonly Checkable[], signal: AbortSignal): Promise<boolean[]> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(CHECKED_MAX_MS)])
  let allowance = CHECKED_MAX_BYTES
  const found: boolean[] = []
  for (const layer of layers) {
    const stored = await storedIfAll(layer)
    const bytes = stored?.reduce((sum, chunk) => sum + layer.chunks.sizeOf(chunk), 0) ?? 0
    const now = stored !== undefined && bytes <= allowance
    if (now) allowance -= bytes
    const complete = now && (await checked(layer, stored, limit))
    if (stored !== undefined && !complete) void layer.reverify() // never rejects
    found.push(complete)
  }
  return found
}

/** The chunks that an earlier life stored; undefined when others are missing. */
async function storedIfAll({ slots }: Checkable): Promise<number[] | undefined> {
  const stored: number[] = []
  for (const [chunk, state] of (await slots.states()).entries()) {
    if (state === READY_STORED) stored.push(chunk)
    else if (state !== READY_VERIFIED) return undefined
  }
  return stored
}

async function checked({ filler }: Checkable, stored: readonly number[], limit: AbortSignal): Promise<boolean> {
  if (stored.length === 0) return true
  try {
    await filler.fill(stored, 'demand', limit)
    return true // the filler says so only when all of them are verified
  } catch {
    return false // whoever reads what failed is told why
  }
}
