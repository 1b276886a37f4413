// The decoder: libdeflate and libzstd as WebAssembly (`wasm/codecs.c`), one instance a thread. Memory is capped by the module
// at 256 MiB; an instance that trapped is never used again.
import { readFile } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Codec } from '../tree/chunk.ts'
import { type Decoded, type Decoder, plainStream } from './decoder.ts'
import { gunzipStart } from './gunzip.ts'

/** The module as committed; the same relative to `src/codec/` and to `dist/codec/`. */
export const CODECS_WASM = new URL('../../wasm/codecs.wasm', import.meta.url)

// libdeflate decodes whole members only. Surplus is tar padding and the headers of entries without contents, 512 bytes each; a
// member with more is inflated once more, as a stream. It bounds what a hostile member costs, too.
const SURPLUS_MAX_BYTES = 2 ** 20
// Buffers are reused up to this size of the whole memory: 32 MiB decoded, and as much again for stored bytes and zstd's tables.
const KEPT_MEMORY_BYTES = 64 * 2 ** 20
const PAGE_BYTES = 64 * 1024

// as in codecs.c
const MEMORY = -2
const SPACE = -3

type Stream = ReturnType<typeof plainStream>
type DecodeFunction = (from: number, length: number, to: number, capacity: number, want: number) => number

interface Exports {
  memory: WebAssembly.Memory
  _initialize(): void
  malloc(bytes: number): number
  free(pointer: number): void
  gunzip: DecodeFunction
  unzstd: DecodeFunction
}

interface Region {
  pointer: number
  capacity: number
}

/**
 * Compiles the module and tries it.
 * @throws whatever the file system or WebAssembly throws
 */
export async function loadCodecs(url: URL = CODECS_WASM): Promise<WebAssembly.Module> {
  const module = await WebAssembly.compile(await readFile(url))
  new Instance(module).reserve('output', PAGE_BYTES)
  return module
}

class Instance {
  readonly exports: Exports
  readonly #regions: Record<'input' | 'output', Region> = {
    input: { pointer: 0, capacity: 0 },
    output: { pointer: 0, capacity: 0 },
  }

  constructor(module: WebAssembly.Module) {
    this.exports = new WebAssembly.Instance(module).exports as unknown as Exports // what codecs.c exports
    this.exports._initialize()
  }

  /** At least `bytes` bytes of its memory; the same region as before unless that was smaller. */
  reserve(name: 'input' | 'output', bytes: number): Region {
    const region = this.#regions[name]
    if (region.capacity >= bytes) return region
    this.exports.free(region.pointer)
    region.capacity = 0
    const capacity = Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
    region.pointer = this.exports.malloc(capacity)
    if (region.pointer === 0) throw Failure.limit('decoding takes more than 256 MiB of memory')
    region.capacity = capacity
    return region
  }

  view(pointer: number, length: number): Uint8Array {
    return new Uint8Array(this.exports.memory.buffer, pointer >>> 0, length)
  }
}

export class WasmDecoder implements Decoder {
  readonly #module: WebAssembly.Module
  #instance: Instance | undefined

  constructor(module: WebAssembly.Module) {
    this.#module = module
  }

  async decode(codec: Codec, stored: Uint8Array, size: number): Promise<Decoded> {
    const stream = plainStream(codec)
    this.#instance ??= new Instance(this.#module)
    let made: Decoded | typeof SPACE
    try {
      made = decodeIn(this.#instance, stream, stored, size)
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

  release(): void {
    if (this.#instance && this.#instance.exports.memory.buffer.byteLength > KEPT_MEMORY_BYTES)
      this.#instance = undefined
  }
}

function decodeIn(instance: Instance, stream: Stream, stored: Uint8Array, size: number): Decoded | typeof SPACE {
  const input = instance.reserve('input', stored.length)
  if (stream === 'none') {
    if (stored.length < size) throw tooShort(stream, stored.length, size)
    instance.view(input.pointer, stored.length).set(stored)
    const copy = instance.view(input.pointer, stored.length)
    return { stored: copy, decoded: copy.subarray(0, size) }
  }
  const capacity = size + SURPLUS_MAX_BYTES
  const output = instance.reserve('output', capacity)
  instance.view(input.pointer, stored.length).set(stored)
  const decode = stream === 'gzip' ? instance.exports.gunzip : instance.exports.unzstd
  const length = decode(input.pointer, stored.length, output.pointer, capacity, size)
  if (length === SPACE) return SPACE
  if (length === MEMORY) throw Failure.limit('decoding takes more than 256 MiB of memory')
  if (length < 0) throw Failure.corrupt(`no ${stream} stream`, { why: 'the stored bytes cannot be decoded' })
  if (length < size) throw tooShort(stream, length, size)
  return { stored: instance.view(input.pointer, stored.length), decoded: instance.view(output.pointer, size) }
}

function tooShort(stream: Stream, length: number, size: number): Failure {
  return Failure.corrupt(`the ${stream} stream ends early`, { why: `it holds ${length} of ${size} bytes` })
}
