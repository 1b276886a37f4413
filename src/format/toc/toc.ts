// The JSON table of contents that eStargz defines and zstd:chunked shares: one object a tar entry, `chunk` objects for the second and
// later chunks of a file (stargz-snapshotter docs/estargz.md, "TOC"). Only tables whose digest was checked get here; what they say
// is still anybody's.
//
// Entries are parsed one by one (scan.ts) and kept: some 600 bytes each, so 2,000,000 are a good gigabyte, in a worker.
import { Failure } from '../../errors.ts'
import type { Codec, StoredChunk } from '../../tree/chunk.ts'
import { ENTRIES_MAX } from '../../tree/entries.ts'
import { type Entry, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../tree/entry.ts'
import { quote } from '../path.ts'
import { chunksOf } from './chunks.ts'
import { Fields } from './fields.ts'
import { TocFiles } from './files.ts'
import { scanToc } from './scan.ts'

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
  /** Whether the table may have what containers/storage added (files.ts). */
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
export function parseToc(json: Uint8Array, { end, codec, isZstdChunked }: TocLayout, what: string): Toc {
  const entries: Entry[] = []
  const files = new TocFiles(isZstdChunked)
  let count = 0
  for (const raw of scanToc(json, `${what}: table of contents`)) {
    if (++count > ENTRIES_MAX) throw Failure.limit(`${what}: more than ${ENTRIES_MAX} entries`)
    if (typeof raw.name !== 'string' && !(raw.type === 'chunk' && raw.name === undefined)) {
      throw Failure.corrupt(`${what}: entry number ${count - 1} has no name`)
    }
    const field = new Fields(raw, raw.name ?? files.path, what)
    if (raw.type === 'chunk') {
      files.add(field)
      continue
    }
    files.end()
    const entry = entryOf(field)
    entries.push(entry)
    if (raw.type === 'reg') entry.extents = files.begin(entry, field)
  }
  files.end()
  return { entries, chunks: chunksOf(files.pieces, end, codec, what) }
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
