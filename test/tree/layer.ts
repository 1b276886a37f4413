// Layers for tests: entries with their bytes, cut into chunks, and the device that these fill.
import { createHash } from 'node:crypto'
import { digestOf } from '../../src/image/digest.ts'
import type { Source } from '../../src/tree/build.ts'
import { GZIP, type StoredChunk } from '../../src/tree/chunk.ts'
import { type Entry, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../../src/tree/entry.ts'
import type { Tree } from '../../src/tree/tree.ts'
import type { Line } from '../fixtures/listing.ts'

export type Spec = Partial<Entry> & { path: string; bytes?: string | Uint8Array }

export const MTIME = 1_700_000_000_123_456_789n

const TYPES = new Map<number, Line['type']>([
  [S_IFREG, 'file'],
  [S_IFDIR, 'dir'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'char'],
  [S_IFBLK, 'block'],
  [S_IFIFO, 'fifo'],
])

const bare = { uid: 0, gid: 0, mtime: MTIME, size: 0 }

export function dir(path: string, more: Partial<Entry> = {}): Spec {
  return { ...bare, path, mode: S_IFDIR | 0o755, ...more }
}

export function file(path: string, bytes: string | Uint8Array = '', more: Partial<Entry> = {}): Spec {
  return { ...bare, path, mode: S_IFREG | 0o644, bytes, ...more }
}

export function symlink(path: string, target: string, more: Partial<Entry> = {}): Spec {
  return { ...bare, path, mode: S_IFLNK | 0o777, target, ...more }
}

export function link(path: string, to: string): Spec {
  return { ...bare, path, mode: S_IFREG | 0o644, link: to }
}

export function fifo(path: string, more: Partial<Entry> = {}): Spec {
  return { ...bare, path, mode: S_IFIFO | 0o600, ...more }
}

export interface Layer extends Source {
  entries: Entry[]
  chunks: StoredChunk[]
  /** Digest of a chunk's decoded bytes -> those bytes. */
  decoded: Map<string, Uint8Array>
}

/** Each file becomes chunks of `chunkBytes`, checked as a whole. */
export function layer(specs: readonly Spec[], first: readonly number[] = [], chunkBytes = 10_000): Layer {
  const chunks: StoredChunk[] = []
  const decoded = new Map<string, Uint8Array>()
  const entries = specs.map(({ bytes, ...spec }): Entry => {
    const entry: Entry = { mode: 0, ...bare, ...spec }
    if (bytes === undefined) return entry
    const all = typeof bytes === 'string' ? new TextEncoder().encode(bytes) : bytes
    const extents = []
    for (let at = 0; at < all.length; at += chunkBytes) {
      const piece = all.subarray(at, at + chunkBytes)
      extents.push({ at, chunk: chunks.length, offset: 0, length: piece.length })
      const digest = digestOf(piece)
      decoded.set(digest, piece)
      chunks.push({
        blob: 0,
        stored: { start: chunks.length * 100, end: chunks.length * 100 + 100 },
        size: piece.length,
        codec: GZIP,
        checks: [{ of: 'decoded', range: { start: 0, end: piece.length }, digest }],
      })
    }
    return { ...entry, size: all.length, ...(extents.length > 0 && { extents }) }
  })
  return { blobs: [{ digest: digestOf(Uint8Array.of(1)), size: chunks.length * 100 }], chunks, entries, first, decoded }
}

/** The layer's device with every chunk in its places. */
export function fillDevice(tree: Tree, decoded: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const device = new Uint8Array(tree.chunks.deviceSize)
  for (let i = 0; i < tree.chunks.length; i++) {
    const chunk = tree.chunks.get(i)
    const bytes = decoded.get(chunk.checks[0]?.digest ?? '')
    if (bytes === undefined) throw new Error(`chunk ${i} is not of this layer`)
    for (const { from, length, at } of chunk.places) device.set(bytes.subarray(from, from + length), at)
  }
  return device
}

/** What the script that made samples/expected would say of a tar of these entries; of equal paths the last. */
export function lines(specs: readonly Spec[]): Line[] {
  const byPath = new Map<string, Line>()
  for (const spec of specs) {
    const path = spec.path || '.'
    const { mode = 0, mtime = 0n, uid = 0, gid = 0 } = spec
    const seconds = Math.floor(Number(mtime) / 1e9)
    const line: Line = {
      path,
      type: spec.link === undefined ? (TYPES.get(mode & S_IFMT) ?? 'socket') : 'hardlink',
      mode: `0o${(mode & 0o7777).toString(8)}`,
      uid,
      gid,
      mtime: seconds,
      nanoseconds: Number(mtime - BigInt(seconds) * 1_000_000_000n),
    }
    if (line.type === 'file') {
      const bytes = Buffer.from(spec.bytes ?? '')
      line.size = bytes.length
      line.sha256 = createHash('sha256').update(bytes).digest('hex')
    }
    const target = spec.link ?? spec.target
    if (target !== undefined) line.target = target
    if (spec.rdev) line.rdev = [...spec.rdev]
    if (spec.xattrs?.size) {
      line.xattrs = Object.fromEntries([...spec.xattrs].map(([name, of]) => [name, Buffer.from(of).toString('hex')]))
    }
    byPath.set(path, line)
  }
  return [...byPath.values()]
}
