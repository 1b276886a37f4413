// Tables of nydus blobs -> decoded; in the worker that parses indexes. Chunks are decoded elsewhere.
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import { Failure } from '../../errors.ts'
import type { Compressor } from './rafs.ts'

/** Of one table: 24 bytes for each of 2^24 chunks. */
const TABLE_MAX_BYTES = 400 << 20

/** A byte of a match's length adds 255 bytes; nothing adds more. */
const LZ4_RATIO_MAX = 255

/**
 * Exactly `size` bytes.
 * @param what names the table in errors
 * @throws Failure corrupt, limit
 */
export function decodeTable(stored: Uint8Array, compressor: Compressor, size: number, what: string): Uint8Array {
  if (size > TABLE_MAX_BYTES) throw Failure.limit(`${what} has ${size} bytes, at most ${TABLE_MAX_BYTES} are accepted`)
  const decoded = size === 0 ? new Uint8Array() : decode(stored, compressor, size, what)
  if (decoded.length === size) return decoded
  throw Failure.corrupt(`${what} decodes to ${decoded.length} bytes, not ${size}`)
}

function decode(stored: Uint8Array, compressor: Compressor, size: number, what: string): Uint8Array {
  if (compressor === 'none') return stored
  if (compressor === 'lz4_block') return decodeLz4(stored, size, what)
  const limits = { maxOutputLength: size }
  try {
    return compressor === 'zstd' ? zstdDecompressSync(stored, limits) : gunzipSync(stored, limits)
  } catch (cause) {
    throw Failure.corrupt(`${what} cannot be decompressed`, { cause })
  }
}

/** LZ4's block format (lz4_Block_format.md): literals and matches in turn, the last without a match. */
function decodeLz4(stored: Uint8Array, size: number, what: string): Uint8Array {
  // what the stored bytes promise decides how much is allocated
  if (size > stored.length * LZ4_RATIO_MAX) throw Failure.corrupt(`${what}: ${stored.length} bytes cannot be ${size}`)
  const decoded = new Uint8Array(size)
  const broken = (at: number) => Failure.corrupt(`${what} is no LZ4 block at ${at}`)
  let at = 0
  let out = 0
  const byte = (): number => {
    const value = stored[at++]
    if (value === undefined) throw broken(at - 1)
    return value
  }
  const length = (nibble: number): number => {
    let total = nibble
    for (let more = nibble === 15; more; ) {
      const value = byte()
      total += value
      more = value === 255
    }
    return total
  }
  while (at < stored.length) {
    const token = byte()
    const literals = length(token >>> 4)
    if (at + literals > stored.length || out + literals > size) throw broken(at)
    decoded.set(stored.subarray(at, at + literals), out)
    at += literals
    out += literals
    if (at === stored.length) break
    const distance = byte() | (byte() << 8)
    const matched = length(token & 15) + 4
    if (distance === 0 || distance > out || out + matched > size) throw broken(at)
    // byte by byte: a match may reach into itself
    for (let i = 0; i < matched; i++) decoded[out + i] = decoded[out + i - distance] as number
    out += matched
  }
  return decoded.subarray(0, out)
}
