// zstd frames one after the other (RFC 8878), in memory.
import { createZstdDecompress } from 'node:zlib'
import { CHUNK_MAX_BYTES } from '../../tree/chunk.ts'

/** Between two files' contents stand one or two frames of headers; each costs a decompressor. */
const FRAMES_MAX = 100

/** Undefined: these are no zstd frames, too many, or such that decode to more than a chunk may have. */
export async function decodeFrames(stored: Uint8Array): Promise<Uint8Array | undefined> {
  const decoded: Uint8Array[] = []
  let bytes = 0
  let at = 0
  for (let frames = 0; at < stored.length; frames++) {
    if (frames === FRAMES_MAX) return undefined
    const frame = createZstdDecompress()
    frame.end(stored.subarray(at))
    try {
      for await (const piece of frame as AsyncIterable<Uint8Array>) {
        bytes += piece.length
        if (bytes > CHUNK_MAX_BYTES) return undefined
        decoded.push(piece)
      }
    } catch {
      return undefined // whoever reads these chunks is told
    }
    if (frame.bytesWritten === 0) return undefined // or this would never end
    at += frame.bytesWritten
  }
  return Buffer.concat(decoded)
}
