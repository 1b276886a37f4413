// The compression context table of a nydus blob: where its chunks are, and for chunks that are decoded together, in what. nydus-image writes
// it behind the chunks, and keeps it decoded beside the bootstrap. Nobody vouches for it: what it says can make chunks fail, not false.
//
//   records, 16 or 24 bytes a chunk │ contexts, 40 bytes each │ dictionaries of contexts        (decoded)        header, 4096 bytes
//
//   record, 16   0 u64: decoded size - 1, 20 bits from 44, 4 from 8     8 u64: stored size - 1, 20 bits from 44, 4 from 40; offset, 40 bits
//   record, 24   0 u64: flags, 8 bits; decoded size - 1, 24 bits        8 u64: stored size, 24 bits; offset, 40 bits
//               16 u64: number of a context, 32 bits; offset in what it decodes to, 32 bits
//   batch        0 u32 stored size    4 u32 decoded size
//   checkpoint   0 u64 stored offset  8 u64 decoded offset  16 u64 of its dictionary  24 u32 stored  28 u32 decoded  32 u32 dictionary's size
//               36 u8, 37 u8 bits of the byte before
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'
import { RafsBytes } from './bytes.ts'
import { FEATURE } from './codes.ts'
import { decodeTable } from './decode.ts'
import type { BlobTables } from './nydus-index.ts'
import type { RafsBlob, RafsTables } from './rafs.ts'

export const CONTEXT_HEADER_BYTES = 4096
const MAGIC = 0xb10bb10b
const HEADER = { magic: 0, entries: 12, contextsAt: 40, contexts: 56, again: CONTEXT_HEADER_BYTES - 4 }
const V1_BYTES = 16
const V2_BYTES = 24
const CONTEXT_BYTES = 40
const FLAG = { compressed: 1, zran: 2, batch: 4, encrypted: 8 }
/** Deflate's window. */
const DICTIONARY_MAX_BYTES = 32 << 10

/** Where a chunk is: by itself, or as so many bytes of what context number `context` decodes to. */
export interface ContextRecord {
  stored: Range
  size: number
  compressed: boolean
  within: { of: 'batch' | 'zran'; context: number; offset: number } | undefined
}

export interface Batch {
  storedSize: number
  size: number
}

export interface Checkpoint {
  stored: Range
  /** Decoded bytes until the next one. */
  size: number
  /** Bits of the byte before `stored` that belong to it: 0 to 7. */
  bits: number
  /** They, from the lowest on. */
  value: number
  dictionary: Uint8Array
}

export class ContextTable {
  readonly #from: RafsBytes
  readonly #hasV2: boolean
  readonly #count: number
  readonly #contexts: Range
  /** Where dictionaries begin. */
  readonly #dictionariesAt: number
  /** Bytes of those that were asked for. */
  #dictionaries = 0

  /** @param blob that of the bootstrap @param what names the blob @throws Failure corrupt, limit */
  constructor(of: BlobTables, blob: RafsBlob & { tables: RafsTables }, what: string) {
    const { header, decoded } = parts(of, blob.tables, `${what}: context table`)
    const from = new RafsBytes(decoded, `${what}: context table`)
    const { features = 0, chunkCount = 0 } = blob
    this.#from = from
    this.#hasV2 = (features & FEATURE.recordsV2) !== 0
    this.#count = chunkCount
    if (header.u32(HEADER.magic) !== MAGIC || header.u32(HEADER.again) !== MAGIC) {
      throw Failure.corrupt(`${from.what}: its header has not the magic number`)
    }
    if (header.u32(HEADER.entries) !== chunkCount) {
      throw Failure.corrupt(
        `${from.what}: it has ${header.u32(HEADER.entries)} chunks, the bootstrap says ${chunkCount}`,
      )
    }
    from.range(0, chunkCount * this.#recordBytes, 'the list of chunks')
    const isTogether = (features & (FEATURE.batch | FEATURE.zran)) !== 0
    this.#contexts = isTogether
      ? from.range(
          header.u64(HEADER.contextsAt, 'the offset of its contexts'),
          header.u32(HEADER.contexts) * CONTEXT_BYTES,
          'the list of contexts',
        )
      : { start: 0, end: 0 }
    this.#dictionariesAt = this.#contexts.end
  }

  get #recordBytes(): number {
    return this.#hasV2 ? V2_BYTES : V1_BYTES
  }

  /** @throws Failure corrupt, unsupported */
  record(index: number): ContextRecord {
    if (index >= this.#count) throw Failure.corrupt(`${this.#from.what}: it has no chunk ${index}, but ${this.#count}`)
    const at = index * this.#recordBytes
    return this.#hasV2 ? this.#second(at, index) : this.#first(at)
  }

  #first(at: number): ContextRecord {
    const from = this.#from
    const [low, high, offset, lengths] = [from.u32(at), from.u32(at + 4), from.u32(at + 8), from.u32(at + 12)]
    const size = ((high >>> 12) | (((low >>> 8) & 0xf) << 20)) + 1
    const length = ((lengths >>> 12) | (((lengths >>> 8) & 0xf) << 20)) + 1
    const start = offset + (lengths & 0xff) * 2 ** 32
    return { stored: { start, end: start + length }, size, compressed: size !== length, within: undefined }
  }

  #second(at: number, index: number): ContextRecord {
    const from = this.#from
    const [high, offset, lengths] = [from.u32(at + 4), from.u32(at + 8), from.u32(at + 12)]
    const flags = high >>> 24
    if (flags & FLAG.encrypted) throw Failure.unsupported(`${from.what}: chunk ${index} is encrypted`)
    const start = offset + (lengths & 0xff) * 2 ** 32
    const context = { context: from.u32(at + 20), offset: from.u32(at + 16) }
    const of = flags & FLAG.zran ? 'zran' : flags & FLAG.batch ? 'batch' : undefined
    return {
      stored: { start, end: start + (lengths >>> 8) },
      size: (high & 0xffffff) + 1,
      compressed: (flags & FLAG.compressed) !== 0,
      within: of && { of, ...context },
    }
  }

  /** @throws Failure corrupt */
  batch(number: number): Batch {
    const at = this.#context(number)
    return { storedSize: this.#from.u32(at), size: this.#from.u32(at + 4) }
  }

  /** To be asked for once each. @throws Failure corrupt */
  checkpoint(number: number): Checkpoint {
    const from = this.#from
    const at = this.#context(number)
    const start = from.u64(at, `the offset of checkpoint ${number}`)
    const length = from.u32(at + 32)
    if (length > DICTIONARY_MAX_BYTES)
      throw Failure.corrupt(`${from.what}: the dictionary of checkpoint ${number} has ${length} bytes`)
    const dictionary = from.range(
      this.#dictionariesAt + from.u64(at + 16, `the dictionary of checkpoint ${number}`),
      length,
      `the dictionary of checkpoint ${number}`,
    )
    // dictionaries that lay on each other would make gigabytes of a few kilobytes
    this.#dictionaries += length
    if (this.#dictionaries > from.bytes.length - this.#dictionariesAt) {
      throw Failure.corrupt(`${from.what}: the dictionary of checkpoint ${number} has bytes of others`)
    }
    const bits = (from.bytes[at + 37] as number) & 7 // within its context
    return {
      stored: { start, end: start + from.u32(at + 24) },
      size: from.u32(at + 28),
      bits,
      value: bits === 0 ? 0 : (from.bytes[at + 36] as number) >>> (8 - bits),
      dictionary: from.slice(dictionary),
    }
  }

  #context(number: number): number {
    const { start, end } = this.#contexts
    const at = start + number * CONTEXT_BYTES
    if (at >= end)
      throw Failure.corrupt(`${this.#from.what}: it has no context ${number}, but ${(end - start) / CONTEXT_BYTES}`)
    return at
  }
}

/** The header, and the table decoded. @throws Failure corrupt, limit */
function parts(of: BlobTables, tables: RafsTables, what: string): { header: RafsBytes; decoded: Uint8Array } {
  const bytes = of.decoded ?? of.stored
  if (bytes === undefined || bytes.length < CONTEXT_HEADER_BYTES) throw Failure.corrupt(`${what}: it is cut off`)
  const end = bytes.length - CONTEXT_HEADER_BYTES
  const header = new RafsBytes(bytes.subarray(end), what)
  if (of.decoded === undefined) {
    return { header, decoded: decodeTable(bytes.subarray(0, end), tables.compressor, tables.decodedSize, what) }
  }
  // filled up to a whole block
  if (tables.decodedSize > end)
    throw Failure.corrupt(`${what}: it has ${end} bytes, the bootstrap says ${tables.decodedSize}`)
  return { header, decoded: bytes.subarray(0, tables.decodedSize) }
}
