// The decoder where `wasm/codecs.wasm` cannot be instantiated: zstd-codec for zstd, node:zlib for gzip, own
// TypeScript for lz4 and BLAKE3. Slower, same results.
import { createRequire } from 'node:module'
import { Failure } from '../errors.ts'
import type { ChunkDigest } from '../image/digest.ts'
import type { Codec } from '../tree/chunk.ts'
import { blake3 } from './blake3.ts'
import { type Decoded, type Decoder, streamOf } from './decoder.ts'
import { digestsOf, type Piece } from './digests.ts'
import { gunzipStart } from './gunzip.ts'
import { inflateFrom } from './seed.ts'
import { Sha256 } from './sha256.ts'
import { unlz4 } from './unlz4.ts'

interface ZstdStream {
  begin(): boolean
  /** Calls back with pieces of the decoded bytes, each valid during the call. */
  transform(stored: Uint8Array, made: (piece: Uint8Array) => void): boolean
  end(made: (piece: Uint8Array) => void): boolean
  delete(): void
}
interface Binding {
  ZstdDecompressStreamBinding: new () => ZstdStream
}

// zstd-codec cannot be stopped within a piece: of a bomb, 1 KiB is at most 256 blocks of 4 bytes (RFC 8878 3.1.1.2) that hold
// 128 KiB each, 32 MiB, which are dropped as they come.
const PIECE_BYTES = 1024

class FallbackDecoder implements Decoder {
  readonly #sha256 = new Sha256(null)
  #binding: Promise<Loaded>

  constructor() {
    this.#binding = loadBinding()
  }

  async decode(codec: Codec, stored: Uint8Array, size: number): Promise<Decoded> {
    const stream = streamOf(codec)
    if (codec.name === 'gzip' && codec.seed) return inflateFrom(codec.seed, stored, size)
    const copy = stored.slice()
    if (stream === 'gzip') return { stored: copy, decoded: await gunzipStart(copy, size) }
    if (stream === 'zstd') return { stored: copy, decoded: await this.#unzstdStart(copy, size) }
    if (stream === 'lz4') return { stored: copy, decoded: unlz4(copy, size) }
    if (copy.length < size) {
      throw Failure.corrupt('the none stream ends early', { why: `it holds ${copy.length} of ${size} bytes` })
    }
    return { stored: copy, decoded: copy.subarray(0, size) }
  }

  digests(pieces: readonly Piece[]): ChunkDigest[] {
    return digestsOf(pieces, { sha256: (all) => this.#sha256.digests(all), blake3 })
  }

  release(): void {
    // every chunk has its own buffers
  }

  async #unzstdStart(stored: Uint8Array, size: number): Promise<Uint8Array> {
    const { binding } = await this.#binding
    try {
      return unzstdStart(binding, stored, size)
    } catch (error) {
      if (error instanceof Failure) throw error
      // it aborted: its heap is 16 MiB once and for all, and is not to be used again
      this.#binding = loadBinding()
      throw Failure.limit('decoding takes more memory than zstd-codec has', { cause: error })
    }
  }
}

function unzstdStart(binding: Binding, stored: Uint8Array, size: number): Uint8Array {
  const start = new Uint8Array(size)
  let done = 0
  const keep = (piece: Uint8Array) => {
    start.set(piece.subarray(0, size - done), done)
    done += Math.min(piece.length, size - done)
  }
  const stream = new binding.ZstdDecompressStreamBinding()
  let fine = stream.begin()
  for (let at = 0; fine && at < stored.length && done < size; at += PIECE_BYTES) {
    fine = stream.transform(stored.subarray(at, at + PIECE_BYTES), keep)
  }
  if (fine && done < size) fine = stream.end(keep)
  stream.delete()
  if (done === size) return start
  // zstd-codec gives no reasons
  if (!fine) throw Failure.corrupt('no zstd stream', { why: 'the stored bytes cannot be decoded' })
  throw Failure.corrupt('the zstd stream ends early', { why: `it holds ${done} of ${size} bytes` })
}

/** zstd-codec is 700 KB of JavaScript and WebAssembly of its own, loaded when a decoder is made. */
export function fallbackDecoder(): Decoder {
  return new FallbackDecoder()
}

interface Loaded {
  // emscripten's module has a `then` that calls back with itself: as a promise's own value it would never settle
  binding: Binding
}

function loadBinding(): Promise<Loaded> {
  // its public API collects everything that the input decodes to; the binding beneath it can be stopped
  const { run } = createRequire(import.meta.url)('zstd-codec/lib/module.js') as {
    run(ready: (of: Binding) => void): void
  }
  return new Promise((resolve) => run((binding) => resolve({ binding })))
}
