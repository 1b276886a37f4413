// The tables of a nydus image's blobs, as far as its bootstrap does not say what they say. It mostly does: its chunk table has every chunk's
// place and digest. Where writers left that out, a blob's own tables say both; where chunks are decoded together (batches, gzip layers
// with checkpoints), only they say how.
import { Failure } from '../errors.ts'
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { Limit } from '../limit.ts'
import { type IndexOptions, type Source, type Unit, unitText } from './format.ts'
import type { BlobTables } from './nydus-index.ts'
import type { BootstrapLayer } from './nydus-layer.ts'
import type { RafsBlob, RafsTables } from './rafs.ts'
import { RafsBytes } from './rafs-bytes.ts'
import { FEATURE } from './rafs-codes.ts'
import { CONTEXT_HEADER_BYTES } from './rafs-context.ts'
import { DIGESTS_NAME, parseToc } from './rafs-toc.ts'
import { parseBlobs6 } from './rafs6-blobs.ts'
import { parseSuperblock6 } from './rafs6-superblock.ts'

/** Blobs that are read from at once. */
const BLOBS_AT_ONCE = 8
/** Stored, of all blobs: 24 bytes a chunk, 32 of them a digest, and checkpoints of 32 KiB each. */
const FETCHED_MAX_BYTES = 64 << 20

/** @throws Failure corrupt, limit, unsupported; what reading blobs throws */
export async function readTables(
  layer: BootstrapLayer,
  unit: Unit,
  source: Source,
  options: IndexOptions,
): Promise<BlobTables[]> {
  const from = new RafsBytes(layer.bootstrap, `${unitText(unit)}: bootstrap`)
  const { blobs: table, chunkTable } = parseSuperblock6(from)
  const hasRecords = chunkTable.end > chunkTable.start
  const wanted = parseBlobs6(from, table).flatMap((blob, i) => wantedOf(blob, i, hasRecords, layer, from.what))
  const total = wanted.reduce((sum, each) => sum + each.fetched, 0)
  if (total > FETCHED_MAX_BYTES) {
    throw Failure.limit(`${from.what}: the tables of its blobs have ${total} bytes`, {
      why: `at most ${FETCHED_MAX_BYTES} are fetched; writers that put them into the bootstrap layer may have more`,
    })
  }
  const limit = new Limit(BLOBS_AT_ONCE)
  const { signal = new AbortController().signal } = options
  return await Promise.all(wanted.map((each) => limit.take(() => readOf(each, unit, source, options), signal)))
}

interface Wanted {
  number: number
  tables: RafsTables
  /** The blob's size as the bootstrap has it. */
  size: number
  what: string
  decoded: Uint8Array | undefined
  hasRecords: boolean
  /** Bytes. */
  fetched: number
}

function wantedOf(blob: RafsBlob, number: number, hasRecords: boolean, layer: BootstrapLayer, what: string): Wanted[] {
  const { tables, chunkCount = 0, features = 0, compressedSize: size } = blob
  const isTogether = (features & (FEATURE.batch | FEATURE.zran)) !== 0
  if (tables === undefined || chunkCount === 0 || (hasRecords && !isTogether)) return []
  const decoded = layer.tables.get(tables.holder)
  const fetched =
    (decoded === undefined ? tables.storedSize + CONTEXT_HEADER_BYTES : 0) + (hasRecords ? 0 : tables.tocSize)
  return [{ number, tables, size, what: `${what}: blob ${number}`, decoded, hasRecords, fetched }]
}

async function readOf(wanted: Wanted, unit: Unit, source: Source, options: ReadOptions): Promise<BlobTables> {
  const { number, tables, what, decoded, hasRecords } = wanted
  const result: BlobTables = { blob: number }
  const digest = digestNamed(tables.holder, what)
  const size = unit.blobs.find((each) => each.digest === digest)?.size ?? wanted.size
  const blob = source.blob({ digest, size })
  if (decoded !== undefined) result.decoded = decoded
  else {
    const { offset, storedSize } = tables
    result.stored = await readExactly(
      blob,
      { start: offset, end: offset + storedSize + CONTEXT_HEADER_BYTES },
      what,
      options,
    )
  }
  if (hasRecords) return result
  if (tables.tocSize === 0) {
    throw Failure.unsupported(`${what}: no digests of its chunks can be had`, {
      why: 'the bootstrap has no chunk table, and no digest of the blob’s tables',
      fix: 'Convert the image again, for example with nydusify convert.',
    })
  }
  result.toc = await readExactly(blob, { start: size - tables.tocSize, end: size }, what, options)
  const place = parseToc(result.toc, tables.tocDigest, what).get(DIGESTS_NAME)
  if (place === undefined) throw Failure.unsupported(`${what}: its table of contents has no ${DIGESTS_NAME}`)
  if (place.stored.end - place.stored.start > FETCHED_MAX_BYTES)
    throw Failure.limit(`${what}: its digests have more than ${FETCHED_MAX_BYTES} bytes`)
  result.digests = await readExactly(blob, place.stored, what, options)
  return result
}

/** @throws Failure unsupported */
export function digestNamed(id: string, what: string): Digest {
  if (/^[0-9a-f]{64}$/.test(id)) return `sha256:${id}`
  throw Failure.unsupported(`${what}: its id ${JSON.stringify(id)} is no blob of a registry`, {
    why: 'blobs of images are named by their SHA-256; the bootstrap of a single layer names none',
  })
}

async function readExactly(blob: Blob, range: Range, what: string, options: ReadOptions): Promise<Uint8Array> {
  if (range.start < 0 || range.end > blob.size) {
    throw Failure.corrupt(
      `${what}: its tables would lie at ${range.start} to ${range.end}, the blob has ${blob.size} bytes`,
    )
  }
  const bytes = await blob.read(range, options)
  if (bytes.length === range.end - range.start) return bytes
  throw Failure.corrupt(
    `${what}: ${range.end - range.start} bytes at ${range.start} were asked for, ${bytes.length} came`,
  )
}
