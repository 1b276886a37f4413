// A layer's chunks in layout order, in typed columns: 100,000 chunks are a few megabytes and parse by making views.
//
//   magic "lazychk3" | u32 header length | header JSON {blobs, first, chunks, checks, places, states, stateBytes, zeros, deviceSize}
//   padded with spaces to 8
//   columns, each padded to 8 bytes, in this order:
//     chunks:  stored start f64, stored end f64, size f64, blob u32, codec u8, state u32 (0 none, else its number from 1),
//              checks end u32, places end u32 (exclusive, into below)
//     checks:  start f64, end f64, of u8 (0 decoded, 1 stored), algorithm u8 (0 SHA-256, 1 BLAKE3), digest 32 bytes
//     places:  from f64, length f64, at f64, chunk u32   (sorted by chunk, then from)
//     states:  end f64 (exclusive, into the bytes behind it), bytes   (a gzip chunk's seed, a zstd chunk's dictionary)
//     zeros:   start f64, end f64   (runs on the device that are zeros of files, in no chunk; ascending, each of one file)
//   SHA-256 of all of it before
import { createHash } from 'node:crypto'
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { algorithmOf, type ChunkDigest, type Digest, hex } from '../image/digest.ts'
import { type Check, type Chunk, type Codec, type Place, stateOf } from './chunk.ts'
import { contentDigestOf } from './content-digest.ts'

export interface ChunkBlob {
  digest: Digest
  size: number
}

interface Header {
  blobs: ChunkBlob[]
  /** Chunks 0 … first - 1 are what the image wants ready first. */
  first: number
  chunks: number
  checks: number
  places: number
  states: number
  stateBytes: number
  zeros: number
  deviceSize: number
}

const MAGIC = new TextEncoder().encode('lazychk3')
/** In the column of codecs, by these numbers. */
const CODECS = ['none', 'gzip', 'zstd', 'lz4'] as const
const HASH_BYTES = 32
/** In the column that says what a check is of; 0 is decoded bytes. */
const STORED = 1
/** In the column of algorithms; 0 is SHA-256. */
const BLAKE3 = 1

const pad = (bytes: number) => Math.ceil(bytes / 8) * 8

/** What makes a column of so many numbers, in the order of the file. */
interface Make<F64, U32, U8> {
  f64(count: number): F64
  u32(count: number): U32
  u8(count: number): U8
}

function columns<F64, U32, U8>(
  { chunks, checks, places, states, stateBytes, zeros }: Header,
  { f64, u32, u8 }: Make<F64, U32, U8>,
) {
  return {
    storedStart: f64(chunks),
    storedEnd: f64(chunks),
    size: f64(chunks),
    blob: u32(chunks),
    codec: u8(chunks),
    state: u32(chunks),
    checksEnd: u32(chunks),
    placesEnd: u32(chunks),
    checkStart: f64(checks),
    checkEnd: f64(checks),
    checkOf: u8(checks),
    checkAlgorithm: u8(checks),
    checkDigest: u8(checks * HASH_BYTES),
    placeFrom: f64(places),
    placeLength: f64(places),
    placeAt: f64(places),
    placeChunk: u32(places),
    stateEnd: f64(states),
    stateBytes: u8(stateBytes),
    zeroStart: f64(zeros),
    zeroEnd: f64(zeros),
  }
}

function columnsLength(header: Header): number {
  let total = 0
  const add = (width: number) => (count: number) => {
    total += pad(count * width)
  }
  columns(header, { f64: add(8), u32: add(4), u8: add(1) })
  return total
}

function columnsAt(bytes: Uint8Array, start: number, header: Header) {
  let at = bytes.byteOffset + start
  const next = (length: number) => {
    const offset = at
    at += pad(length)
    return offset
  }
  return columns(header, {
    f64: (count) => new Float64Array(bytes.buffer, next(count * 8), count),
    u32: (count) => new Uint32Array(bytes.buffer, next(count * 4), count),
    u8: (count) => new Uint8Array(bytes.buffer, next(count), count),
  })
}

export type Columns = Readonly<ReturnType<typeof columnsAt>>

function codecOf(number: number, state: Uint8Array | undefined): Codec {
  const name = CODECS[number] as (typeof CODECS)[number] // as encodeChunks wrote it
  if (state === undefined) return { name }
  return name === 'gzip' ? { name, seed: state } : { name: 'zstd', dictionary: state }
}

/** Serializes chunks that are in layout order; `deviceSize` in bytes; `zeros` as a Layout has them. */
export function encodeChunks(
  blobs: readonly ChunkBlob[],
  chunks: readonly Chunk[],
  first: number,
  deviceSize: number,
  zeros: readonly Range[] = [],
): Uint8Array {
  const states = [...new Set(chunks.map(({ codec }) => stateOf(codec)).filter((state) => state !== undefined))]
  const stateNumbers = new Map(states.map((state, i) => [state, i + 1]))
  const header: Header = {
    blobs: blobs.map(({ digest, size }) => ({ digest, size })),
    first,
    chunks: chunks.length,
    checks: chunks.reduce((sum, each) => sum + each.checks.length, 0),
    places: chunks.reduce((sum, each) => sum + each.places.length, 0),
    states: states.length,
    stateBytes: states.reduce((sum, each) => sum + each.length, 0),
    zeros: zeros.length,
    deviceSize,
  }
  const json = new TextEncoder().encode(JSON.stringify(header))
  const start = pad(MAGIC.length + 4 + json.length)
  const total = start + columnsLength(header) + HASH_BYTES
  const bytes = new Uint8Array(total)
  bytes.set(MAGIC)
  bytes.fill(0x20, MAGIC.length + 4, start)
  new DataView(bytes.buffer).setUint32(MAGIC.length, start - MAGIC.length - 4, true)
  bytes.set(json, MAGIC.length + 4)
  const to = columnsAt(bytes, start, header)
  const digests = Buffer.from(bytes.buffer, to.checkDigest.byteOffset, to.checkDigest.length)
  let check = 0
  let place = 0
  for (const [i, chunk] of chunks.entries()) {
    to.storedStart[i] = chunk.stored.start
    to.storedEnd[i] = chunk.stored.end
    to.size[i] = chunk.size
    to.blob[i] = chunk.blob
    to.codec[i] = CODECS.indexOf(chunk.codec.name)
    const state = stateOf(chunk.codec)
    to.state[i] = (state && stateNumbers.get(state)) ?? 0
    for (const each of chunk.checks) {
      to.checkStart[check] = each.range.start
      to.checkEnd[check] = each.range.end
      to.checkOf[check] = each.of === 'stored' ? STORED : 0
      to.checkAlgorithm[check] = algorithmOf(each.digest) === 'blake3' ? BLAKE3 : 0
      digests.write(hex(each.digest), check * HASH_BYTES, 'hex')
      check++
    }
    for (const each of chunk.places) {
      to.placeFrom[place] = each.from
      to.placeLength[place] = each.length
      to.placeAt[place] = each.at
      to.placeChunk[place] = i
      place++
    }
    to.checksEnd[i] = check
    to.placesEnd[i] = place
  }
  let stateEnd = 0
  for (const [i, state] of states.entries()) {
    to.stateBytes.set(state, stateEnd)
    stateEnd += state.length
    to.stateEnd[i] = stateEnd
  }
  for (const [i, { start, end }] of zeros.entries()) {
    to.zeroStart[i] = start
    to.zeroEnd[i] = end
  }
  bytes.set(createHash('sha256').update(bytes.subarray(0, -HASH_BYTES)).digest(), total - HASH_BYTES)
  return bytes
}

export class ChunkTable {
  readonly blobs: readonly ChunkBlob[]
  readonly length: number
  /** Chunks 0 … first - 1 are what the image wants ready first. */
  readonly first: number
  /** Bytes, a multiple of 4096. */
  readonly deviceSize: number
  readonly bytes: Uint8Array
  readonly #at: Columns
  #content: Digest | undefined

  /**
   * @param content as contentDigest gives it, where that is known
   * @throws Failure corrupt when the bytes are not as `encodeChunks` wrote them; unsupported: they are as another version wrote them
   */
  constructor(bytes: Uint8Array, content?: Digest) {
    this.#content = content
    // typed columns need their own alignment; a Buffer's own slice would not copy
    this.bytes = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes)
    const hash = createHash('sha256').update(this.bytes.subarray(0, -HASH_BYTES)).digest()
    if (bytes.length < MAGIC.length + 4 + HASH_BYTES || !hash.equals(this.bytes.subarray(-HASH_BYTES))) {
      throw Failure.corrupt('the chunk table differs from its digest')
    }
    if (!Buffer.from(MAGIC).equals(this.bytes.subarray(0, MAGIC.length))) {
      throw Failure.unsupported('the chunk table is of another version')
    }
    // from here on the bytes are our own, as written
    const view = new DataView(this.bytes.buffer, this.bytes.byteOffset)
    const start = MAGIC.length + 4 + view.getUint32(MAGIC.length, true)
    const header: Header = JSON.parse(new TextDecoder().decode(this.bytes.subarray(MAGIC.length + 4, start)))
    this.blobs = header.blobs
    this.length = header.chunks
    this.first = header.first
    this.deviceSize = header.deviceSize
    this.#at = columnsAt(this.bytes, start, header)
  }

  /** Chunk number `i`, made afresh. */
  get(i: number): Chunk {
    const at = this.#at
    const n = (of: { readonly [i: number]: number }, i: number): number => of[i] as number // i is below a length
    const checks: Check[] = []
    for (let j = i === 0 ? 0 : n(at.checksEnd, i - 1); j < n(at.checksEnd, i); j++) {
      checks.push({
        of: n(at.checkOf, j) === STORED ? 'stored' : 'decoded',
        range: { start: n(at.checkStart, j), end: n(at.checkEnd, j) },
        digest: this.#digest(j),
      })
    }
    const places: Place[] = []
    for (let j = i === 0 ? 0 : n(at.placesEnd, i - 1); j < n(at.placesEnd, i); j++) {
      places.push({ from: n(at.placeFrom, j), length: n(at.placeLength, j), at: n(at.placeAt, j) })
    }
    return {
      blob: n(at.blob, i),
      stored: { start: n(at.storedStart, i), end: n(at.storedEnd, i) },
      size: n(at.size, i),
      codec: codecOf(n(at.codec, i), this.#state(n(at.state, i))),
      checks,
      places,
    }
  }

  /** As the head of this file has them, for walks over all chunks that make nothing. */
  get columns(): Columns {
    return this.#at
  }

  /** The number of a chunk's first check among those of all chunks; for `length`, how many there are. */
  firstCheck(i: number): number {
    return i === 0 ? 0 : (this.#at.checksEnd[i - 1] as number)
  }

  #digest(check: number): ChunkDigest {
    const { checkAlgorithm, checkDigest } = this.#at
    const digits = Buffer.from(checkDigest.subarray(check * HASH_BYTES, (check + 1) * HASH_BYTES)).toString('hex')
    return checkAlgorithm[check] === BLAKE3 ? `blake3:${digits}` : `sha256:${digits}`
  }

  /** @param number from 1 */
  #state(number: number): Uint8Array | undefined {
    if (number === 0) return undefined
    const { stateEnd, stateBytes } = this.#at
    return stateBytes.subarray(number === 1 ? 0 : stateEnd[number - 2], stateEnd[number - 1])
  }

  storedRange(i: number): { start: number; end: number } {
    return { start: this.#at.storedStart[i] as number, end: this.#at.storedEnd[i] as number }
  }

  /** Decoded bytes of a chunk. */
  sizeOf(i: number): number {
    return this.#at.size[i] as number
  }

  blobOf(i: number): number {
    return this.#at.blob[i] as number
  }

  /** Calls `each` with the places of a chunk, in the order of its bytes. Makes nothing: for walks over all chunks. */
  places(i: number, each: (at: number, length: number) => void): void {
    const { placesEnd, placeAt, placeLength } = this.#at
    for (let j = i === 0 ? 0 : (placesEnd[i - 1] as number); j < (placesEnd[i] as number); j++) {
      each(placeAt[j] as number, placeLength[j] as number)
    }
  }

  /** Where on the device files have zeros that no chunk holds: ascending, each of one file. */
  zeros(): Range[] {
    const { zeroStart, zeroEnd } = this.#at
    return Array.from(zeroStart, (start, i) => ({ start, end: zeroEnd[i] as number })) // one each
  }

  /** Numbers of the chunks that hold device bytes of [start, end), ascending, each once. Linear in the places. */
  chunksAt(start: number, end: number): number[] {
    const { placeAt, placeLength, placeChunk } = this.#at
    const found = new Set<number>()
    for (const [i, at] of placeAt.entries()) {
      if (at < end && at + (placeLength[i] as number) > start) found.add(placeChunk[i] as number)
    }
    return [...found].sort((a, b) => a - b)
  }

  /** Places as the native side wants them: {at u64, length u64, chunk u32, zero u32}, little-endian, sorted by `at`. */
  packedPlaces(): Uint8Array {
    const { placeAt, placeLength, placeChunk } = this.#at
    const order = orderOf(placeAt)
    const words = new Uint32Array(placeAt.length * 6)
    for (let i = 0; i < placeAt.length; i++) {
      const from = order === undefined ? i : (order[i] as number)
      const [at, length] = [placeAt[from] as number, placeLength[from] as number]
      words[i * 6] = at // its lower half
      words[i * 6 + 1] = at / 2 ** 32
      words[i * 6 + 2] = length
      words[i * 6 + 3] = length / 2 ** 32
      words[i * 6 + 4] = placeChunk[from] as number
    }
    return new Uint8Array(words.buffer)
  }

  /**
   * What a device of this layout holds (content-digest.ts). It stands in the image's device slot, so that images that look alike and differ
   * in contents do not share a device.
   */
  contentDigest(): Digest {
    const { checkOf, checkAlgorithm } = this.#at
    this.#content ??= contentDigestOf(
      this.#at,
      (check) => checkOf[check] !== STORED,
      (check) => checkAlgorithm[check] === BLAKE3,
    )
    return this.#content
  }
}

/** In which order numbers ascend; undefined: in theirs, as is mostly so. */
function orderOf(numbers: Float64Array): Uint32Array | undefined {
  for (let i = 1; i < numbers.length; i++) {
    if ((numbers[i - 1] as number) <= (numbers[i] as number)) continue
    const order = Uint32Array.from(numbers, (_, i) => i)
    return order.sort((a, b) => (numbers[a] as number) - (numbers[b] as number))
  }
  return undefined
}
