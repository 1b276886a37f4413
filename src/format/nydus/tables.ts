// The tables of an image's blobs, decoded when a chunk needs them.
import { createHash } from 'node:crypto'
import { Failure } from '../../errors.ts'
import type { ChunkDigest } from '../../image/digest.ts'
import { DIGESTS_NAME, parseBlobToc, type TocEntry } from './blob-toc.ts'
import { chunkDigest, DIGEST_BYTES } from './chunk-record.ts'
import { ContextTable } from './context-table.ts'
import { decodeTable } from './decode.ts'
import type { BlobTables } from './nydus-index.ts'
import type { Rafs, RafsBlob, RafsChunk } from './rafs.ts'

/** Of all blobs, decoded. */
const TABLES_MAX_BYTES = 512 << 20

export class RafsBlobTables {
  readonly #blobs: readonly RafsBlob[]
  readonly #tables: ReadonlyMap<number, BlobTables>
  readonly #what: string
  readonly #contexts = new Map<number, ContextTable>()
  readonly #digests = new Map<number, Uint8Array>()
  #bytes = 0

  constructor({ blobs }: Rafs, tables: readonly BlobTables[], what: string) {
    this.#blobs = blobs
    this.#tables = new Map(tables.map((each) => [each.blob, each]))
    this.#what = what
  }

  /** Of the blob with that number. @throws Failure corrupt, limit: there is none, or it is broken */
  context(number: number): ContextTable {
    const known = this.#contexts.get(number)
    if (known !== undefined) return known
    const what = this.#nameOf(number)
    const blob = this.#blobs[number]
    const of = this.#tables.get(number)
    if (blob?.tables === undefined || of === undefined) {
      throw Failure.corrupt(`${what}: neither the bootstrap nor a table says where its chunks are`)
    }
    this.#count(blob.tables.decodedSize, what)
    const table = new ContextTable(of, { ...blob, tables: blob.tables }, what)
    this.#contexts.set(number, table)
    return table
  }

  /** From its blob's list of digests, which the bootstrap vouches for through the blob's table of contents. @throws Failure corrupt, limit */
  digest({ blob: number, index }: RafsChunk): ChunkDigest {
    const list = this.#digests.get(number) ?? this.#digestsOf(number)
    this.#digests.set(number, list)
    const bytes = list.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES)
    const digester = this.#blobs[number]?.digester
    if (bytes.length === DIGEST_BYTES && digester !== undefined) return chunkDigest(digester, bytes)
    throw Failure.corrupt(
      `${this.#nameOf(number)}: it has digests of ${list.length / DIGEST_BYTES} chunks, not of chunk ${index}`,
    )
  }

  #digestsOf(number: number): Uint8Array {
    const what = this.#nameOf(number)
    const of = this.#tables.get(number)
    const digest = this.#blobs[number]?.tables?.tocDigest
    const place = digest && of?.toc && parseBlobToc(of.toc, digest, what).get(DIGESTS_NAME)
    if (place === undefined || of?.digests === undefined) {
      throw Failure.corrupt(`${what}: neither the bootstrap nor a table has digests of its chunks`)
    }
    this.#count(place.decodedSize, what)
    return decodeDigests(of.digests, place, `${what}: ${DIGESTS_NAME}`)
  }

  #count(bytes: number, what: string): void {
    this.#bytes += bytes
    if (this.#bytes <= TABLES_MAX_BYTES) return
    throw Failure.limit(`${what}: the tables of the image's blobs have more than ${TABLES_MAX_BYTES} bytes`)
  }

  #nameOf(number: number): string {
    return `${this.#what}: blob ${number}`
  }
}

function decodeDigests(stored: Uint8Array, { compressor, decodedSize, digest }: TocEntry, what: string): Uint8Array {
  const list = decodeTable(stored, compressor, decodedSize, what)
  const got = createHash('sha256').update(list).digest()
  if (got.equals(digest)) return list
  throw Failure.corrupt(`${what}: it differs from what the bootstrap vouches for`, {
    why: `want ${Buffer.from(digest).toString('hex')}, got ${got.toString('hex')}`,
  })
}
