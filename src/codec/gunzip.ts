// The beginning of a gzip stream by node:zlib, in memory bounded by what is wanted: for members that hold far more than that.
import { constants, createGunzip } from 'node:zlib'
import { Failure } from '../errors.ts'

// zlib's default of 16 KiB costs a sixth of the speed.
const PIECE_BYTES = 256 * 1024

/**
 * The first `size` bytes that `stored` inflates to.
 * @throws Failure corrupt
 */
export async function gunzipStart(stored: Uint8Array, size: number): Promise<Uint8Array> {
  const start = new Uint8Array(size)
  let done = 0
  // finishFlush: a stream that is cut after the wanted bytes is none of our business
  const stream = createGunzip({ chunkSize: PIECE_BYTES, finishFlush: constants.Z_SYNC_FLUSH })
  stream.end(stored)
  try {
    for await (const piece of stream as AsyncIterable<Uint8Array>) {
      start.set(piece.subarray(0, size - done), done)
      done += Math.min(piece.length, size - done)
      if (done === size) break
    }
  } catch (cause) {
    throw Failure.corrupt('no gzip stream', { cause })
  }
  if (done < size) throw Failure.corrupt('the gzip stream ends early', { why: `it holds ${done} of ${size} bytes` })
  return start
}
