// The beginning of gzip and deflate streams by node:zlib, in memory bounded by what is wanted: for streams that hold far more than
// that, or that begin in the middle.
import { constants, createGunzip, createInflateRaw, type Gunzip, type InflateRaw } from 'node:zlib'
import { Failure } from '../errors.ts'

const CHUNK_MIN_BYTES = 64 // zlib.constants.Z_MIN_CHUNK

/**
 * The first `size` bytes that `stored` inflates to. What follows them is not looked at, but for less than 64 bytes.
 * @throws Failure corrupt
 */
export async function gunzipStart(stored: Uint8Array, size: number): Promise<Uint8Array> {
  const { made } = await start(createGunzip(options(size)), stored, size)
  if (made.length < size) throw endsEarly(made.length, size)
  return made
}

/**
 * The first `size` bytes of a deflate stream (RFC 1951), or all of them when it ends before, and how many bytes of `stored` that took.
 * @param dictionary what came before, at most 32 KiB
 * @throws Failure corrupt
 */
export function inflateStart(
  stored: Uint8Array,
  size: number,
  dictionary: Uint8Array,
): Promise<{ made: Uint8Array; used: number }> {
  return start(createInflateRaw({ ...options(size), ...(dictionary.length > 0 && { dictionary }) }), stored, size)
}

export function endsEarly(length: number, size: number): Failure {
  return Failure.corrupt('the gzip stream ends early', { why: `it holds ${length} of ${size} bytes` })
}

// One output buffer that the wanted bytes just fill: zlib stops there, and no error further on can take them away.
// finishFlush: a stream that is cut after them is none of our business.
function options(size: number) {
  return { chunkSize: Math.max(size, CHUNK_MIN_BYTES), finishFlush: constants.Z_SYNC_FLUSH }
}

function start(
  stream: Gunzip | InflateRaw,
  stored: Uint8Array,
  size: number,
): Promise<{ made: Uint8Array; used: number }> {
  return new Promise((resolve, reject) => {
    let made: Uint8Array = new Uint8Array(0)
    const settle = () => {
      resolve({ made: made.subarray(0, size), used: stream.bytesWritten })
      stream.destroy()
    }
    stream.on('data', (piece: Uint8Array) => {
      made = made.length === 0 ? piece : Buffer.concat([made, piece])
      if (made.length >= size) settle()
    })
    stream.on('end', settle)
    stream.on('error', (cause) => reject(Failure.corrupt('no gzip stream', { cause })))
    stream.end(stored)
  })
}
