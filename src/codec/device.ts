// The worker's end of a device: places are written and read back, then the chunk's ready byte says what they are.
import { readSync, writeSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { Failure } from '../errors.ts'
import type { Chunk } from '../tree/chunk.ts'
import { READY_HEADER_BYTES, SUMMED_BYTES } from '../tree/ready.ts'
import { errnoOf, type Piece, type Slot } from './job.ts'
import { chunkName, type Verified } from './verify.ts'

const FULL = ['ENOSPC', 'EDQUOT', 'EFBIG']

/**
 * Writes all places of the chunk.
 * @returns bytes written
 * @throws Failure system
 */
export function writePlaces(chunk: Chunk, bytes: Verified, slot: Slot): number {
  let written = 0
  try {
    for (const { from, length, at } of chunk.places) {
      for (let done = 0; done < length; ) {
        done += writeSync(slot.deviceFd, bytes, from + done, length - done, at + done)
      }
      written += length
    }
  } catch (cause) {
    throw Failure.system(`${chunkName(chunk)}: cannot be written to the cache`, {
      cause,
      ...(FULL.includes(errnoOf(cause) ?? '') && { fix: 'Free space on the disk that holds the cache.' }),
    })
  }
  return written
}

/**
 * The decoded chunk as the device has it; bytes that no place holds are zeros. null: the places hold less, or, where several
 * hold the same bytes, they differ.
 * @throws Failure system
 */
export function readPlaces(chunk: Chunk, slot: Slot): Uint8Array | null {
  const bytes = new Uint8Array(chunk.size)
  let end = 0
  for (const { from, length, at } of chunk.places) {
    const shared = Math.max(0, Math.min(end, from + length) - from)
    if (shared === 0) {
      if (!readAll(slot.deviceFd, bytes.subarray(from, from + length), at)) return null
    } else {
      const piece = new Uint8Array(length)
      if (!readAll(slot.deviceFd, piece, at)) return null
      if (Buffer.compare(piece.subarray(0, shared), bytes.subarray(from, from + shared)) !== 0) return null
      bytes.set(piece.subarray(shared), from + shared)
    }
    end = Math.max(end, from + length)
  }
  return bytes
}

/** The decoded chunk as these pieces have it; bytes that are in none are zeros. null: some of them end too early. @throws Failure system */
export function readPieces(chunk: Chunk, pieces: readonly Piece[]): Uint8Array | null {
  const bytes = new Uint8Array(chunk.size)
  const isRead = pieces.every(({ fd, at, start, end }) => readAll(fd, bytes.subarray(start, end), at))
  return isRead ? bytes : null
}

/** Checksums of the blocks that begin in a place, for whoever reads the device later (tree/ready.ts). @throws Failure system */
export function writeSums(chunk: Chunk, bytes: Verified, slot: Slot): void {
  if (slot.sumsAt === undefined) return
  try {
    for (const { from, length, at } of chunk.places) {
      const [first, end] = [Math.ceil(at / SUMMED_BYTES), Math.ceil((at + length) / SUMMED_BYTES)]
      if (first >= end) continue
      const sums = Uint32Array.from({ length: end - first }, (_, i) => {
        const start = from + (first + i) * SUMMED_BYTES - at
        return crc32(bytes.subarray(start, Math.min(start + SUMMED_BYTES, from + length)))
      })
      writeSync(slot.readyFd, sums, 0, sums.byteLength, slot.sumsAt + 4 * first)
    }
  } catch (cause) {
    throw Failure.system(`${chunkName(chunk)}: its checksums cannot be written to the cache`, { cause })
  }
}

/** One byte, one pwrite: nobody else's is touched. */
export function setReady(slot: Slot, state: number): void {
  try {
    writeSync(slot.readyFd, Uint8Array.of(state), 0, 1, READY_HEADER_BYTES + slot.chunk)
  } catch (cause) {
    throw Failure.system(`ready byte ${slot.chunk} cannot be written to the cache`, { cause })
  }
}

function readAll(fd: number, into: Uint8Array, at: number): boolean {
  try {
    for (let done = 0; done < into.length; ) {
      const got = readSync(fd, into, done, into.length - done, at + done)
      if (got === 0) return false
      done += got
    }
    return true
  } catch (cause) {
    // a bad sector is as good as a missing chunk
    if (errnoOf(cause) === 'EIO') return false
    throw Failure.system('the cache cannot be read', { cause })
  }
}
