// A gzip member -> what it decodes to: whole, in pieces, so that the largest one does not hold up the main thread.
import { createGunzip } from 'node:zlib'
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
    await inflateInto(decoded, member, what)
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

async function inflateInto(decoded: Uint8Array, member: Uint8Array, what: string): Promise<void> {
  let at = 0
  const gunzip = createGunzip({ chunkSize: PIECE_BYTES })
  gunzip.end(member)
  try {
    for await (const piece of gunzip as AsyncIterable<Uint8Array>) {
      if (at + piece.length > decoded.length) throw Failure.corrupt(`${what} is longer than it says`)
      decoded.set(piece, at)
      at += piece.length
    }
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw Failure.corrupt(`${what} is no gzip`, { cause })
  }
  if (at !== decoded.length) throw Failure.corrupt(`${what} is shorter than it says`)
}
