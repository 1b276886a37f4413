// Which files lie where somebody read on a device, or read at all.
import type { Range } from '../image/blob.ts'
import { FILE_RANGES_MAX } from '../image/profile.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from './entry.ts'
import { ErofsReader } from './erofs-reader.ts'
import { firstBehind } from './first-behind.ts'

/** Bytes `at` … `end` of a device were read, after those before it in the list. */
export interface DeviceRead {
  at: number
  end: number
}

/** A file whose place on a device was read. */
export interface ReadFile {
  path: string
  /** Bytes of the file, ascending and disjoint; none: all of it. */
  ranges: Range[]
  /** Of the file. */
  size: number
  /** Number of the read that touched it first. */
  first: number
}

/** The most of them that are told; files of one content, of which a read tells nothing, could be without number. */
const FILES_MAX = 20_000

/**
 * The files that reads touched, in the order of the first read of each. Of several with one content, which lie in one place, it is all;
 * of several names of one file, the first.
 * @param image of one device; `reads` of that, disjoint
 * @throws Failure corrupt
 */
export function readFiles(image: Uint8Array, reads: readonly DeviceRead[]): ReadFile[] {
  const reader = new ErofsReader(image)
  const sorted = reads.map((read, order) => ({ ...read, order })).sort((a, b) => a.at - b.at)
  const found: ReadFile[] = []
  for (const { path, offset, size } of contents(reader)) {
    if (found.length >= FILES_MAX) break
    const touched: Range[] = []
    let first = Number.POSITIVE_INFINITY
    for (let i = firstBehind(sorted, offset); i < sorted.length; i++) {
      const read = sorted[i] as (typeof sorted)[number] // i is below the length
      if (read.at >= offset + size) break
      touched.push({ start: Math.max(0, read.at - offset), end: Math.min(size, read.end - offset) })
      first = Math.min(first, read.order)
    }
    if (touched.length > 0) found.push({ path, ranges: joined(touched, size), size, first })
  }
  return found.sort((a, b) => a.first - b.first)
}

interface Placed {
  path: string
  offset: number
  size: number
}

/** Regular files that are not empty, each under its first name. */
function* contents(reader: ErofsReader): Generator<Placed> {
  const seen = new Set<number>()
  const folders = [{ nid: reader.root, prefix: '' }]
  for (const folder of folders) {
    for (const { name, nid } of reader.readdir(folder.nid)) {
      if (seen.has(nid)) continue
      seen.add(nid)
      const path = `${folder.prefix}${name}`
      const kind = reader.attributes(nid).mode & S_IFMT
      if (kind === S_IFDIR) folders.push({ nid, prefix: `${path}/` })
      const content = kind === S_IFREG ? reader.content(nid) : null
      if (content !== null) yield { path, ...content }
    }
  }
}

/** None where they are the whole file; what is in too many pieces is one. */
function joined(ranges: readonly Range[], size: number): Range[] {
  const result: Range[] = []
  for (const { start, end } of ranges) {
    const last = result.at(-1)
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end)
    else result.push({ start, end })
  }
  const [first] = result
  const last = result.at(-1)
  if (first === undefined || last === undefined) return []
  if (result.length === 1 && first.start === 0 && first.end === size) return []
  return result.length > FILE_RANGES_MAX ? [{ start: first.start, end: last.end }] : result
}
