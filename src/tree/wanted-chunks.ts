// Which chunks files are made of, wherever a tree has put them.
import type { Range } from '../image/blob.ts'
import type { ProfileFile } from '../image/profile.ts'
import type { ChunkTable } from './chunk-table.ts'
import { S_IFMT, S_IFREG } from './entry.ts'
import type { ErofsReader } from './erofs-reader.ts'
import { firstBehind } from './first-behind.ts'

/**
 * Whoever reads so much of a device in a row has the kernel read ahead of him, also beyond a file's end: a read that brings the end waits for
 * what lies behind it on the device as well, though no program wants that.
 */
const IN_A_ROW_BYTES = 256 << 10
/** So far: what Linux reads ahead where nobody says otherwise. */
const READ_AHEAD_BYTES = 128 << 10

/** What of a chunk table is looked at. */
export type PlacedChunks = Pick<ChunkTable, 'length' | 'places'>

/**
 * The chunks that are read where these files are, in the order of the files, each once: those that hold their bytes, and what the kernel reads
 * ahead of whoever reads large ones. What the tree does not have, or has as something else, is passed over.
 * @param image of one device, which `chunks` are of
 * @throws Failure corrupt
 */
export function wantedChunks(
  image: ErofsReader,
  chunks: PlacedChunks,
  files: readonly Pick<ProfileFile, 'path' | 'ranges'>[],
): number[] {
  const wanted = files.flatMap(({ path, ranges }) => placesOf(image, path, ranges))
  const sorted = disjoint(wanted)
  /** By chunk: the first that wants it. */
  const first = new Map<number, number>()
  for (let chunk = 0; chunk < chunks.length; chunk++) {
    chunks.places(chunk, (at, length) => {
      for (let i = firstBehind(sorted, at); i < sorted.length; i++) {
        const range = sorted[i] as Ordered // i is below the length
        if (range.start >= at + length) break
        first.set(chunk, Math.min(first.get(chunk) ?? range.order, range.order))
      }
    })
  }
  return [...first].sort(([a, i], [b, j]) => i - j || a - b).map(([chunk]) => chunk)
}

/** Where the bytes of a file lie on the device. */
function placesOf(image: ErofsReader, path: string, ranges: readonly Range[]): Range[] {
  const nid = image.resolve(path)
  if (nid === undefined || (image.attributes(nid).mode & S_IFMT) !== S_IFREG) return []
  const content = image.content(nid)
  if (content === null) return []
  const { offset, size } = content
  const all = ranges.length === 0 ? [{ start: 0, end: size }] : ranges
  return all
    .filter(({ start }) => start < size)
    .map(({ start, end }) => withReadAhead({ start: offset + start, end: offset + Math.min(end, size) }))
}

function withReadAhead({ start, end }: Range): Range {
  return { start, end: end - start < IN_A_ROW_BYTES ? end : end + READ_AHEAD_BYTES }
}

interface Ordered extends Range {
  order: number
}

/** By start; of what several want, the first has it. */
function disjoint(wanted: readonly Range[]): Ordered[] {
  const result: Ordered[] = []
  const sorted = wanted.map((range, order) => ({ ...range, order })).sort((a, b) => a.start - b.start || a.end - b.end)
  for (const each of sorted) {
    const last = result.at(-1)
    // files lie apart, or are one in one place: then they are joined, as early as the earlier of them
    if (last === undefined || each.start >= last.end) {
      result.push(each)
    } else {
      last.end = Math.max(last.end, each.end)
      last.order = Math.min(last.order, each.order)
    }
  }
  return result
}
