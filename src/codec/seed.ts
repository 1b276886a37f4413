// Decoding from within a gzip stream. A seed is what a decoder that came from its beginning would know there:
//
//   byte 0    how many bits of the byte before the chunk's stored bytes belong to it, 0 … 7: blocks begin anywhere within a byte
//   byte 1    those bits, the first one lowest
//   rest      the bytes that the stream made before, which copies refer to: at most 32 KiB
//
// node:zlib cannot be told single bits. It is given whole blocks that hold nothing instead, as many as it takes for the bits to end
// where a byte ends: the stored bytes stay as they are, which stored blocks (they begin with a byte) rely on.
import { Failure } from '../errors.ts'
import type { Decoded } from './decoder.ts'
import { endsEarly, gunzipStart, inflateStart } from './gunzip.ts'

const HEAD_BYTES = 2
const DICTIONARY_MAX_BYTES = 32 * 1024 // RFC 1951 2
const TRAILER_BYTES = 8 // RFC 1952 2.3.1: CRC-32, size

/** Bits with their number; the first bit is the lowest. */
type Bits = readonly [value: bigint, count: number]

/** RFC 1951 3.2.6: not the last block, fixed codes, end of block. 10 bits: any even place within a byte can be reached with it. */
const EMPTY_FIXED = join([
  [0n, 1],
  [1n, 2],
  [0n, 7],
])
/** RFC 1951 3.2.7: not the last block, codes of its own, end of block. 91 bits, for the odd places. */
const EMPTY_DYNAMIC = join([
  [0n, 1],
  [2n, 2],
  // 257 codes for literals and lengths, 2 for distances, 18 lengths of codes for lengths
  [0n, 5],
  [1n, 5],
  [14n, 4],
  // in the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1: those for 18 and 1 have one bit, which is 1 and 0
  ...Array.from({ length: 18 }, (_, i): Bits => [i === 2 || i === 17 ? 1n : 0n, 3]),
  // literals: 138 and 118 times no code, then one bit for the end of the block; one bit for each of the distances
  [1n, 1],
  [138n - 11n, 7],
  [1n, 1],
  [118n - 11n, 7],
  [0n, 3],
  // the end of the block
  [0n, 1],
])

/**
 * The first `size` bytes from there: of the stream's rest, and of members that follow it.
 * @throws Failure corrupt
 */
export async function inflateFrom(seed: Uint8Array, stored: Uint8Array, size: number): Promise<Decoded> {
  const [count = 8, value = 0] = seed
  if (
    seed.length < HEAD_BYTES ||
    count > 7 ||
    value >> count !== 0 ||
    seed.length > HEAD_BYTES + DICTIONARY_MAX_BYTES
  ) {
    throw Failure.corrupt('no seed', { why: `it has ${seed.length} bytes and says ${value} in ${count} bits` })
  }
  const before = upToByte([BigInt(value), count])
  const stream = new Uint8Array(before.length + stored.length)
  stream.set(before)
  stream.set(stored, before.length)
  const copy = stream.subarray(before.length)
  const { made, used } = await inflateStart(stream, size, seed.subarray(HEAD_BYTES))
  if (made.length === size) return { stored: copy, decoded: made }
  if (used + TRAILER_BYTES >= stream.length) throw endsEarly(made.length, size)
  const next = await gunzipStart(stream.subarray(used + TRAILER_BYTES), size - made.length)
  return { stored: copy, decoded: Buffer.concat([made, next]) }
}

/** Blocks that hold nothing, and the bits, which end with the last byte. */
function upToByte(bits: Bits): Uint8Array {
  const blocks = bits[1] % 2 === 0 ? [] : [EMPTY_DYNAMIC]
  for (;;) {
    const [value, count] = join([...blocks, bits])
    if (count % 8 === 0)
      return Uint8Array.from({ length: count / 8 }, (_, i) => Number((value >> BigInt(i * 8)) & 255n))
    blocks.push(EMPTY_FIXED)
  }
}

function join(all: readonly Bits[]): Bits {
  return all.reduce(([value, at], [next, count]): Bits => [value | (next << BigInt(at)), at + count], [0n, 0])
}
