// A layer's stored bytes -> its tar, as engines decompress it: by what the bytes begin with, whatever the manifest says.
import { fstatSync, readSync } from 'node:fs'
import { createGunzip, createZstdDecompress, zstdDecompressSync } from 'node:zlib'
import { Failure } from '../../errors.ts'
import { frameAt } from '../zstd-frame.ts'

/** Enough that a call costs little beside what it reads. */
const READ_BYTES = 1 << 20
/** Some layers have a frame or two a file. What is smaller than that, stored and decoded, is decoded in one call. */
const SMALL_STORED_BYTES = 1 << 20
const SMALL_DECODED_BYTES = 8 << 20
/** Read ahead where headers are looked at: some frames, or a part of a block. */
const WINDOW_BYTES = 64 << 10

const GZIP_MAGIC = 0x8b1f
const ZSTD_MAGIC = 0xfd2fb528
/** RFC 8878 3.1.2: 0x184d2a50 … 0x184d2a5f, then the length of what is to be skipped. */
const SKIPPABLE_MAGIC = 0x184d2a5
const SKIPPABLE_HEADER_BYTES = 8

/**
 * Pieces of the tar, in order; runs in a worker, where waiting for the disk disturbs nobody.
 * @param fd of a file that holds the blob and nothing else
 * @throws Failure corrupt
 */
export async function* storedTar(fd: number, what: string): AsyncIterable<Uint8Array> {
  const { size } = fstatSync(fd)
  try {
    const magic = new Window(fd).word(0)
    if ((magic & 0xffff) === GZIP_MAGIC) yield* decompressed(createGunzip({ chunkSize: READ_BYTES }), fd, 0, size)
    else if (magic === ZSTD_MAGIC || isSkippable(magic)) yield* zstdFrames(fd, size)
    else yield* piecesOf(fd, 0, size)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw Failure.corrupt(`${what}: it cannot be decompressed`, { cause })
  }
}

/** Each by a decompressor of its own, which is given the frame and nothing else: Node's fails some time after what follows one. */
async function* zstdFrames(fd: number, size: number): AsyncIterable<Uint8Array> {
  const window = new Window(fd)
  for (let at = 0; at < size; ) {
    const magic = window.word(at)
    if (isSkippable(magic)) {
      at += SKIPPABLE_HEADER_BYTES + window.word(at + 4)
      continue
    }
    if (magic !== ZSTD_MAGIC) throw Failure.corrupt(`no zstd frame stands at ${at}`)
    const { end, maxBytes } = frameAt(at, (from, length) => window.bytes(from, length), size)
    if (end - at <= SMALL_STORED_BYTES && maxBytes <= SMALL_DECODED_BYTES) {
      const stored = window.holds(at, end) ? window.bytes(at, end - at) : readAt(fd, at, end - at)
      yield zstdDecompressSync(stored, { maxOutputLength: maxBytes })
    } else {
      yield* decompressed(createZstdDecompress({ chunkSize: READ_BYTES }), fd, at, end)
    }
    at = end
  }
}

/** A piece of a file that moves on. What lies behind the file's end is zero. */
class Window {
  readonly #fd: number
  #from = 0
  #read: Uint8Array = new Uint8Array()

  constructor(fd: number) {
    this.#fd = fd
  }

  holds(start: number, end: number): boolean {
    return start >= this.#from && end <= this.#from + this.#read.length
  }

  /** @param length WINDOW_BYTES at most */
  bytes(at: number, length: number): Uint8Array {
    if (!this.holds(at, at + length)) {
      this.#read = readAt(this.#fd, at, WINDOW_BYTES)
      this.#from = at
    }
    return this.#read.subarray(at - this.#from, at - this.#from + length)
  }

  word(at: number): number {
    const bytes = this.bytes(at, 4)
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
  }
}

async function* decompressed(
  by: ReturnType<typeof createGunzip>,
  fd: number,
  from: number,
  size: number,
): AsyncIterable<Uint8Array> {
  const feed = async () => {
    for (const piece of piecesOf(fd, from, size)) {
      if (by.writable && !by.write(piece)) await drained(by)
      if (!by.writable) return
    }
    by.end()
  }
  feed().catch((error) => by.destroy(error))
  by.on('error', () => {}) // the reader is told; what is wrong behind the end comes when there is none any more
  yield* by
}

/** Or ended: then nothing more is wanted. */
function drained(by: ReturnType<typeof createGunzip>): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      by.off('drain', done).off('close', done)
      resolve()
    }
    by.on('drain', done).on('close', done)
  })
}

function* piecesOf(fd: number, from: number, size: number): Iterable<Uint8Array> {
  for (let at = from; at < size; ) {
    const piece = new Uint8Array(Math.min(READ_BYTES, size - at)) // of its own: who takes it keeps it for a while
    const read = readSync(fd, piece, 0, piece.length, at)
    if (read === 0) return
    yield piece.subarray(0, read)
    at += read
  }
}

/** What lies behind the end is zero. */
function readAt(fd: number, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let got = 0; got < length; ) {
    const read = readSync(fd, bytes, got, length - got, at + got)
    if (read === 0) break
    got += read
  }
  return bytes
}

function isSkippable(magic: number): boolean {
  return magic >>> 4 === SKIPPABLE_MAGIC
}
