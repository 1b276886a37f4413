// The beginning of a gzip stream by node:zlib, in memory bounded by what is wanted: for members that hold far more than that.
import { constants, createGunzip } from 'node:zlib'
import { Failure } from '../errors.ts'

const CHUNK_MIN_BYTES = 64 // zlib.constants.Z_MIN_CHUNK

/**
 * The first `size` bytes that `stored` inflates to. What follows them is not looked at, but for less than 64 bytes.
 * @throws Failure corrupt
 */
export function gunzipStart(stored: Uint8Array, size: number): Promise<Uint8Array> {
  // One output buffer that the wanted bytes just fill: zlib stops there, and no error further on can take them away.
  // finishFlush: a stream that is cut after them is none of our business.
  const stream = createGunzip({ chunkSize: Math.max(size, CHUNK_MIN_BYTES), finishFlush: constants.Z_SYNC_FLUSH })
  return new Promise((resolve, reject) => {
    stream.on('data', (piece: Uint8Array) => {
      if (piece.length >= size) resolve(piece.subarray(0, size))
      else reject(Failure.corrupt('the gzip stream ends early', { why: `it holds ${piece.length} of ${size} bytes` }))
      stream.destroy()
    })
    stream.on('end', () => reject(Failure.corrupt('the gzip stream ends early', { why: 'it holds nothing' })))
    stream.on('error', (cause) => reject(Failure.corrupt('no gzip stream', { cause })))
    stream.end(stored)
  })
}
