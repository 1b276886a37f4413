// LZ4 blocks (lz4_Block_format.md of the lz4 project) in TypeScript, for where the WebAssembly module cannot be instantiated.
import { Failure } from '../errors.ts'

const MATCH_MIN_BYTES = 4
/** A length that a nibble cannot hold goes on in bytes, as long as they are full. */
const NIBBLE_FULL = 15
const BYTE_FULL = 255
// What ends a block: its last bytes are literals, and the last match begins that far from its end.
const LAST_LITERALS_BYTES = 5
const LAST_MATCH_BYTES = 12

/**
 * What the block holds.
 * @throws Failure corrupt when that is not `size` bytes
 */
export function unlz4(stored: Uint8Array, size: number): Uint8Array {
  const made = new Uint8Array(size)
  let from = 0
  let to = 0
  const byte = (): number => {
    const next = stored[from++]
    if (next === undefined) throw corrupt(`its ${stored.length} stored bytes end within a sequence`)
    return next
  }
  const length = (nibble: number): number => {
    if (nibble < NIBBLE_FULL) return nibble
    let sum = nibble
    let more: number
    do sum += more = byte()
    while (more === BYTE_FULL)
    return sum
  }
  for (;;) {
    const token = byte()
    const literals = length(token >> 4)
    if (from + literals > stored.length) throw corrupt(`it ends within literals, after ${to} of ${size} bytes`)
    if (to + literals > size) throw corrupt(`it holds more than ${size} bytes`)
    made.set(stored.subarray(from, from + literals), to)
    from += literals
    to += literals
    if (from === stored.length) break
    if (to > size - LAST_MATCH_BYTES) throw corrupt(`a match begins at ${to} of ${size} bytes`)
    const distance = byte() | (byte() << 8)
    if (distance === 0 || distance > to) throw corrupt(`at ${to} it copies from ${distance} bytes before`)
    const end = to + MATCH_MIN_BYTES + length(token & 15)
    if (end > size - LAST_LITERALS_BYTES) throw corrupt(`a match ends at ${end} of ${size} bytes`)
    // copies of copies: no step reaches into what it makes
    while (to < end) {
      const step = Math.min(distance, end - to)
      made.copyWithin(to, to - distance, to - distance + step)
      to += step
    }
  }
  if (to < size) throw corrupt(`it holds ${to} of ${size} bytes`)
  return made
}

function corrupt(why: string): Failure {
  return Failure.corrupt('no lz4 block', { why })
}
