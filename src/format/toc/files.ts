// The chunks that a table of contents lists for each regular file: the first in the file's own entry, the others in entries that follow.
//
// What containers/storage added to them, and eStargz does not have: the digest of a whole file stands for that of its only chunk, chunks may
// be runs of zeros (`chunkType`), and a file says where its stored bytes end (`endOffset`).
import { Failure } from '../../errors.ts'
import { isDigest } from '../../image/digest.ts'
import { CHUNK_MAX_BYTES } from '../../tree/chunk.ts'
import { type Entry, type Extent, ZEROS } from '../../tree/entry.ts'
import { quote } from '../path.ts'
import type { Piece } from './chunks.ts'
import type { Fields } from './fields.ts'
import { ZeroDigests } from './zero-digest.ts'

/** A file whose chunks are being collected. */
interface File {
  path: string
  size: number
  field: Fields
  extents: Extent[]
  /** The end of the last chunk. */
  at: number
  /** The piece that what is stored next follows; undefined behind zeros. */
  last: Piece | undefined
  /** Where its stored bytes end in the blob; 0: that is not said. */
  end: number
}

/** Collects the files of a table, one at a time. Every method throws Failure corrupt, limit, unsupported: naming layer and entry. */
export class TocFiles {
  /** Of all files, in the order of the table. */
  readonly pieces: Piece[] = []
  readonly #isZstdChunked: boolean
  readonly #zeros = new ZeroDigests()
  #file: File | undefined

  constructor(isZstdChunked: boolean) {
    this.#isZstdChunked = isZstdChunked
  }

  /** Of the file that is being collected. */
  get path(): string | undefined {
    return this.#file?.path
  }

  /** @returns what its extents are collected in */
  begin({ path, size }: Entry, field: Fields): readonly Extent[] {
    const end = this.#isZstdChunked ? field.integer('endOffset') : 0
    const file: File = { path, size, field, extents: [], at: 0, last: undefined, end }
    this.#file = file
    if (size > 0) this.#addTo(file, field)
    return file.extents
  }

  /** A second or later chunk. */
  add(field: Fields): void {
    const file = this.#file
    if (!file || (field.raw.name !== undefined && field.path('name') !== file.path)) {
      throw Failure.corrupt(`${field.what}: a chunk of it does not follow it`)
    }
    this.#addTo(file, field)
  }

  /** The file that is being collected, if any, has all of its chunks. */
  end(): void {
    if (this.#file === undefined) return
    const { field, at, size, last, end } = this.#file
    this.#file = undefined
    if (at !== size) throw Failure.corrupt(`${field.what}: its chunks have ${at} bytes, the file has ${size}`)
    if (last === undefined || end === 0) return
    if (end <= last.offset)
      throw Failure.corrupt(`${field.what}: it ends at ${end}, before its chunk at ${last.offset}`)
    last.end = end
  }

  #addTo(file: File, field: Fields): void {
    const at = field.integer('chunkOffset')
    if (at !== file.at) {
      throw Failure.corrupt(`${file.field.what}: a chunk begins at ${at} where the one before it ends at ${file.at}`)
    }
    // 0 stands for the rest of the file
    const length = field.integer('chunkSize') || file.size - at
    if (length <= 0 || at + length > file.size) {
      throw Failure.corrupt(
        `${file.field.what}: its chunk at ${at} of ${length} bytes is not inside its ${file.size} bytes`,
      )
    }
    file.at = at + length
    const offset = field.integer('offset')
    // also before zeros, which are stored like all else, and not fetched
    if (this.#isZstdChunked && file.last && offset > file.last.offset) file.last.end = offset
    if (this.#isZstdChunked && (isZeros(field) || this.#isLargeZeros(file, field, length))) {
      file.extents.push({ at, chunk: ZEROS, offset: 0, length })
      file.last = undefined
      return
    }
    const inner = field.integer('innerOffset')
    // a tar header comes first, so no file can be at 0
    if (offset === 0 && inner === 0) throw Failure.corrupt(`${file.field.what}: its chunk at ${at} has no offset`)
    const extent = { at, chunk: 0, offset: inner, length }
    file.extents.push(extent)
    const digest = field.digest(this.#isWhole(file, field, length) ? 'digest' : 'chunkDigest', at)
    file.last = { path: file.path, offset, inner, length, digest, extent }
    this.pieces.push(file.last)
  }

  /** Whether the digest of the file is all that there is for its only chunk. */
  #isWhole(file: File, { raw }: Fields, length: number): boolean {
    return this.#isZstdChunked && length === file.size && (raw.chunkDigest ?? '') === ''
  }

  /** Only parts of files have types: a file of nothing but zeros has one chunk, which may be larger than any that could be fetched. */
  #isLargeZeros(file: File, field: Fields, length: number): boolean {
    if (length <= CHUNK_MAX_BYTES || !this.#isWhole(file, field, length)) return false
    const { digest } = field.raw
    return isDigest(digest) && this.#zeros.of(length) === digest
  }
}

function isZeros(field: Fields): boolean {
  const type = field.raw.chunkType ?? ''
  if (type === '' || type === 'zeros') return type !== ''
  throw Failure.unsupported(`${field.what}: its chunk is of type ${quote(type)}`)
}
