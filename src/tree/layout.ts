// Where the layer's files lie on its device: each distinct content once, in whole blocks; what the image wants first in front,
// the rest in the order of the index. And with that, which chunks are needed and which of their bytes go where.
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { digestOf } from '../image/digest.ts'
import type { Check, Chunk, Place, StoredChunk } from './chunk.ts'
import type { File } from './entries.ts'
import { type Extent, ZEROS } from './entry.ts'
import { DEVICE_BLOCKS_MAX } from './erofs-format.ts'
import { BLOCK_BYTES } from './inode.ts'

/** Of all files together: how many checked ranges and runs of zeros may be walked through. Real layers have one or two an extent. */
export const PIECES_MAX = 4_000_000

/** A dozen digests. */
const KEY_MAX_LENGTH = 1000

export interface Layout {
  /** Those that are needed, in the order of the device but for the first. */
  chunks: Chunk[]
  /** Chunks 0 … first - 1 are what the image wants ready first, in its order. */
  first: number
  /** Of each file: bytes from the device's start. */
  offsets: number[]
  /** Where on the device files have zeros that no chunk holds: ascending, each of one file. */
  zeros: Range[]
  /** Bytes, a multiple of BLOCK_BYTES. */
  deviceSize: number
}

/** The largest read-ahead that FUSE mounts have (their bdi is set to it). */
const READ_AHEAD_BYTES = 1 << 20
/**
 * Whoever reads the first page of what was read ahead makes the kernel read as much again behind it (Linux, `page_cache_async_ra`): it
 * is two read-aheads before its readers. Nothing lies in the gap, so it costs no disk.
 */
const GAP_BYTES = 2 * READ_AHEAD_BYTES

/** A distinct content: its first file stands for all. */
interface Content {
  file: File
  /** The file's extents in terms of the chunks kept, without those of zeros. */
  pieces: readonly Extent[]
  offset: number
}

/** @throws Failure corrupt when a file is not wholly made of verifiable bytes, limit */
export function layOut(chunks: readonly StoredChunk[], wantedFirst: readonly number[], files: readonly File[]): Layout {
  const alike = new Alike(chunks)
  const contents = new Map<string, Content>()
  const contentOf = files.map((file) => {
    const key = identify(file, chunks, alike)
    let content = contents.get(key)
    if (content === undefined) {
      const stored = file.extents.filter(({ chunk }) => chunk !== ZEROS)
      const pieces = stored.map((each) => {
        const chunk = alike.representative(each.chunk)
        return chunk === each.chunk ? each : { ...each, chunk }
      })
      content = { file, pieces, offset: -1 }
      contents.set(key, content)
    }
    return content
  })

  const distinct = [...contents.values()]
  const first = [...new Set(wantedFirst.map((chunk) => alike.representative(chunk)))]
  const deviceSize = assignOffsets(wantedBy(first, distinct), distinct)
  const ascending = distinct.sort((a, b) => a.offset - b.offset)
  const places = collectPlaces(ascending)
  // what is wanted first leads, whatever lies before it on the device
  const leading = first.filter((chunk) => places.has(chunk))
  return {
    chunks: [...new Set([...leading, ...places.keys()])].map((i) => ({
      ...(chunks[i] as StoredChunk),
      places: (places.get(i) as Place[]).sort((a, b) => a.from - b.from || a.at - b.at),
    })),
    first: leading.length,
    offsets: contentOf.map(({ offset }) => offset),
    zeros: collectZeros(ascending),
    deviceSize,
  }
}

/** Chunk -> where its bytes go; chunks in the order of the device, as `contents` are. */
function collectPlaces(contents: readonly Content[]): Map<number, Place[]> {
  const places = new Map<number, Place[]>()
  for (const { pieces, offset } of contents) {
    for (const { at, chunk, offset: from, length } of pieces) {
      const place = { from, length, at: offset + at }
      const others = places.get(chunk)
      if (others) others.push(place)
      else places.set(chunk, [place])
    }
  }
  return places
}

function collectZeros(contents: readonly Content[]): Range[] {
  return contents.flatMap(({ file, offset }) =>
    file.extents
      .filter(({ chunk }) => chunk === ZEROS)
      .map(({ at, length }) => ({ start: offset + at, end: offset + at + length })),
  )
}

/**
 * The contents that `first` chunks are wanted for, chunk by chunk. Of several that share a chunk it is those of which everything is wanted,
 * if there are any: pieces of any two programs may be alike, where a writer cuts by contents.
 */
function wantedBy(first: readonly number[], contents: readonly Content[]): Set<Content> {
  const users = new Map<number, Content[]>(first.map((chunk) => [chunk, []]))
  for (const content of contents) for (const { chunk } of content.pieces) users.get(chunk)?.push(content)
  const isWhole = ({ pieces }: Content) => pieces.every(({ chunk }) => users.has(chunk))
  const whole = new Set(contents.filter(isWhole))
  return new Set(
    first.flatMap((chunk) => {
      const all = users.get(chunk) as Content[]
      const wholly = all.filter((each) => whole.has(each))
      return wholly.length > 0 ? wholly : all
    }),
  )
}

/** What is wanted first leads; a gap keeps the kernel's read-ahead of it from asking for what comes behind. */
function assignOffsets(leading: ReadonlySet<Content>, contents: readonly Content[]): number {
  let at = 0
  const firstBehind = leading.size === 0 ? undefined : contents.find((each) => !leading.has(each))
  for (const content of new Set([...leading, ...contents])) {
    if (content === firstBehind) at += GAP_BYTES
    content.offset = at
    at += Math.ceil(content.file.inode.size / BLOCK_BYTES) * BLOCK_BYTES
    if (at > DEVICE_BLOCKS_MAX * BLOCK_BYTES) {
      throw Failure.limit(`the layer's files take more than ${DEVICE_BLOCKS_MAX} blocks of ${BLOCK_BYTES} bytes`)
    }
  }
  return at
}

/** The file's content as a key: the digests that its bytes are checked by. Checks on the way that all of them are. */
function identify(file: File, chunks: readonly StoredChunk[], alike: Alike): string {
  const what = JSON.stringify(file.path)
  let key = `${file.inode.size}`
  let at = 0
  for (const extent of file.extents) {
    const { chunk: number, offset, length } = extent
    if (extent.at !== at) throw Failure.corrupt(`${what}: contents at ${at} are missing or overlap`)
    if (!Number.isSafeInteger(length) || length <= 0)
      throw Failure.corrupt(`${what}: a piece of ${length} bytes at ${at}`)
    at += length
    if (number === ZEROS) {
      key += alike.identifyZeros(length)
      continue
    }
    const chunk = chunks[number]
    if (chunk === undefined) throw Failure.corrupt(`${what}: chunk ${number} does not exist`)
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + length > chunk.size) {
      throw Failure.corrupt(`${what}: chunk ${number} has ${chunk.size} bytes, not ${length} at ${offset}`)
    }
    key += alike.identify(number, offset, offset + length, what)
  }
  if (at !== file.inode.size) throw Failure.corrupt(`${what}: has ${file.inode.size} bytes, its contents ${at}`)
  return shorten(key)
}

/** Which bytes of chunks are the same, judged by their checks. */
class Alike {
  readonly #chunks: readonly StoredChunk[]
  /** Chunk -> its checks of decoded bytes, by start. */
  readonly #checks: (readonly Check[] | undefined)[]
  readonly #representatives: (number | undefined)[]
  readonly #byKey = new Map<string, number>()
  #pieces = 0

  constructor(chunks: readonly StoredChunk[]) {
    this.#chunks = chunks
    this.#checks = new Array(chunks.length)
    this.#representatives = new Array(chunks.length)
  }

  /** The first chunk seen that decodes to the same bytes: only that one is fetched. @throws Failure corrupt */
  representative(chunk: number): number {
    const known = this.#representatives[chunk]
    if (known !== undefined) return known
    const checks = this.#checksOf(chunk)
    const size = (this.#chunks[chunk] as StoredChunk).size // checksOf throws where there is none
    let key = `${size}`
    for (const { range, digest } of checks) key += ` ${range.start}-${range.end}=${digest}`
    key = shorten(key)
    const found = this.#byKey.get(key) ?? chunk
    // without checks nothing is known
    if (checks.length > 0 && found === chunk) this.#byKey.set(key, chunk)
    this.#representatives[chunk] = found
    return found
  }

  /** @throws Failure limit */
  identifyZeros(length: number): string {
    this.#count()
    return ` 0+${length}`
  }

  /** Decoded bytes `start` … `end` - 1, which must be covered by checks. @throws Failure corrupt, limit */
  identify(chunk: number, start: number, end: number, what: string): string {
    const checks = this.#checksOf(chunk)
    let key = ''
    let at = start
    for (let i = lastFrom(checks, start); at < end; i++) {
      const check = checks[i]
      if (check === undefined || check.range.start > at || check.range.end <= at) {
        throw Failure.corrupt(`${what}: no digest covers byte ${at} of chunk ${chunk}`)
      }
      this.#count()
      const stop = Math.min(end, check.range.end)
      key += ` ${check.digest}`
      const whole = check.range.start === at && check.range.end === stop
      key += whole ? `+${stop - at}` : `@${at - check.range.start}+${stop - at}`
      at = stop
    }
    return key
  }

  #count(): void {
    if (++this.#pieces > PIECES_MAX) throw Failure.limit(`the layer's files have more than ${PIECES_MAX} pieces`)
  }

  #checksOf(number: number): readonly Check[] {
    const known = this.#checks[number]
    if (known) return known
    const chunk = this.#chunks[number]
    if (chunk === undefined) throw Failure.corrupt(`chunk ${number} does not exist`)
    // most chunks have one check: not worth a copy
    const simple = chunk.checks.length === 1 && chunk.checks[0]?.of === 'decoded'
    const checks = simple ? chunk.checks : chunk.checks.filter(({ of }) => of === 'decoded').sort(byRange)
    for (const { range } of checks) {
      const { start, end } = range
      if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start >= end || end > chunk.size) {
        throw Failure.corrupt(`chunk ${number}: a digest of bytes ${start} to ${end} of ${chunk.size}`)
      }
    }
    this.#checks[number] = checks
    return checks
  }
}

/** Long keys are kept as their digests. */
function shorten(key: string): string {
  return key.length > KEY_MAX_LENGTH ? digestOf(Buffer.from(key)) : key
}

function byRange(a: Check, b: Check): number {
  return a.range.start - b.range.start || a.range.end - b.range.end
}

/** Index of the last check that begins at or before `start`; 0 when none does. */
function lastFrom(checks: readonly Check[], start: number): number {
  let low = 0
  let high = checks.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((checks[middle] as Check).range.start <= start) low = middle + 1
    else high = middle
  }
  return Math.max(0, low - 1)
}
