// What a nydus image's bootstrap leaves to its blobs to say, as far as chunks take it. Mostly nothing: the chunk table has every chunk's
// place and digest. Where writers left that out, a blob's own tables say both; where chunks are decoded together (batches, gzip layers
// with checkpoints), only they say how. And of blobs that are other images' nobody but the registry says how long they are.
import { Failure } from '../../errors.ts'
import type { Blob, Range, ReadOptions } from '../../image/blob.ts'
import type { Digest } from '../../image/digest.ts'
import { Limit } from '../../limit.ts'
import { type IndexOptions, type Source, type Unit, unitText } from '../format.ts'
import { readExactly } from '../index-bytes.ts'
import { DIGESTS_NAME, parseBlobToc } from './blob-toc.ts'
import type { BootstrapLayer } from './bootstrap-layer.ts'
import { RafsBytes } from './bytes.ts'
import { DIGEST_BYTES } from './chunk-record.ts'
import { FEATURE } from './codes.ts'
import { CONTEXT_HEADER_BYTES } from './context-table.ts'
import type { BlobTables } from './nydus-index.ts'
import type { RafsBlob, RafsTables } from './rafs.ts'
import { parseBlobs5 } from './v5/blobs.ts'
import { isRafs5, parseSuperblock5 } from './v5/superblock.ts'
import { parseBlobs6 } from './v6/blobs.ts'
import { isRafs6, parseSuperblock6 } from './v6/superblock.ts'

/** Blobs that are read from at once. */
const BLOBS_AT_ONCE = 8
/** Stored, of all blobs: 24 bytes a chunk, 32 of them a digest, and checkpoints of 32 KiB each. */
const FETCHED_MAX_BYTES = 64 << 20
/** A table of contents has five entries or so; the main thread reads it. */
const TOC_MAX_BYTES = 64 << 10
/** Digests do not compress: a frame's own bytes come on top. */
const DIGESTS_SLACK_BYTES = 64 << 10

/** Of each blob with chunks of which there is something to say. @throws Failure corrupt, limit, unsupported; what reading blobs throws */
export async function readTables(
  layer: BootstrapLayer,
  unit: Unit,
  source: Source,
  options: IndexOptions,
): Promise<BlobTables[]> {
  const what = `${unitText(unit)}: bootstrap`
  const { blobs, hasRecords } = blobTable(layer.bootstrap, what)
  const wanted = blobs.flatMap((blob, number) => {
    if (blob.chunkCount === 0) return []
    return { number, blob, tables: tablesOf(blob, hasRecords), hasRecords, what: `${what}: blob ${number}` }
  })
  const total = wanted.reduce((sum, each) => sum + fetchedBytes(each, layer), 0)
  if (total > FETCHED_MAX_BYTES) {
    throw Failure.limit(`${what}: the tables of its blobs have ${total} bytes`, {
      why: `at most ${FETCHED_MAX_BYTES} are fetched; writers that put them into the bootstrap layer may have more`,
    })
  }
  const limit = new Limit(BLOBS_AT_ONCE)
  const { signal = new AbortController().signal } = options
  const read = wanted.map((each) => limit.take(() => readOf(each, layer, unit, source, options), signal))
  return (await Promise.all(read)).filter((each) => Object.keys(each).length > 1)
}

function blobTable(bootstrap: Uint8Array, what: string): { blobs: RafsBlob[]; hasRecords: boolean } {
  const from = new RafsBytes(bootstrap, what)
  if (isRafs5(bootstrap)) return { blobs: parseBlobs5(from, parseSuperblock5(from)), hasRecords: true }
  if (!isRafs6(bootstrap)) return { blobs: [], hasRecords: false } // whoever parses it says so
  const { blobs, chunkTable } = parseSuperblock6(from)
  return { blobs: parseBlobs6(from, blobs), hasRecords: chunkTable.end > chunkTable.start }
}

interface Wanted {
  number: number
  blob: RafsBlob
  /** Undefined: the bootstrap says it all. */
  tables: RafsTables | undefined
  hasRecords: boolean
  what: string
}

function tablesOf({ tables, features = 0 }: RafsBlob, hasRecords: boolean): RafsTables | undefined {
  const isTogether = (features & (FEATURE.batch | FEATURE.zran)) !== 0
  return hasRecords && !isTogether ? undefined : tables
}

/** At the most. */
function fetchedBytes({ blob, tables, hasRecords }: Wanted, layer: BootstrapLayer): number {
  if (tables === undefined) return 0
  const contexts = layer.tables.has(tables.holder) ? 0 : tables.storedSize + CONTEXT_HEADER_BYTES
  return contexts + (hasRecords ? 0 : tables.tocSize + digestsMaxBytes(blob))
}

/** Of a blob's list of digests, stored. */
function digestsMaxBytes({ chunkCount = 0 }: RafsBlob): number {
  return chunkCount * DIGEST_BYTES + DIGESTS_SLACK_BYTES
}

async function readOf(
  { number, blob, tables, hasRecords, what }: Wanted,
  layer: BootstrapLayer,
  unit: Unit,
  source: Source,
  options: ReadOptions,
): Promise<BlobTables> {
  const result: BlobTables = { blob: number }
  const digest = digestIn(blob.id)
  if (digest === undefined) return result // who has a chunk in it is told
  const isElsewhere = tables !== undefined && tables.holder !== blob.id
  // of a gzip layer the bootstrap says it
  const isUnknown = ((blob.features ?? 0) & FEATURE.separate) === 0 && sizeInManifest(digest, unit) === undefined
  const asked = isUnknown ? await source.sizeOf(digest, options.signal) : undefined
  if (asked !== undefined) result.size = new Uint8Array(BigUint64Array.of(BigInt(asked)).buffer)
  if (tables === undefined) return result
  const holder = isElsewhere ? digestNamed(tables.holder, `${what}: its tables`) : digest
  const known = sizeInManifest(holder, unit) ?? (isElsewhere ? await source.sizeOf(holder, options.signal) : asked)
  const size = known ?? blob.compressedSize
  const from = source.blob({ digest: holder, size })
  const decoded = layer.tables.get(tables.holder)
  if (decoded !== undefined) result.decoded = decoded
  else {
    const { offset, storedSize } = tables
    const range = { start: offset, end: offset + storedSize + CONTEXT_HEADER_BYTES }
    result.stored = await readWithin(from, range, what, options)
  }
  if (hasRecords) return result
  result.toc = await readWithin(from, tocRange(tables, size, what), what, options)
  result.digests = await readWithin(from, digestsRange(result.toc, tables, digestsMaxBytes(blob), what), what, options)
  return result
}

/** Where the blob says what is where in it. */
function tocRange({ tocSize }: RafsTables, size: number, what: string): Range {
  if (tocSize > TOC_MAX_BYTES) {
    throw Failure.limit(`${what}: its table of contents has ${tocSize} bytes, at most ${TOC_MAX_BYTES} are accepted`)
  }
  if (tocSize > 0) return { start: size - tocSize, end: size }
  throw Failure.unsupported(`${what}: no digests of its chunks can be had`, {
    why: 'the bootstrap has no chunk table, and no digest of the blob’s tables',
    fix: 'Convert the image again, for example with nydusify convert.',
  })
}

function digestsRange(toc: Uint8Array, { tocDigest }: RafsTables, maxBytes: number, what: string): Range {
  const place = parseBlobToc(toc, tocDigest, what).get(DIGESTS_NAME)
  if (place === undefined) throw Failure.unsupported(`${what}: its table of contents has no ${DIGESTS_NAME}`)
  const { start, end } = place.stored
  if (end - start > maxBytes) {
    throw Failure.limit(`${what}: its digests are stored in ${end - start} bytes`, {
      why: `those of its chunks have ${maxBytes} at the most`,
    })
  }
  return place.stored
}

/** Bytes of a blob that is a layer of the image; undefined: it is none, or the manifest does not say it. */
export function sizeInManifest(digest: Digest, { blobs }: Unit): number | undefined {
  return blobs.find((each) => each.digest === digest)?.size
}

function digestIn(id: string): Digest | undefined {
  return /^[0-9a-f]{64}$/.test(id) ? `sha256:${id}` : undefined
}

/** @throws Failure unsupported */
export function digestNamed(id: string, what: string): Digest {
  const digest = digestIn(id)
  if (digest !== undefined) return digest
  throw Failure.unsupported(`${what}: its id ${JSON.stringify(id)} is no blob of a registry`, {
    why: 'blobs of images are named by their SHA-256; the bootstrap of a single layer names none',
  })
}

async function readWithin(blob: Blob, range: Range, what: string, options: ReadOptions): Promise<Uint8Array> {
  if (range.start >= 0 && range.end <= blob.size) return await readExactly(blob, range, what, options)
  throw Failure.corrupt(
    `${what}: its tables would lie at ${range.start} to ${range.end}, the blob has ${blob.size} bytes`,
  )
}
