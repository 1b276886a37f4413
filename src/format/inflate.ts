// A gzip member or a zstd frame -> what it decodes to: whole, in pieces, so that the largest one does not hold up the main thread.
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { Failure } from '../errors.ts'
import type { IndexOptions } from './format.ts'
import { giveBack } from './memory.ts'

const PIECE_BYTES = 256 << 10

/**
 * What `member` decodes to, on memory of its own.
 * @param what names it in errors: `layer sha256:…: its table of contents`
 * @param room as a format's IndexOptions
 * @throws Failure corrupt, limit; what `room` throws
 */
export async function inflate(
  member: Uint8Array,
  what: string,
  maxBytes: number,
  room: IndexOptions['room'],
): Promise<Uint8Array> {
  // ISIZE: a promise which decides how much is allocated, and which the stream then has to keep
  const size = new DataView(member.buffer, member.byteOffset).getUint32(member.length - 4, true)
  if (size > maxBytes) throw Failure.limit(`${what} is larger than ${maxBytes} bytes`)
  await room?.(size)
  const decoded = new Uint8Array(size)
  try {
    await inflateInto(decoded, member, 'gzip', what)
    return decoded
  } catch (error) {
    giveBack(decoded)
    throw error
  }
}

/** gzip's magic, and its header and trailer without any data (RFC 1952 2.3). */
const MEMBER_MIN_BYTES = 18

export function isGzip(bytes: Uint8Array): boolean {
  return bytes.length >= MEMBER_MIN_BYTES && bytes[0] === 0x1f && bytes[1] === 0x8b
}

/**
 * Fills `decoded`, exactly, with what `stored` decodes to.
 * @param what names it in errors, as above
 * @throws Failure corrupt
 */
export async function inflateInto(
  decoded: Uint8Array,
  stored: Uint8Array,
  format: 'gzip' | 'zstd',
  what: string,
): Promise<void> {
  let at = 0
  // zstd's windows are 128 MiB at most, which is its own default
  const inflated = (format === 'gzip' ? createGunzip : createZstdDecompress)({ chunkSize: PIECE_BYTES })
  inflated.end(stored)
  try {
    for await (const piece of inflated as AsyncIterable<Uint8Array>) {
      if (at + piece.length > decoded.length) throw Failure.corrupt(`${what} is longer than it says`)
      decoded.set(piece, at)
      at += piece.length
    }
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw Failure.corrupt(`${what} is no ${format}`, { cause })
  }
  if (at !== decoded.length) throw Failure.corrupt(`${what} is shorter than it says`)
}
