// The chunks that a RAFS v6 bootstrap's files name, and what its chunk table says of them: that table is at its end, and writers may leave
// it out.
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import type { RafsBytes } from '../bytes.ts'
import { RECORD_BYTES, recordAt } from '../chunk-record.ts'
import { type ChunkRecord, RAFS_CHUNK_NUMBERS, RAFS_CHUNKS_MAX, type RafsBlob, type RafsChunk } from '../rafs.ts'
import type { Address } from './inode.ts'

export class Chunks6 {
  readonly #blobs: readonly RafsBlob[]
  /** By their keys. */
  readonly #records: ReadonlyMap<number, ChunkRecord>
  readonly #numbers = new Map<number, number>()
  /** In the order in which they were named first. */
  readonly all: RafsChunk[] = []

  /** @throws Failure corrupt, limit, unsupported */
  constructor(from: RafsBytes, blobs: readonly RafsBlob[], table: Range) {
    this.#blobs = blobs
    this.#records = recordsIn(from.within('chunk table'), blobs, table)
  }

  /**
   * The number in `all` of the chunk at `address`.
   * @param size bytes of it that a file has
   * @param of names the file in errors
   * @throws Failure corrupt
   */
  numberOf(address: Address, size: number, of: { readonly what: string }): number {
    const { blob, index } = address
    if (this.#blobs[blob] === undefined) {
      throw Failure.corrupt(`${of.what}: it has a chunk of blob ${blob} of ${this.#blobs.length}`)
    }
    const key = keyOf(address)
    const known = this.#numbers.get(key)
    const number = known ?? this.all.length
    if (known === undefined) {
      const record = this.#records.get(key)
      this.#numbers.set(key, number)
      this.all.push({ blob, index, size: record?.size ?? size, record })
    }
    const chunk = this.all[number] as RafsChunk // that is where it is
    if (chunk.record === undefined) chunk.size = Math.max(chunk.size, size)
    if (chunk.size < size) {
      throw Failure.corrupt(`${of.what}: chunk ${index} of blob ${blob} has ${chunk.size} bytes, not ${size}`)
    }
    return number
  }
}

function recordsIn(from: RafsBytes, blobs: readonly RafsBlob[], { start, end }: Range): Map<number, ChunkRecord> {
  const count = (end - start) / RECORD_BYTES
  if (count > RAFS_CHUNKS_MAX)
    throw Failure.limit(`${from.what}: ${count} chunks, at most ${RAFS_CHUNKS_MAX} are accepted`)
  const digesters = blobs.map(({ digester }) => digester)
  const records = new Map<number, ChunkRecord>()
  for (let at = start; at < end; at += RECORD_BYTES) {
    const record = recordAt(from, at, digesters)
    const key = keyOf(record)
    if (records.has(key)) {
      throw Failure.corrupt(
        `${from.what}: the record at ${at} is a second one of chunk ${record.index} of blob ${record.blob}`,
      )
    }
    records.set(key, record)
  }
  return records
}

function keyOf({ blob, index }: Address): number {
  return blob * RAFS_CHUNK_NUMBERS + index
}
