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
export type Checkable = Pick<OpenLayer, 'chunks' | 'reverify'> & { slots: Pick<OpenLayer['slots'], 'states'> }

/**
 * Whether each layer's device is complete. What an earlier life left is checked in the background, as whatever nobody waits for: many
 * layers are asked for at once when an agent starts, and reads go first. What was not checked in time is so later, and the answer is
 * better the next time. Never rejects for what a layer is like.
 */
export async function areComplete(layers: readonly Checkable[], signal: AbortSignal): Promise<boolean[]> {
  const over = ended(AbortSignal.any([signal, AbortSignal.timeout(CHECKED_MAX_MS)]))
  let allowance = CHECKED_MAX_BYTES
  const checks: Promise<boolean>[] = []
  for (const layer of layers) {
    const stored = await storedIfAll(layer)
    if (stored === undefined || stored.length === 0) {
      checks.push(Promise.resolve(stored !== undefined))
      continue
    }
    const checked = layer.reverify() // never rejects
    const bytes = stored.reduce((sum, chunk) => sum + layer.chunks.sizeOf(chunk), 0)
    if (bytes > allowance) {
      checks.push(Promise.resolve(false))
      continue
    }
    allowance -= bytes
    checks.push(Promise.race([checked, over]).then(() => !signal.aborted && isComplete(layer)))
  }
  return await Promise.all(checks)
}

/** What is asked of one whose device the kernel is to mount. */
export type Holdable = Checkable & { slots: Pick<OpenLayer['slots'], 'hold'> }

/** Lets a device that was held lose chunks again. */
export type Release = () => void

/** The same, and holds those that are complete, so that they stay so; undefined: it is not. */
export async function holdComplete(layers: readonly Holdable[], signal: AbortSignal): Promise<(Release | undefined)[]> {
  const complete = await areComplete(layers, signal)
  // some of it may have gone since; a disk that fails leaves it to the session
  const hold = ({ slots }: Holdable) => slots.hold().catch(() => undefined)
  return await Promise.all(layers.map((each, i) => (complete[i] ? hold(each) : undefined)))
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

async function isComplete({ slots }: Checkable): Promise<boolean> {
  return (await slots.states()).every((state) => state === READY_VERIFIED)
}

function ended(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
