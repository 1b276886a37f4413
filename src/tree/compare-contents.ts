// Whether files that are served by digests have the bytes that a tar has in their place.
//
//   served file ─ device ─ place ─┐
//                                 ├─ chunk ─ check: a digest of decoded bytes
//   others that share the chunk ──┘          = the digest of the tar's bytes for all files below the check?
//
// Bytes that passed a check are those that were hashed here, so one equal digest proves every file below it. Where a file has zeros that
// no chunk holds, the tar's bytes must be zeros.
import type { Range } from '../image/blob.ts'
import { algorithmOf, type ChunkDigest } from '../image/digest.ts'
import type { Check, Chunk } from './chunk.ts'
import type { ChunkTable } from './chunk-table.ts'
import { type FilePair, quote } from './compare-metadata.ts'
import { lastAtOrBefore, type TarBytes } from './compare-tar.ts'
import { type Difference, different, incomparable } from './difference.ts'

/** Decoded bytes `start` … `end` - 1 of a chunk are bytes of `file`, which lie at `tarAt` on the tar's device. */
interface Part extends Range {
  tarAt: number
  file: FilePair
}

/** In a message. */
const NAMES_MAX = 3
/** Of a record of `packedPlaces`. */
const PACKED_BYTES = 24

/**
 * The first difference. Each check is hashed once; where files share decoded bytes, each one's own bytes once more.
 * @param files each inode once, with equal sizes on both sides
 * @throws what reading the tar throws
 */
export async function differentContents(
  files: readonly FilePair[],
  served: ChunkTable,
  tar: TarBytes,
  nameOf: (nid: number) => string,
): Promise<Difference | undefined> {
  const name = ({ nid }: FilePair) => quote(nameOf(nid))
  const distinct: FilePair[] = []
  for (const file of [...files].sort((a, b) => a.at - b.at)) {
    const last = distinct.at(-1)
    if (last === undefined || file.at >= last.at + last.size) distinct.push(file)
    else if (file.at !== last.at || file.size !== last.size) {
      return incomparable(name(file), `it shares a part of its place with ${name(last)}`)
    } else if (!(await tar.isSame(onTar(file), onTar(last)))) {
      return different(`${name(file)}: contents differ: it is served with those of ${name(last)}`)
    }
  }
  const zeros = served.zeros()
  const bare = firstBare(distinct, served, zeros)
  if (bare) return incomparable(name(bare), 'the places of chunks do not cover it exactly')

  const begins = Float64Array.from(distinct, ({ at }) => at)
  for (const { start, end } of zeros) {
    const file = distinct[lastAtOrBefore(begins, start)]
    if (file === undefined || start >= file.at + file.size) continue // nobody's
    if (end > file.at + file.size) return incomparable(name(file), 'its zeros end behind it')
    const tarAt = file.tarAt + start - file.at
    if (await tar.isZeros({ start: tarAt, end: tarAt + end - start })) continue
    return different(
      `${name(file)}: contents differ: bytes ${start - file.at} to ${end - file.at} are zeros as served, not in the tar`,
    )
  }
  for (let i = 0; i < served.length; i++) {
    const chunk = served.get(i)
    const parts: Part[] = []
    for (const { from, length, at } of chunk.places) {
      const file = distinct[lastAtOrBefore(begins, at)]
      if (file === undefined || at >= file.at + file.size) continue // nobody's
      if (at + length > file.at + file.size) return incomparable(name(file), `its chunk ${i} ends behind it`)
      parts.push({ start: from, end: from + length, tarAt: file.tarAt + at - file.at, file })
    }
    const difference = await differentChunk(chunk, parts, tar, name)
    if (difference !== undefined) return difference
  }
  return undefined
}

function onTar({ tarAt, size }: FilePair): Range {
  return { start: tarAt, end: tarAt + size }
}

/**
 * The first file that places and zeros do not cover exactly; `files` ascend and do not overlap. Where one place lies above another, whose
 * bytes are there depends on which was filled last; one that begins before a file is not looked up as the file's.
 */
function firstBare(files: readonly FilePair[], served: ChunkTable, zeros: readonly Range[]): FilePair | undefined {
  const covered = [...placesOf(served), ...zeros].sort((a, b) => a.start - b.start)
  let next = 0
  let end = 0
  for (const file of files) {
    const fileEnd = file.at + file.size
    for (let each = covered[next]; each !== undefined && each.start < fileEnd; each = covered[++next]) {
      if (each.start < end || each.start > Math.max(file.at, end)) return file
      end = each.end
      if (each.start < file.at && end > file.at) return file
    }
    if (end < fileEnd) return file
  }
  return undefined
}

function* placesOf(served: ChunkTable): Iterable<Range> {
  const packed = served.packedPlaces()
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length)
  for (let at = 0; at < packed.length; at += PACKED_BYTES) {
    const start = Number(view.getBigUint64(at, true))
    yield { start, end: start + Number(view.getBigUint64(at + 8, true)) }
  }
}

async function differentChunk(
  chunk: Chunk,
  parts: Part[],
  tar: TarBytes,
  name: (file: FilePair) => string,
): Promise<Difference | undefined> {
  const checks = chunk.checks.filter(({ of }) => of === 'decoded').sort((a, b) => a.range.start - b.range.start)
  const crossed = checks.some(({ range }, i) => range.start < (checks[i - 1]?.range.end ?? 0))
  const naked = crossed ? parts[0] : firstNaked(parts, checks)
  if (naked) {
    const why = crossed ? 'digests of its chunk overlap' : 'no digest of decoded bytes covers it'
    return incomparable(name(naked.file), `${why}`)
  }
  parts.sort((a, b) => a.start - b.start)
  let below: Part[] = []
  let next = 0
  for (const { range, digest } of checks) {
    below = below.filter(({ end }) => end > range.start)
    for (; (parts[next]?.start ?? range.end) < range.end; next++) below.push(parts[next] as Part) // it is there
    if (below.length === 0) continue // nobody reads these bytes
    if (algorithmOf(digest) !== 'sha256') return incomparable(names(below, name), 'its digest is of another kind')
    const difference = await differentCheck(range, digest, below, tar, name)
    if (difference !== undefined) return difference
  }
  return undefined
}

/** The first part that the checks, which ascend and do not overlap, leave uncovered. */
function firstNaked(parts: readonly Part[], checks: readonly Check[]): Part | undefined {
  const covered: Range[] = []
  for (const { range } of checks) {
    const last = covered.at(-1)
    if (last?.end === range.start) last.end = range.end
    else covered.push({ ...range })
  }
  const begins = Float64Array.from(covered, ({ start }) => start)
  return parts.find(({ start, end }) => (covered[lastAtOrBefore(begins, start)]?.end ?? -1) < end)
}

function names(below: readonly Part[], name: (file: FilePair) => string): string {
  const files = [...new Set(below.map(({ file }) => file))]
  return `${files.slice(0, NAMES_MAX).map(name).join(', ')}${files.length > NAMES_MAX ? ', …' : ''}`
}

/** @param below the parts that have bytes of `range`, by start */
async function differentCheck(
  range: Range,
  want: ChunkDigest,
  below: readonly Part[],
  tar: TarBytes,
  name: (file: FilePair) => string,
): Promise<Difference | undefined> {
  /** The tar's bytes for the range, one behind the other; each with the decoded byte that it begins at. */
  const chosen: { start: number; end: number; tarAt: number; file: FilePair }[] = []
  let at = range.start
  for (const part of below) {
    if (part.start > at) break
    const end = Math.min(part.end, range.end)
    if (end <= at) continue
    chosen.push({ start: at, end, tarAt: part.tarAt + at - part.start, file: part.file })
    at = end
  }
  if (at < range.end) return incomparable(names(below, name), `its digest covers bytes that are no file's`)
  const got = await tar.digest(chosen.map(({ start, end, tarAt }) => ({ start: tarAt, end: tarAt + end - start })))
  if (got !== want) {
    const shared = new Set(below.map(({ file }) => file)).size > 1 ? ' (they share a chunk)' : ''
    return different(`${names(below, name)}: contents differ${shared}: ${want} as served, ${got} in the tar`)
  }
  return await differentOther(range, below, chosen, tar, name)
}

/** Decoded bytes that several parts have were hashed for one of them: the tar's bytes for the others must be the same. */
async function differentOther(
  range: Range,
  below: readonly Part[],
  chosen: readonly Part[],
  tar: TarBytes,
  name: (file: FilePair) => string,
): Promise<Difference | undefined> {
  const begins = Float64Array.from(chosen, ({ start }) => start)
  for (const part of below) {
    const end = Math.min(part.end, range.end)
    const start = Math.max(part.start, range.start)
    for (let i = lastAtOrBefore(begins, start), at = start; at < end; i++) {
      const by = chosen[i] as Part // they cover the range
      const to = Math.min(end, by.end)
      const own = part.tarAt + at - part.start
      const other = by.tarAt + at - by.start
      if (!(await tar.isSame({ start: own, end: own + to - at }, { start: other, end: other + to - at }))) {
        return different(`${name(part.file)}: contents differ: it is served with bytes of ${name(by.file)}`)
      }
      at = to
    }
  }
  return undefined
}
