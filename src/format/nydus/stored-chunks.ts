// The chunks of files -> what is fetched and decoded in one go: mostly a chunk, but a whole batch of small ones, and all that a gzip layer
// has from one checkpoint to the next.
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'
import type { ChunkDigest } from '../../image/digest.ts'
import {
  CHUNK_MAX_BYTES,
  CHUNK_STORED_MAX_BYTES,
  type Check,
  type Codec,
  GZIP,
  LZ4,
  NONE,
  type StoredChunk,
  ZSTD,
} from '../../tree/chunk.ts'
import { CHUNK } from './chunk-record.ts'
import { FEATURE } from './codes.ts'
import type { ContextRecord } from './context-table.ts'
import type { BlobTables } from './nydus-index.ts'
import type { Compressor, Rafs, RafsBlob, RafsChunk } from './rafs.ts'
import { RafsBlobTables } from './tables.ts'

/** A blob as the contents number it. */
interface Used {
  number: number
  size: number
}

/** Where a file's chunk is. */
interface Place {
  chunk: number
  offset: number
}

/** A batch, or what is decoded from a checkpoint, and the checks that gather in it. */
interface Together extends StoredChunk {
  checks: Check[]
}

export class StoredChunks {
  readonly #rafs: Rafs
  readonly #tables: RafsBlobTables
  readonly #used: ReadonlyMap<number, Used>
  readonly #what: string
  readonly #chunks: StoredChunk[] = []
  /** By blob and context: numbers of chunks. */
  readonly #together = new Map<string, number>()

  /** @param used by the bootstrap's numbers: the blobs that chunks are in */
  constructor(rafs: Rafs, tables: readonly BlobTables[], used: ReadonlyMap<number, Used>, what: string) {
    this.#rafs = rafs
    this.#tables = new RafsBlobTables(rafs, tables, what)
    this.#used = used
    this.#what = what
  }

  /** Where in what is fetched a chunk is. @throws Failure corrupt, limit, unsupported */
  add(chunk: RafsChunk): Place {
    const blob = this.#rafs.blobs[chunk.blob] as RafsBlob // parsers have looked
    const features = blob.features ?? 0
    const isTogether = (features & (FEATURE.batch | FEATURE.zran)) !== 0
    const { record } = chunk
    if (record !== undefined && !isTogether) {
      const { stored, size, flags, digest } = record
      return this.#single(chunk, blob, stored, size, (flags & CHUNK.compressed) !== 0, digest)
    }
    const found = this.#tables.context(chunk.blob).record(chunk.index)
    if (found.size < chunk.size)
      throw this.#corrupt(chunk, `${found.size} bytes in its blob's table, ${chunk.size} in the bootstrap`)
    const digest = record?.digest ?? this.#tables.digest(chunk)
    if (found.within === undefined) {
      if (features & FEATURE.zran) throw this.#corrupt(chunk, 'no checkpoint to decode it from')
      return this.#single(chunk, blob, found.stored, found.size, found.compressed, digest)
    }
    return this.#part(chunk, blob, found, found.within, digest)
  }

  finish(): StoredChunk[] {
    return this.#chunks
  }

  #single(
    chunk: RafsChunk,
    blob: RafsBlob,
    stored: Range,
    size: number,
    compressed: boolean,
    digest: ChunkDigest,
  ): Place {
    const codec = compressed ? codecOf(blob.compressor) : NONE
    const range = compressed && isLegacyGzip(blob) ? this.#legacyRange(chunk, stored.start, size) : stored
    if (codec === NONE && range.end - range.start !== size) {
      throw this.#corrupt(chunk, `it is stored as it is, in ${range.end - range.start} bytes of ${size}`)
    }
    const check: Check = { of: 'decoded', range: { start: 0, end: size }, digest }
    return { chunk: this.#push(chunk, { blob: 0, stored: range, size, codec, checks: [check] }), offset: 0 }
  }

  #part(
    chunk: RafsChunk,
    blob: RafsBlob,
    { stored, size }: ContextRecord,
    { of, context, offset }: NonNullable<ContextRecord['within']>,
    digest: ChunkDigest,
  ): Place {
    const key = `${chunk.blob} ${of} ${context}`
    const number = this.#together.get(key) ?? this.#push(chunk, this.#begin(chunk, blob, of, context, stored.start))
    this.#together.set(key, number)
    const whole = this.#chunks[number] as Together // one of those that #begin made
    const range = { start: offset, end: offset + size }
    if (range.end > whole.size)
      throw this.#corrupt(chunk, `bytes ${range.start} to ${range.end} of ${whole.size} that are decoded together`)
    whole.checks.push({ of: 'decoded', range, digest })
    return { chunk: number, offset }
  }

  #begin(chunk: RafsChunk, blob: RafsBlob, of: 'batch' | 'zran', number: number, start: number): Together {
    const table = this.#tables.context(chunk.blob)
    if (of === 'batch') {
      const { storedSize, size } = table.batch(number)
      const codec = storedSize === size ? NONE : codecOf(blob.compressor)
      return { blob: 0, stored: { start, end: start + storedSize }, size, codec, checks: [] }
    }
    const { stored, size, bits, value, dictionary } = table.checkpoint(number)
    const seed = new Uint8Array(2 + dictionary.length)
    seed[0] = bits
    seed[1] = value
    seed.set(dictionary, 2)
    return { blob: 0, stored, size, codec: { name: 'gzip', seed }, checks: [] }
  }

  /** @param chunk whose blob is set here @returns its number */
  #push(of: RafsChunk, chunk: StoredChunk): number {
    const { number, size } = this.#used.get(of.blob) as Used // every chunk's blob is
    const { stored } = chunk
    if (stored.start >= stored.end || stored.end > size) {
      throw this.#corrupt(of, `it would lie at ${stored.start} to ${stored.end}, the blob has ${size} bytes`)
    }
    if (stored.end - stored.start > CHUNK_STORED_MAX_BYTES || chunk.size > CHUNK_MAX_BYTES) {
      throw Failure.limit(`${this.#name(of)}: ${chunk.size} bytes, stored in ${stored.end - stored.start}`, {
        why: `at most ${CHUNK_MAX_BYTES} are accepted, in ${CHUNK_STORED_MAX_BYTES}`,
      })
    }
    chunk.blob = number
    return this.#chunks.push(chunk) - 1
  }

  /** Of a stargz layer, whose table does not say where a member ends: as much as one can have. */
  #legacyRange(chunk: RafsChunk, start: number, size: number): { start: number; end: number } {
    const blobSize = this.#used.get(chunk.blob)?.size ?? 0
    return { start, end: Math.min(blobSize, start + gzipMaxBytes(size)) }
  }

  #name({ blob, index }: RafsChunk): string {
    return `${this.#what}: chunk ${index} of blob ${blob}`
  }

  #corrupt(chunk: RafsChunk, why: string): Failure {
    return Failure.corrupt(this.#name(chunk), { why })
  }
}

function codecOf(compressor: Compressor): Codec {
  if (compressor === 'lz4_block') return LZ4
  if (compressor === 'gzip') return GZIP
  return compressor === 'zstd' ? ZSTD : NONE
}

/** Stored as stargz did, whose tables had no lengths of members. */
function isLegacyGzip({ compressor, features = 0 }: RafsBlob): boolean {
  return compressor === 'gzip' && (features & (FEATURE.recordsV2 | FEATURE.zran)) === 0
}

/** What a member of so many bytes can have: 10 header, 8 trailer, 5 for each block of 16 KiB that does not compress, and names in the header. */
function gzipMaxBytes(size: number): number {
  return size + 10 + 8 + 5 * ((size >>> 14) + 1) + 128
}
