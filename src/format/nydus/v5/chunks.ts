// The chunks of a RAFS v5 image, collected file by file. A record says where in the file its chunk lies; what none covers is zeros.
import { Failure } from '../../../errors.ts'
import { type Extent, ZEROS } from '../../../tree/entry.ts'
import type { RafsBytes } from '../bytes.ts'
import { CHUNK, RECORD_BYTES, recordAt } from '../chunk-record.ts'
import { type ChunkRecord, RAFS_CHUNKS_MAX, type RafsBlob, type RafsChunk } from '../rafs.ts'
import type { Inode5 } from './inode.ts'

/** The chunk is zeros and stored nowhere. */
const HOLE = 0x2

export class Chunks5 {
  /** Each once, in the order of their first use. */
  readonly chunks: RafsChunk[] = []
  readonly #numbers = new Map<string, number>()
  readonly #digesters: readonly RafsBlob['digester'][]
  readonly #chunkSize: number
  #records = 0

  /** @param chunkSize the most bytes of one */
  constructor(blobs: readonly RafsBlob[], chunkSize: number) {
    this.#digesters = blobs.map(({ digester }) => digester)
    this.#chunkSize = chunkSize
  }

  /** @param from names the inode in errors @throws Failure corrupt, limit, unsupported */
  extentsOf({ chunks: { start, end }, size }: Pick<Inode5, 'chunks' | 'size'>, from: RafsBytes): Extent[] {
    const extents: Extent[] = []
    let at = 0
    const skipTo = (next: number) => {
      if (next > at) extents.push({ at, chunk: ZEROS, offset: 0, length: next - at })
      at = next
    }
    for (let next = start; next < end; next += RECORD_BYTES) {
      if (++this.#records > RAFS_CHUNKS_MAX) throw Failure.limit(`${from.what}: more than ${RAFS_CHUNKS_MAX} chunks`)
      const record = recordAt(from, next, this.#digesters)
      const { fileOffset, flags } = record
      const what = () => `${from.what}: its chunk of ${record.size} bytes at ${fileOffset}`
      if (fileOffset < at) throw Failure.corrupt(`${what()} overlaps the one before it, which ends at ${at}`)
      if (fileOffset + record.size > size) throw Failure.corrupt(`${what()} is not inside its ${size} bytes`)
      if (record.size > this.#chunkSize)
        throw Failure.corrupt(`${what()} is larger than the image's, of ${this.#chunkSize} bytes`)
      if (flags & CHUNK.batch) throw Failure.unsupported(`${what()} is part of a batch, which RAFS v5 has no table of`)
      skipTo(fileOffset)
      if (flags & HOLE) continue
      extents.push({ at, chunk: this.#numberOf(record), offset: 0, length: record.size })
      at += record.size
    }
    skipTo(size)
    return extents
  }

  /** The numbers that records give their chunks are not relied upon: the oldest writers did not count. */
  #numberOf(record: ChunkRecord): number {
    const { blob, index, digest, flags, stored, size } = record
    const key = `${blob} ${stored.start} ${stored.end} ${size} ${flags & CHUNK.compressed} ${digest}`
    const known = this.#numbers.get(key)
    if (known !== undefined) return known
    const number = this.chunks.push({ blob, index, size, record }) - 1
    this.#numbers.set(key, number)
    return number
  }
}
