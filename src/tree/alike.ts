// Which bytes of a layer are the same, judged by the digests that they are checked by. A digest is looked up once a chunk where it covers all
// of that, which is nearly always so; what is put together of several has a key of them all.
import { Failure } from '../errors.ts'
import { type ChunkDigest, digestOf } from '../image/digest.ts'
import type { Check, StoredChunk } from './chunk.ts'
import type { File } from './entries.ts'
import { type Extent, ZEROS } from './entry.ts'

/** Of all files together: how many checked ranges and runs of zeros may be walked through. Real layers have one or two an extent. */
export const PIECES_MAX = 4_000_000

/** A dozen digests. */
const KEY_MAX_LENGTH = 1000

export class Alike {
  readonly #chunks: readonly StoredChunk[]
  /** Chunk -> its checks of decoded bytes, by start. */
  readonly #checks: (readonly Check[] | undefined)[]
  readonly #representatives: (number | undefined)[]
  /** Digest of all bytes of a chunk, or the key of several -> the first chunk that has it. */
  readonly #chunksBy = new Map<ChunkDigest | string, number>()
  /** Digest of all bytes of a file, or the key of several -> the file's content. */
  readonly #contentsBy = new Map<ChunkDigest | string, number>()
  /** Content -> bytes. */
  readonly #sizes: number[] = []
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
    const { size } = this.#chunks[chunk] as StoredChunk // checksOf throws where there is none
    const found = this.#firstAlike(chunk, checks, size)
    this.#representatives[chunk] = found
    return found
  }

  /**
   * The number of a file's content, counted from 0 in the order in which contents are seen first: the same for files of the same bytes.
   * @throws Failure corrupt when the file is not wholly made of verifiable bytes, limit
   */
  contentOf(file: File): number {
    const { size } = file.inode
    const digest = this.#digestOf(file)
    if (digest !== undefined) {
      this.#count()
      const known = this.#contentsBy.get(digest)
      if (known === undefined) return this.#newContent(digest, size)
      if (this.#sizes[known] === size) return known
    }
    const key = this.#keyOf(file)
    return this.#contentsBy.get(key) ?? this.#newContent(key, size)
  }

  #newContent(key: string, size: number): number {
    const number = this.#sizes.push(size) - 1
    this.#contentsBy.set(key, number)
    return number
  }

  #firstAlike(chunk: number, checks: readonly Check[], size: number): number {
    const [check] = checks
    if (check === undefined) return chunk // without checks nothing is known
    if (checks.length === 1 && check.range.start === 0 && check.range.end === size) {
      const found = this.#chunksBy.get(check.digest)
      if (found === undefined) this.#chunksBy.set(check.digest, chunk)
      // one digest of two lengths is a lie: they are told apart below
      if (found === undefined || this.#chunks[found]?.size === size) return found ?? chunk
    }
    let key = `${size}`
    for (const { range, digest } of checks) key += ` ${range.start}-${range.end}=${digest}`
    key = shorten(key)
    const found = this.#chunksBy.get(key) ?? chunk
    if (found === chunk) this.#chunksBy.set(key, chunk)
    return found
  }

  /** The digest of all of a file's bytes, where it is one piece of a chunk that has a check of its own. @throws Failure corrupt */
  #digestOf({ inode: { size }, extents }: File): ChunkDigest | undefined {
    const [extent] = extents
    if (extents.length !== 1 || extent === undefined || extent.at !== 0 || extent.length !== size) return undefined
    const chunk = this.#chunks[extent.chunk]
    if (chunk === undefined || !isWithin(extent, chunk)) return undefined // whoever walks through it says so
    const checks = this.#checksOf(extent.chunk)
    const { range, digest } = checks[lastFrom(checks, extent.offset)] ?? {}
    return range?.start === extent.offset && range.end === extent.offset + size ? digest : undefined
  }

  /** The digests that a file's bytes are checked by, and how much of what they cover. @throws Failure corrupt, limit */
  #keyOf(file: File): string {
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
        this.#count()
        key += ` 0+${length}`
        continue
      }
      const chunk = this.#chunks[number]
      if (chunk === undefined) throw Failure.corrupt(`${what}: chunk ${number} does not exist`)
      if (!isWithin(extent, chunk)) {
        throw Failure.corrupt(`${what}: chunk ${number} has ${chunk.size} bytes, not ${length} at ${offset}`)
      }
      key += this.#keyOfPiece(number, offset, offset + length, what)
    }
    if (at !== file.inode.size) throw Failure.corrupt(`${what}: has ${file.inode.size} bytes, its contents ${at}`)
    return shorten(key)
  }

  /** Decoded bytes `start` … `end` - 1, which must be covered by checks. @throws Failure corrupt, limit */
  #keyOfPiece(chunk: number, start: number, end: number, what: string): string {
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

function isWithin({ offset, length }: Extent, { size }: StoredChunk): boolean {
  return Number.isSafeInteger(offset) && offset >= 0 && offset + length <= size
}

/** Long keys are kept as their digests. A key has a space behind its first number, so it is nobody's digest of whole bytes. */
function shorten(key: string): string {
  return key.length > KEY_MAX_LENGTH ? ` ${digestOf(Buffer.from(key))}` : key
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
