// The packets of an OpenPGP message (RFC 9580 4.2, 5.6), taken apart before a library looks at it: a signature over an image is
//
//   [compressed data:] one-pass signature, literal data, signature
//
// and nothing else. What a library makes of more packets, of packets inside packets, or of a few bytes that grow to gigabytes is not
// asked: such messages have passed off unsigned text as signed before (CVE-2025-47934, CVE-2018-12020).
import { inflateRawSync, inflateSync } from 'node:zlib'
import { Failure } from '../errors.ts'

/** Engines' signatures have 300 bytes to 1.5 KiB. */
export const SIGNATURE_MAX_BYTES = 64 << 10
/** What the compressed part of one may grow to. */
const DECOMPRESSED_MAX_BYTES = 64 << 10

const SIGNATURE = 2
const ONE_PASS = 4
const COMPRESSED = 8
const LITERAL = 11
const ZIP = 1
const ZLIB = 2

interface Packet {
  tag: number
  body: Uint8Array
  /** Behind the packet. */
  end: number
}

/** The three packets, decompressed, for a library to verify. @throws Failure corrupt, limit, unsupported */
export function signedMessage(bytes: Uint8Array): Uint8Array {
  if (bytes.length > SIGNATURE_MAX_BYTES) {
    throw Failure.limit(`it has ${bytes.length} bytes, at most ${SIGNATURE_MAX_BYTES} are read`)
  }
  const first = packet(bytes, 0)
  const whole = first.tag === COMPRESSED && first.end === bytes.length ? decompressed(first.body) : bytes
  const tags: number[] = []
  for (let at = 0; at < whole.length; ) {
    const { tag, end } = packet(whole, at)
    tags.push(tag)
    if (tags.length > 3) break
    at = end
  }
  if (tags.join() !== [ONE_PASS, LITERAL, SIGNATURE].join()) {
    throw Failure.corrupt('it is no OpenPGP message with one signed text and one signature')
  }
  return whole
}

function decompressed(body: Uint8Array): Uint8Array {
  const [algorithm] = body
  const inflate = algorithm === ZIP ? inflateRawSync : algorithm === ZLIB ? inflateSync : undefined
  if (inflate === undefined) {
    throw Failure.unsupported(`it is compressed by OpenPGP's algorithm ${algorithm}`, {
      fix: 'Sign with gpg --compress-algo zip.',
    })
  }
  try {
    return new Uint8Array(inflate(body.subarray(1), { maxOutputLength: DECOMPRESSED_MAX_BYTES }))
  } catch (cause) {
    if (cause instanceof RangeError) throw Failure.limit(`it decompresses to more than ${DECOMPRESSED_MAX_BYTES} bytes`)
    throw Failure.corrupt('its compressed part is damaged', { cause })
  }
}

function packet(bytes: Uint8Array, start: number): Packet {
  const head = byte(bytes, start)
  if ((head & 0x80) === 0) {
    throw Failure.corrupt(
      head === 0x2d ? 'it is ASCII-armored, which engines do not read' : 'it does not begin as an OpenPGP packet does',
    )
  }
  return (head & 0x40) === 0 ? legacy(bytes, start, head) : current(bytes, start, head)
}

/** RFC 9580 4.2.2 */
function legacy(bytes: Uint8Array, start: number, head: number): Packet {
  const tag = (head >> 2) & 15
  const width = [1, 2, 4, 0][head & 3] ?? 0
  const at = start + 1 + width
  // without a length, it goes on to the end
  const length = width === 0 ? bytes.length - at : number(bytes, start + 1, width)
  return { tag, body: part(bytes, at, length), end: at + length }
}

/** RFC 9580 4.2.1 */
function current(bytes: Uint8Array, start: number, head: number): Packet {
  const parts: Uint8Array[] = []
  for (let at = start + 1; ; ) {
    const first = byte(bytes, at)
    // 224 to 254: a part of 2^n bytes, and more parts follow
    if (first >= 224 && first < 255) {
      const length = 2 ** (first & 31)
      parts.push(part(bytes, at + 1, length))
      at += 1 + length
      continue
    }
    const width = first < 192 ? 1 : first < 224 ? 2 : 5
    const length =
      width === 1 ? first : width === 2 ? ((first - 192) << 8) + byte(bytes, at + 1) + 192 : number(bytes, at + 1, 4)
    parts.push(part(bytes, at + width, length))
    return { tag: head & 63, body: new Uint8Array(Buffer.concat(parts)), end: at + width + length }
  }
}

function byte(bytes: Uint8Array, at: number): number {
  const found = bytes[at]
  if (found === undefined) throw Failure.corrupt('it ends in the middle of an OpenPGP packet')
  return found
}

function number(bytes: Uint8Array, at: number, width: number): number {
  let found = 0
  for (let i = 0; i < width; i++) found = found * 256 + byte(bytes, at + i)
  return found
}

function part(bytes: Uint8Array, at: number, length: number): Uint8Array {
  if (at + length > bytes.length) throw Failure.corrupt('it ends in the middle of an OpenPGP packet')
  return bytes.subarray(at, at + length)
}
