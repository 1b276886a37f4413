// Memory of large indexes. What a thread has let go of it gives back when it next collects garbage, which an idle one does not by itself.

/** Buffers that Node shares out among small ones are not anybody's to give back. */
const OWN_MIN_BYTES = 1 << 20

/** Gives the memory of `bytes`, which nobody uses any more and nothing else lies on, back to the system at once where that is worth it. */
export function giveBack({ buffer }: Uint8Array): void {
  if (isOwn(buffer)) buffer.transfer(0)
}

/** What of it a message to another thread takes along; the rest is copied. */
export function taken({ buffer }: Uint8Array): ArrayBuffer[] {
  return isOwn(buffer) ? [buffer] : []
}

function isOwn(buffer: ArrayBufferLike): buffer is ArrayBuffer {
  return buffer instanceof ArrayBuffer && !buffer.detached && buffer.byteLength >= OWN_MIN_BYTES
}

/** Between two images that are opened one after the other nothing is collected. */
const IDLE_MS = 1_000

/** What `--expose-gc` makes (V8 from 12 on). */
type Collect = (how: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => void

let idle: NodeJS.Timeout | undefined

/** Collects this thread's garbage when it has not been called for a while. Where V8 was started without `--expose-gc` that stays. */
export function collectSoon(): void {
  const { gc } = globalThis as { gc?: Collect }
  if (gc === undefined) return
  clearTimeout(idle)
  idle = setTimeout(() => gc({ type: 'major', execution: 'sync', flavor: 'last-resort' }), IDLE_MS).unref()
}
