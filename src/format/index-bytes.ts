// The bytes of an index: hashed and searched in pieces, so that the largest one does not hold up the main thread.
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import { type Digest, finish } from '../image/digest.ts'

const PIECE_BYTES = 256 << 10

/** @throws Failure corrupt: less came than was asked for; what reading throws */
export async function readExactly(blob: Blob, range: Range, what: string, options?: ReadOptions): Promise<Uint8Array> {
  const bytes = await blob.read(range, options)
  if (bytes.length === range.end - range.start) return bytes
  throw Failure.corrupt(
    `${what}: ${range.end - range.start} bytes at ${range.start} were asked for, ${bytes.length} came`,
  )
}

/** The digest of `bytes`, the event loop being let in between pieces. */
export async function digestInTurns(bytes: Uint8Array): Promise<Digest> {
  const hash = createHash('sha256')
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    if (at > 0) await nextTurn()
    hash.update(bytes.subarray(at, at + PIECE_BYTES))
  }
  return finish(hash)
}

/** Whether `bytes`, taken for latin1, have what matches `pattern`, in `maxBytes` at most; in turns as well. */
export async function searchInTurns(bytes: Uint8Array, pattern: RegExp, maxBytes: number): Promise<boolean> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at < text.length; at += PIECE_BYTES) {
    if (at > 0) await nextTurn()
    if (pattern.test(text.toString('latin1', at, at + PIECE_BYTES + maxBytes))) return true
  }
  return false
}
