// A layer's stored bytes -> its tar, as engines decompress it: by what the bytes begin with, whatever the manifest says.
import { fstatSync, readSync } from 'node:fs'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { Failure } from '../errors.ts'

/** Enough that a call costs little beside what it reads. */
const READ_BYTES = 1 << 20
/** Some layers have a frame a file, and each frame has a buffer of its own. */
const FRAME_BYTES = 64 << 10

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
    const magic = wordAt(fd, 0)
    if ((magic & 0xffff) === GZIP_MAGIC) yield* decompressed(createGunzip({ chunkSize: READ_BYTES }), fd, 0, size)
    else if (magic === ZSTD_MAGIC || isSkippable(magic)) yield* zstdFrames(fd, size)
    else yield* piecesOf(fd, 0, size)
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw Failure.corrupt(`${what}: it cannot be decompressed`, { cause })
  }
}

/** Node's decompressor ends with a frame, and says how far it came. */
async function* zstdFrames(fd: number, size: number): AsyncIterable<Uint8Array> {
  for (let at = 0; at < size; ) {
    if (isSkippable(wordAt(fd, at))) {
      at += SKIPPABLE_HEADER_BYTES + wordAt(fd, at + 4)
      continue
    }
    const frame = createZstdDecompress({ chunkSize: FRAME_BYTES })
    yield* decompressed(frame, fd, at, size)
    if (frame.bytesWritten === 0) throw Failure.corrupt(`its frame at ${at} is empty`) // or this would never end
    at += frame.bytesWritten
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

/** Little-endian, 32 bits; what lies behind the end is zero. */
function wordAt(fd: number, at: number): number {
  const bytes = new Uint8Array(4)
  readSync(fd, bytes, 0, bytes.length, at)
  return new DataView(bytes.buffer).getUint32(0, true)
}

function isSkippable(magic: number): boolean {
  return magic >>> 4 === SKIPPABLE_MAGIC
}
