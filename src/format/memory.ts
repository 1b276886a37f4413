// Memory of large indexes. What a thread has let go of it gives back when it next collects garbage, which an idle one does only when it is told to.

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
