// The JSON table of contents that eStargz defines and zstd:chunked shares: one object a tar entry, `chunk` objects for the second and
// later chunks of a file (stargz-snapshotter docs/estargz.md, "TOC"). Only tables whose digest was checked get here; what they say
// is still anybody's.
//
// Entries are parsed one by one (toc-scan.ts) and kept: some 600 bytes each, so 2,000,000 are a good gigabyte, in a worker.
import { Failure } from '../errors.ts'
import type { Codec, StoredChunk } from '../tree/chunk.ts'
import { ENTRIES_MAX } from '../tree/entries.ts'
import { type Entry, type Extent, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, ZEROS } from '../tree/entry.ts'
import { quote } from './path.ts'
import { chunksOf, type Piece } from './toc-chunks.ts'
import { Fields } from './toc-fields.ts'
import { scanToc } from './toc-scan.ts'

/** (1 << 12) - 1 and (1 << 20) - 1: what a dev_t of Linux holds. */
const MAJOR_MAX = 0xfff
const MINOR_MAX = 0xfffff

const TYPES: ReadonlyMap<unknown, number> = new Map([
  ['dir', S_IFDIR],
  ['reg', S_IFREG],
  ['symlink', S_IFLNK],
  ['hardlink', S_IFREG],
  ['char', S_IFCHR],
  ['block', S_IFBLK],
  ['fifo', S_IFIFO],
])

/** Where the files that a table lists are kept. */
export interface TocLayout {
  /** Where the last chunk ends in the blob (bytes). */
  end: number
  codec: Codec
  /**
   * Whether the table is as containers/storage writes it: the digest of a whole file stands for that of its only chunk, chunks may be runs
   * of zeros (`chunkType`), and a file says where its stored bytes end (`endOffset`).
   */
  isZstdChunked: boolean
}

export interface Toc {
  entries: Entry[]
  /** By ascending stored offset. */
  chunks: StoredChunk[]
}

/**
 * @param what names the layer in errors: `layer sha256:…`
 * @throws Failure corrupt, limit, unsupported: naming layer and entry
 */
export function parseToc(json: Uint8Array, layout: TocLayout, what: string): Toc {
  const entries: Entry[] = []
  const pieces: Piece[] = []
  let count = 0
  let file: File | undefined
  for (const raw of scanToc(json, `${what}: table of contents`)) {
    if (++count > ENTRIES_MAX) throw Failure.limit(`${what}: more than ${ENTRIES_MAX} entries`)
    if (typeof raw.name !== 'string' && !(raw.type === 'chunk' && raw.name === undefined)) {
      throw Failure.corrupt(`${what}: entry number ${count - 1} has no name`)
    }
    const field = new Fields(raw, raw.name ?? file?.path, what)
    if (raw.type === 'chunk') {
      if (!file || (raw.name !== undefined && field.path('name') !== file.path)) {
        throw Failure.corrupt(`${field.what}: a chunk of it does not follow it`)
      }
      addPiece(pieces, file, field, layout)
      continue
    }
    if (file) finish(file)
    file = undefined
    const entry = entryOf(field)
    entries.push(entry)
    if (raw.type !== 'reg') continue
    const end = layout.isZstdChunked ? field.integer('endOffset') : 0
    file = { path: entry.path, size: entry.size, extents: [], at: 0, field, last: undefined, end }
    entry.extents = file.extents
    if (entry.size > 0) addPiece(pieces, file, field, layout)
  }
  if (file) finish(file)
  return { entries, chunks: chunksOf(pieces, layout.end, layout.codec, what) }
}

/** A regular file whose chunks are being collected. */
interface File {
  path: string
  size: number
  extents: Extent[]
  /** The end of the last chunk. */
  at: number
  field: Fields
  /** The piece that what is stored next follows; undefined behind zeros. */
  last: Piece | undefined
  /** Where its stored bytes end in the blob; 0: that is not said. */
  end: number
}

function finish(file: File): void {
  if (file.at !== file.size) {
    throw Failure.corrupt(`${file.field.what}: its chunks have ${file.at} bytes, the file has ${file.size}`)
  }
  const { last, end, field } = file
  if (last === undefined || end === 0) return
  if (end <= last.offset) throw Failure.corrupt(`${field.what}: it ends at ${end}, before its chunk at ${last.offset}`)
  last.end = end
}

/** The next chunk of a file: a piece, or zeros. */
function addPiece(pieces: Piece[], file: File, field: Fields, { isZstdChunked }: TocLayout): void {
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
  const offset = field.integer('offset')
  // also before zeros, which are stored like all else, and not fetched
  if (isZstdChunked && file.last && offset > file.last.offset) file.last.end = offset
  if (isZstdChunked && isZeros(field)) {
    file.extents.push({ at, chunk: ZEROS, offset: 0, length })
    file.at = at + length
    file.last = undefined
    return
  }
  const inner = field.integer('innerOffset')
  // a tar header comes first, so no file can be at 0
  if (offset === 0 && inner === 0) throw Failure.corrupt(`${file.field.what}: its chunk at ${at} has no offset`)
  const extent = { at, chunk: 0, offset: inner, length }
  file.extents.push(extent)
  file.at = at + length
  const isWhole = isZstdChunked && length === file.size && (field.raw.chunkDigest ?? '') === ''
  const digest = field.digest(isWhole ? 'digest' : 'chunkDigest', at)
  file.last = { path: file.path, offset, inner, length, digest, extent }
  pieces.push(file.last)
}

function isZeros(field: Fields): boolean {
  const type = field.raw.chunkType ?? ''
  if (type === '' || type === 'zeros') return type !== ''
  throw Failure.unsupported(`${field.what}: its chunk is of type ${quote(type)}`)
}

/** An entry, without its contents. @throws Failure corrupt, limit */
export function entryOf(field: Fields): Entry {
  const { type } = field.raw
  const format = TYPES.get(type)
  if (format === undefined) throw Failure.corrupt(`${field.what}: its type is ${quote(type)}`)
  const entry: Entry = {
    path: field.path('name'),
    // the tar header's mode, which may hold type bits as well
    mode: format | (field.integer('mode') & 0o7777),
    uid: field.integer('uid', 0xffffffff),
    gid: field.integer('gid', 0xffffffff),
    mtime: field.time('modtime'),
    size: type === 'reg' ? field.integer('size') : 0,
  }
  if (entry.path === '' && type !== 'dir') throw Failure.corrupt(`${field.what}: the root is no directory`)
  if (type === 'hardlink') {
    entry.link = field.path('linkName')
    if (entry.link === '') throw Failure.corrupt(`${field.what}: a hard link to the root`)
    return entry
  }
  if (type === 'symlink') entry.target = field.target('linkName')
  if (type === 'char' || type === 'block') {
    entry.rdev = [field.integer('devMajor', MAJOR_MAX), field.integer('devMinor', MINOR_MAX)]
  }
  const xattrs = field.xattrs('xattrs')
  if (xattrs) entry.xattrs = xattrs
  return entry
}
