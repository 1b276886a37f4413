// What parsed contents show, in the form of the samples' expected listings; every file is decoded and every check is made.
import { createHash } from 'node:crypto'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'
import type { Contents } from '../../src/format/format.ts'
import { digestOf } from '../../src/image/digest.ts'
import type { StoredChunk } from '../../src/tree/chunk.ts'
import {
  type Entry,
  S_IFBLK,
  S_IFCHR,
  S_IFDIR,
  S_IFIFO,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  ZEROS,
} from '../../src/tree/entry.ts'

const TYPES = new Map([
  [S_IFREG, 'file'],
  [S_IFDIR, 'dir'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'char'],
  [S_IFBLK, 'block'],
  [S_IFIFO, 'fifo'],
])

/** In nanoseconds. */
const SECOND = 1_000_000_000n

/** A line of samples/expected. */
export interface Line {
  path: string
  type: string
  /** As Python writes it: `0o755`. */
  mode: string
  uid: number
  gid: number
  /** Seconds; what is left is not negative. */
  mtime: number
  size?: number
  sha256?: string
  target?: string
  rdev?: number[]
  xattrs?: Record<string, string>
}

export function decode(chunk: StoredChunk, blob: Uint8Array): Uint8Array {
  // of zstd's frames the first alone
  const decompress = chunk.codec.name === 'zstd' ? zstdDecompressSync : gunzipSync
  const stream = decompress(blob.subarray(chunk.stored.start, chunk.stored.end))
  const decoded = new Uint8Array(stream.subarray(0, chunk.size))
  if (decoded.length !== chunk.size)
    throw new Error(`chunk at ${chunk.stored.start} decodes to ${decoded.length} bytes`)
  for (const { range, digest } of chunk.checks) {
    if (digestOf(decoded.subarray(range.start, range.end)) !== digest) {
      throw new Error(`chunk at ${chunk.stored.start} fails its check of ${range.start}-${range.end}`)
    }
  }
  return decoded
}

/** Sorted by path; of equal paths the last. */
export function listing(contents: Contents, blob: Uint8Array): Line[] {
  const decoded = contents.chunks.map((chunk) => decode(chunk, blob))
  const lines = new Map<string, Line>()
  for (const entry of contents.entries) {
    const line = lineOf(entry, decoded)
    lines.set(line.path, line)
  }
  return [...lines.values()].sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)))
}

/** All but what it takes the contents for. */
export function metadataOf(entry: Entry): Line {
  const type = entry.link === undefined ? (TYPES.get(entry.mode & S_IFMT) ?? 'unknown') : 'hardlink'
  const line: Line = {
    path: entry.path || '.',
    type,
    mode: `0o${(entry.mode & 0o7777).toString(8)}`,
    uid: entry.uid,
    gid: entry.gid,
    mtime: Number(entry.mtime / SECOND) - (entry.mtime % SECOND < 0n ? 1 : 0),
  }
  if (type === 'file') line.size = entry.size
  const target = entry.link ?? entry.target
  if (target !== undefined) line.target = target
  if (entry.rdev) line.rdev = [...entry.rdev]
  if (entry.xattrs) {
    line.xattrs = Object.fromEntries(
      [...entry.xattrs].map(([name, value]) => [name, Buffer.from(value).toString('hex')]),
    )
  }
  return line
}

function lineOf(entry: Entry, decoded: Uint8Array[]): Line {
  const line = metadataOf(entry)
  return line.type === 'file' ? { ...line, sha256: sha256Of(entry, decoded) } : line
}

function sha256Of(entry: Entry, decoded: Uint8Array[]): string {
  const hash = createHash('sha256')
  let at = 0
  for (const extent of entry.extents ?? []) {
    if (extent.at !== at) throw new Error(`${entry.path}: extents leave a gap at ${at}`)
    const chunk = extent.chunk === ZEROS ? new Uint8Array(extent.length) : (decoded[extent.chunk] as Uint8Array)
    if (extent.offset + extent.length > chunk.length) throw new Error(`${entry.path}: an extent leaves its chunk`)
    hash.update(chunk.subarray(extent.offset, extent.offset + extent.length))
    at += extent.length
  }
  if (at !== entry.size) throw new Error(`${entry.path}: extents have ${at} bytes of ${entry.size}`)
  return hash.digest('hex')
}
