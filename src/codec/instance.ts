// `wasm/codecs.wasm` with a memory of its own, which the module caps at 256 MiB, and regions of it that are used again.
import { Failure } from '../errors.ts'

const PAGE_BYTES = 64 * 1024

type DecodeFunction = (from: number, length: number, to: number, capacity: number, want: number) => number

/** What codecs.c exports; see there. */
interface Exports {
  memory: WebAssembly.Memory
  _initialize(): void
  malloc(bytes: number): number
  free(pointer: number): void
  gunzip: DecodeFunction
  unzstd: DecodeFunction
  unlz4: DecodeFunction
  blake3(from: number, length: number, to: number): void
  /** Pointer and length four times, then where the digests go. */
  sha256x4(...pointers: number[]): void
}

interface Region {
  pointer: number
  capacity: number
}

const DIGEST_BYTES = 32
const LANES = 4

export class Instance {
  readonly exports: Exports
  readonly #regions: Record<'input' | 'output' | 'digests', Region> = {
    input: { pointer: 0, capacity: 0 },
    output: { pointer: 0, capacity: 0 },
    digests: { pointer: 0, capacity: 0 },
  }

  constructor(module: WebAssembly.Module) {
    this.exports = new WebAssembly.Instance(module).exports as unknown as Exports // what codecs.c exports
    this.exports._initialize()
    // now: memory that grows moves, and views of it that wait to be hashed would be lost
    this.reserve('digests', LANES * DIGEST_BYTES)
  }

  /** At least `bytes` bytes of its memory; the same region as before unless that was smaller. */
  reserve(name: 'input' | 'output' | 'digests', bytes: number): Region {
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

  /** Copied; 32 bytes. Bytes from elsewhere go to the input region. */
  blake3(bytes: Uint8Array): Uint8Array {
    const [from] = this.#pointers([bytes])
    const { pointer } = this.reserve('digests', DIGEST_BYTES)
    this.exports.blake3(from as number, bytes.length, pointer)
    return this.view(pointer, DIGEST_BYTES).slice()
  }

  /** SHA-256 of four pieces, as `blake3`. The time is that of the longest. */
  sha256(four: readonly Uint8Array[]): Uint8Array[] {
    const lengths = four.map((bytes) => bytes.length) // before anything moves
    const messages = this.#pointers(four).flatMap((pointer, i) => [pointer, lengths[i] as number])
    const { pointer } = this.reserve('digests', LANES * DIGEST_BYTES)
    this.exports.sha256x4(...messages, pointer)
    return four.map((_, i) => this.view(pointer + i * DIGEST_BYTES, DIGEST_BYTES).slice())
  }

  /** Where they lie in its memory, to which they are copied unless all of them lie there. */
  #pointers(pieces: readonly Uint8Array[]): number[] {
    const { buffer } = this.exports.memory
    if (pieces.every((piece) => piece.buffer === buffer)) return pieces.map(({ byteOffset }) => byteOffset)
    // the input region may be what some of them lie in
    const outside = pieces.map((piece) => (piece.buffer === buffer ? piece.slice() : piece))
    let at = this.reserve(
      'input',
      outside.reduce((sum, { length }) => sum + length, 0),
    ).pointer
    return outside.map((piece) => {
      const pointer = at
      this.view(pointer, piece.length).set(piece)
      at += piece.length
      return pointer
    })
  }
}
