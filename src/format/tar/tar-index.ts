// The index of a tar: what `scanTar` saw, as lines of JSON. The first names the tar, each of the others is an entry.
//
//   {"diffId":"sha256:…","tarSize":10240}
//   {"name":"etc/hostname","mode":33188,"uid":0,"gid":0,"mtime":"1700000000000000000","size":5,"offset":1024,"pieces":["sha256:…"]}
//
// A file's contents are cut into pieces of PIECE_BYTES, the last one shorter, that follow each other from `offset` on in the tar.
// `mtime` is nanoseconds; a hard link has `link`, a symlink `target`, a device `devMajor` and `devMinor`; values of `xattrs` are base64.
import { Failure } from '../../errors.ts'
import type { Digest } from '../../image/digest.ts'
import { PIECES_MAX } from '../../tree/alike.ts'
import { NONE, type StoredChunk } from '../../tree/chunk.ts'
import { ENTRIES_MAX } from '../../tree/entries.ts'
import type { Entry, Extent } from '../../tree/entry.ts'
import type { Contents } from '../format.ts'
import { Fields } from '../toc/fields.ts'

/** What eStargz's tools cut files into: then the digests of a file in both can be compared without its bytes. */
export const PIECE_BYTES = 4 << 20
/** As much as a table of contents may have. */
export const INDEX_MAX_BYTES = 512 << 20

/** Where the contents of a file are, and what they are. */
export interface Contained {
  offset: number
  pieces: readonly Digest[]
}

const NEWLINE = 0x0a

export class IndexWriter {
  readonly #lines: Buffer[] = []
  readonly #maxBytes: number
  #bytes = 0
  #pieces = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** @throws Failure limit */
  add(entry: Entry, contained: Contained | undefined, what: string): void {
    const { path, mode, uid, gid, mtime, size, rdev, target, link, xattrs } = entry
    this.#pieces += contained?.pieces.length ?? 0
    if (this.#pieces > PIECES_MAX) throw Failure.limit(`${what}: its files have more than ${PIECES_MAX} pieces`)
    this.#push(
      {
        name: path,
        mode,
        uid,
        gid,
        mtime: `${mtime}`,
        size,
        ...contained,
        ...(rdev ? { devMajor: rdev[0], devMinor: rdev[1] } : {}),
        target,
        link,
        xattrs: xattrs && Object.fromEntries([...xattrs].map(([k, v]) => [k, Buffer.from(v).toString('base64')])),
      },
      what,
    )
  }

  finish(diffId: Digest, tarSize: number): Uint8Array {
    return Buffer.concat([Buffer.from(`${JSON.stringify({ diffId, tarSize })}\n`), ...this.#lines])
  }

  #push(line: object, what: string): void {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`)
    this.#bytes += bytes.length
    if (this.#bytes > this.#maxBytes) throw Failure.limit(`${what}: its index is larger than ${this.#maxBytes} bytes`)
    this.#lines.push(bytes)
  }
}

/**
 * What a layer holds that is served from its own tar, uncompressed: the blob is that tar, known by the DiffID, and each chunk is a piece
 * of one file.
 * @param what names the layer in errors
 * @throws Failure corrupt, limit
 */
export function parseTarIndex(index: Uint8Array, what: string): Contents {
  const lines = linesOf(index, `${what}: the index of its tar`)
  const first = lines.next()
  if (first.done) throw Failure.corrupt(`${what}: the index of its tar is cut off`)
  const head = new Fields(first.value, '', what)
  const diffId = head.digest('diffId', 0)
  const tarSize = head.integer('tarSize')
  const entries: Entry[] = []
  const chunks: StoredChunk[] = []
  for (const line of lines) {
    if (entries.length >= ENTRIES_MAX) throw Failure.limit(`${what}: more than ${ENTRIES_MAX} entries`)
    const field = new Fields(line, line.name, what)
    const entry = entryOf(field)
    if (entry.size > 0) entry.extents = cut(field, entry.size, tarSize, chunks)
    entries.push(entry)
  }
  return { blobs: [{ digest: diffId, size: tarSize }], chunks, entries, first: [] }
}

function entryOf(field: Fields): Entry {
  const { raw, what } = field
  const { mtime } = raw
  if (typeof mtime !== 'string' || !/^-?\d{1,26}$/.test(mtime)) throw Failure.corrupt(`${what}: it has no mtime`)
  const entry: Entry = {
    path: raw.name === '' ? '' : field.path('name'),
    mode: field.integer('mode', 0xffff),
    uid: field.integer('uid', 0xffffffff),
    gid: field.integer('gid', 0xffffffff),
    mtime: BigInt(mtime),
    size: field.integer('size'),
  }
  if (raw.link !== undefined) return { ...entry, link: field.path('link') }
  if (raw.target !== undefined) entry.target = field.target('target')
  if (raw.devMajor !== undefined) entry.rdev = [field.integer('devMajor'), field.integer('devMinor')]
  const xattrs = field.xattrs('xattrs')
  if (xattrs) entry.xattrs = xattrs
  return entry
}

/** Adds the chunks of a file. */
function cut(field: Fields, size: number, tarSize: number, chunks: StoredChunk[]): Extent[] {
  const offset = field.integer('offset')
  const { pieces } = field.raw
  if (!Array.isArray(pieces) || pieces.length !== Math.ceil(size / PIECE_BYTES) || offset + size > tarSize) {
    throw Failure.corrupt(`${field.what}: its pieces do not fit it`)
  }
  if (chunks.length + pieces.length > PIECES_MAX) throw Failure.limit(`${field.what}: more than ${PIECES_MAX} pieces`)
  return pieces.map((piece: unknown, i) => {
    const at = i * PIECE_BYTES
    const length = Math.min(PIECE_BYTES, size - at)
    const digest = new Fields({ piece }, field.raw.name, field.what).digest('piece', at)
    chunks.push({
      blob: 0,
      stored: { start: offset + at, end: offset + at + length },
      size: length,
      codec: NONE,
      checks: [{ of: 'decoded', range: { start: 0, end: length }, digest }],
    })
    return { at, chunk: chunks.length - 1, offset: 0, length }
  })
}

/** One at a time: a whole index as one string could be longer than strings get. */
function* linesOf(index: Uint8Array, what: string): Generator<Record<string, unknown>, undefined> {
  const bytes = Buffer.from(index.buffer, index.byteOffset, index.length)
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(NEWLINE, at)
    let line: unknown
    try {
      line = JSON.parse(bytes.toString('utf8', at, end))
    } catch (cause) {
      throw Failure.corrupt(`${what} is no JSON at byte ${at}`, { cause })
    }
    if (end < 0 || typeof line !== 'object' || line === null)
      throw Failure.corrupt(`${what} has no entry at byte ${at}`)
    yield line as Record<string, unknown> // its fields are looked at one by one
    at = end + 1
  }
}
