// The decoder: libdeflate, libzstd, lz4 and digests as WebAssembly (`wasm/codecs.c`), one instance a thread. An instance that
// trapped is never used again.
import { readFile } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { ChunkDigest } from '../image/digest.ts'
import type { Codec } from '../tree/chunk.ts'
import { type Decoded, type Decoder, streamOf } from './decoder.ts'
import { digestsOf, type Piece } from './digests.ts'
import { gunzipStart } from './gunzip.ts'
import { Instance } from './instance.ts'
import { inflateFrom } from './seed.ts'
import { processorHashes, Sha256 } from './sha256.ts'

/** The module as committed; the same relative to `src/codec/` and to `dist/codec/`. */
export const CODECS_WASM = new URL('../../wasm/codecs.wasm', import.meta.url)

// libdeflate decodes whole members only. Surplus is tar padding and the headers of entries without contents, 512 bytes each; a
// member with more is inflated once more, as a stream. It bounds what a hostile member costs, too.
const SURPLUS_MAX_BYTES = 2 ** 20
// Buffers are reused up to this size of the whole memory: 32 MiB decoded, and as much again for stored bytes and zstd's tables.
const KEPT_MEMORY_BYTES = 64 * 2 ** 20
// as in codecs.c
const MEMORY = -2
const SPACE = -3

/**
 * Compiles the module and tries it.
 * @throws whatever the file system or WebAssembly throws
 */
export async function loadCodecs(url: URL = CODECS_WASM): Promise<WebAssembly.Module> {
  const module = await WebAssembly.compile(await readFile(url))
  new Instance(module).blake3(new Uint8Array(0))
  return module
}

export class WasmDecoder implements Decoder {
  readonly #module: WebAssembly.Module
  readonly #sha256: Sha256
  #instance: Instance | undefined

  /** @param sha256 default: the fastest here */
  constructor(module: WebAssembly.Module, sha256?: Sha256) {
    this.#module = module
    this.#sha256 = sha256 ?? new Sha256(processorHashes() ? null : (four) => this.#use().sha256(four))
  }

  async decode(codec: Codec, stored: Uint8Array, size: number): Promise<Decoded> {
    const stream = streamOf(codec)
    // libdeflate decodes from the beginning of a stream only
    if (codec.name === 'gzip' && codec.seed) return inflateFrom(codec.seed, stored, size)
    let made: Decoded | typeof SPACE
    try {
      made = decodeIn(this.#use(), stream, stored, size)
    } catch (error) {
      // after a trap, or a bad pointer, nothing in its memory can be relied on
      if (!(error instanceof Failure)) this.#instance = undefined
      if (!(error instanceof WebAssembly.RuntimeError || error instanceof RangeError)) throw error
      throw Failure.corrupt(`the ${stream} decoder trapped`, { cause: error })
    }
    if (made !== SPACE) return made
    const copy = stored.slice()
    return { stored: copy, decoded: await gunzipStart(copy, size) }
  }

  digests(pieces: readonly Piece[]): ChunkDigest[] {
    return digestsOf(pieces, {
      sha256: (all) => this.#sha256.digests(all),
      blake3: (bytes) => this.#use().blake3(bytes),
    })
  }

  release(): void {
    if (this.#instance && this.#instance.exports.memory.buffer.byteLength > KEPT_MEMORY_BYTES)
      this.#instance = undefined
  }

  #use(): Instance {
    this.#instance ??= new Instance(this.#module)
    return this.#instance
  }
}

function decodeIn(instance: Instance, stream: Codec['name'], stored: Uint8Array, size: number): Decoded | typeof SPACE {
  const input = instance.reserve('input', stored.length)
  if (stream === 'none') {
    if (stored.length < size) throw tooShort(stream, stored.length, size)
    instance.view(input.pointer, stored.length).set(stored)
    const copy = instance.view(input.pointer, stored.length)
    return { stored: copy, decoded: copy.subarray(0, size) }
  }
  const capacity = stream === 'lz4' ? size : size + SURPLUS_MAX_BYTES
  const output = instance.reserve('output', capacity)
  instance.view(input.pointer, stored.length).set(stored)
  const decode = { gzip: 'gunzip', zstd: 'unzstd', lz4: 'unlz4' } as const
  const length = instance.exports[decode[stream]](input.pointer, stored.length, output.pointer, capacity, size)
  if (length === SPACE) return SPACE
  if (length === MEMORY) throw Failure.limit('decoding takes more than 256 MiB of memory')
  if (length < 0) throw Failure.corrupt(`no ${stream} stream`, { why: 'the stored bytes cannot be decoded' })
  if (length < size) throw tooShort(stream, length, size)
  return { stored: instance.view(input.pointer, stored.length), decoded: instance.view(output.pointer, size) }
}

function tooShort(stream: Codec['name'], length: number, size: number): Failure {
  return Failure.corrupt(`the ${stream} stream ends early`, { why: `it holds ${length} of ${size} bytes` })
}
