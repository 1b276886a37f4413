// How long a zstd frame is, without its being decoded (RFC 8878 3.1.1): its header, then blocks that say how long they are.
import { Failure } from '../errors.ts'

export interface Frame {
  /** Behind its last byte. */
  end: number
  /** What it decodes to has so many bytes at most. */
  maxBytes: number
}

/** Block_Maximum_Size. */
const BLOCK_MAX_BYTES = 128 << 10
const BLOCK_HEADER_BYTES = 3
/** Of a dictionary's number and of the contents' size, by the flags that say it. */
const DICTIONARY_BYTES = [0, 1, 2, 4] as const
const SIZE_BYTES = [0, 2, 4, 8] as const
const MAGIC_BYTES = 4
const CHECKSUM_BYTES = 4
/** Block_Type: such a block has one byte, whatever its size says; the last kind is reserved. */
const RLE = 1
const RESERVED = 3

/**
 * The frame whose magic stands at `start`.
 * @param bytesAt so many bytes from there; what lies behind the end is zero
 * @param size of all there is
 * @throws Failure corrupt: it is cut off, or is none
 */
export function frameAt(start: number, bytesAt: (at: number, length: number) => Uint8Array, size: number): Frame {
  const [descriptor = 0] = bytesAt(start + MAGIC_BYTES, 1)
  const isSingle = (descriptor & 0x20) !== 0
  const sizeFlag = descriptor >> 6
  let at = start + MAGIC_BYTES + 1
  at += isSingle ? 0 : 1 // the window's size
  at += DICTIONARY_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3]
  at += sizeFlag === 0 && isSingle ? 1 : SIZE_BYTES[sizeFlag as 0 | 1 | 2 | 3]
  let blocks = 0
  for (let isLast = false; !isLast; blocks++) {
    const [low = 0, middle = 0, high = 0] = bytesAt(at, BLOCK_HEADER_BYTES)
    const header = low | (middle << 8) | (high << 16)
    const type = (header >> 1) & 3
    if (type === RESERVED) throw Failure.corrupt(`a zstd frame at ${start} has no block at ${at}`)
    at += BLOCK_HEADER_BYTES + (type === RLE ? 1 : header >> 3)
    if (at > size) throw Failure.corrupt(`a zstd frame at ${start} is cut off at ${size}`)
    isLast = (header & 1) !== 0
  }
  if ((descriptor & 4) !== 0) at += CHECKSUM_BYTES
  if (at > size) throw Failure.corrupt(`a zstd frame at ${start} is cut off at ${size}`)
  return { end: at, maxBytes: blocks * BLOCK_MAX_BYTES }
}
