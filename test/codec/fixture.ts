// Chunks and the two files of a device, for the tests of the codecs.
import { randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import type { Slot } from '../../src/codec/job.ts'
import { digestOf } from '../../src/image/digest.ts'
import type { Chunk, Codec } from '../../src/tree/chunk.ts'
import { READY_HEADER_BYTES } from '../../src/tree/ready.ts'
import { lz4Block } from '../fixtures/lz4.ts'

/** Codecs that need nothing beside the chunk's own bytes. */
export type Plain = Codec['name']

/** `size` bytes that compress, but not to nothing. */
export function text(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size)
  let state = seed >>> 0
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = 97 + ((state >>> 24) % (1 + (i % 23)))
  }
  return bytes
}

export function store(codec: Plain, bytes: Uint8Array): Uint8Array {
  if (codec === 'gzip') return gzipSync(bytes, { level: 9 })
  if (codec === 'zstd') return zstdCompressSync(bytes)
  if (codec === 'lz4') return lz4Block(bytes)
  return Uint8Array.from(bytes)
}

/** A chunk of one file: one check over all, one place at `at`. */
export function chunkOf(codec: Plain, bytes: Uint8Array, stored: Uint8Array, changes: Partial<Chunk> = {}): Chunk {
  return {
    blob: 0,
    stored: { start: 4096, end: 4096 + stored.length },
    size: bytes.length,
    codec: { name: codec },
    checks: [{ of: 'decoded', range: { start: 0, end: bytes.length }, digest: digestOf(bytes) }],
    places: [{ from: 0, length: bytes.length, at: 8192 }],
    ...changes,
  }
}

export class Device implements Disposable {
  readonly #dir = mkdtempSync(join(tmpdir(), 'codec-'))
  readonly deviceFd: number
  readonly readyFd: number

  constructor() {
    this.deviceFd = openSync(join(this.#dir, 'device'), 'w+')
    this.readyFd = openSync(join(this.#dir, 'ready'), 'w+')
  }

  slot(chunk = 0): Slot {
    return { deviceFd: this.deviceFd, readyFd: this.readyFd, chunk }
  }

  /** The ready byte; 0 where nothing was ever written. */
  ready(chunk = 0): number {
    return readFileSync(join(this.#dir, 'ready'))[READY_HEADER_BYTES + chunk] ?? 0
  }

  setReady(state: number, chunk = 0): void {
    writeSync(this.readyFd, Uint8Array.of(state), 0, 1, READY_HEADER_BYTES + chunk)
  }

  read(at: number, length: number): Uint8Array {
    return Uint8Array.from(readFileSync(join(this.#dir, 'device')).subarray(at, at + length))
  }

  write(at: number, bytes: Uint8Array): void {
    writeSync(this.deviceFd, bytes, 0, bytes.length, at)
  }

  /** Another descriptor of the device that cannot be written. */
  openReadOnly(): number {
    return openSync(join(this.#dir, 'device'), 'r')
  }

  [Symbol.dispose](): void {
    closeSync(this.deviceFd)
    closeSync(this.readyFd)
    rmSync(this.#dir, { recursive: true })
  }
}

export function noise(size: number): Uint8Array {
  return new Uint8Array(randomBytes(size))
}
