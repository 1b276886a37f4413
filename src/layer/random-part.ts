// A part of a layer that nobody can foresee, from its registry: that it comes, and is right, shows that the registry has the layer and gives
// it to whoever asks with these credentials. A digest would show neither; nor would the index, which tells the digests of all chunks.
//
// A cache has chunks as programs read them, and the registry has them compressed. So the part is whole chunks, 4 KiB or more of what the
// registry stores, which are decoded and checked by their digests. Of a layer that is kept as a blob it is any bytes of that.
import { randomInt } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import type { CodecPool } from '../codec/pool.ts'
import { Failure } from '../errors.ts'
import { runs } from '../fetch/plan.ts'
import { LIMITS } from '../fetch/requests.ts'
import type { Blob } from '../image/blob.ts'
import type { Store } from '../store/store.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { BlobOf } from './trees.ts'

const PART_MIN_BYTES = 4 << 10
/** Of small ones, that many have 4 KiB, or are enough. */
const CHUNKS_MAX = 256
/** Of a blob that is kept: as little as costs a round trip, and no more. */
const BLOB_PART_BYTES = 16 << 10

/** @throws Failure corrupt: another part; what reading it throws */
export async function showChunks(
  chunks: ChunkTable,
  blobOf: BlobOf,
  { codecs, store }: { codecs: CodecPool; store: Pick<Store, 'unnamed'> },
  signal: AbortSignal,
): Promise<void> {
  const wanted = randomChunks(chunks).map((index) => ({
    index,
    blob: chunks.blobOf(index),
    stored: chunks.storedRange(index),
  }))
  if (wanted.length === 0) return // nothing is shown that anybody could lack
  // what is decoded is thrown away: the device has it, or will have it from elsewhere
  const files = await Promise.all([store.unnamed(new Uint8Array()), store.unnamed(new Uint8Array())])
  try {
    const [{ fd: deviceFd }, { fd: readyFd }] = files
    for (const { blob, range, chunks: numbers } of runs(wanted, LIMITS.demand)) {
      const bytes = await blobOf(chunks.blobs[blob] as (typeof chunks.blobs)[0]).read(range, { signal })
      for (const number of numbers) {
        const chunk = chunks.get(number)
        const stored = bytes.slice(chunk.stored.start - range.start, chunk.stored.end - range.start)
        await codecs.decode(chunk, stored, { deviceFd, readyFd, chunk: 0 }, { priority: 'demand', signal })
      }
    }
  } finally {
    await Promise.all(files.map((each) => each.close()))
  }
}

/** From a stored byte on, each of which is as likely as any other. */
function randomChunks(chunks: ChunkTable): number[] {
  const { storedStart, storedEnd } = chunks.columns
  let all = 0
  for (let i = 0; i < chunks.length; i++) all += (storedEnd[i] as number) - (storedStart[i] as number)
  if (all === 0) return []
  let left = randomUpTo(all)
  let at = 0
  for (; left >= (storedEnd[at] as number) - (storedStart[at] as number); at++) {
    left -= (storedEnd[at] as number) - (storedStart[at] as number)
  }
  const found: number[] = []
  let bytes = 0
  for (let i = 0; i < Math.min(chunks.length, CHUNKS_MAX) && bytes < PART_MIN_BYTES; i++) {
    const index = (at + i) % chunks.length
    found.push(index)
    bytes += (storedEnd[index] as number) - (storedStart[index] as number)
  }
  return found
}

/** @param file the blob, of which every byte is here @throws Failure corrupt: another part; what reading it throws */
export async function showBytes(blob: Blob, file: FileHandle, signal: AbortSignal): Promise<void> {
  const length = Math.min(blob.size, BLOB_PART_BYTES)
  const start = randomUpTo(blob.size - length + 1)
  const [theirs, { buffer, bytesRead }] = await Promise.all([
    blob.read({ start, end: start + length }, { signal }),
    file.read(new Uint8Array(length), 0, length, start),
  ])
  if (bytesRead === length && Buffer.compare(theirs, buffer) === 0) return
  throw Failure.corrupt(`blob ${blob.digest}: bytes ${start} to ${start + length} are others than those of the digest`)
}

/** Below 2^48, which nothing here comes near. */
function randomUpTo(end: number): number {
  return end <= 1 ? 0 : randomInt(end)
}
