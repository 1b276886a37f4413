// Where the layer's files lie on its device: each distinct content once, in whole blocks; what the image wants first in front,
// the rest in the order of the index. And with that, which chunks are needed and which of their bytes go where.
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { Alike } from './alike.ts'
import type { Chunk, Place, StoredChunk } from './chunk.ts'
import type { File } from './entries.ts'
import { type Extent, ZEROS } from './entry.ts'
import { DEVICE_BLOCKS_MAX } from './erofs-format.ts'
import { BLOCK_BYTES } from './inode.ts'

export interface Layout {
  /** Those that are needed, in the order of the device but for the first. */
  chunks: Chunk[]
  /** Chunks 0 … first - 1 are what the image wants ready first, in its order. */
  first: number
  /** Of each file: bytes from the device's start. */
  offsets: number[]
  /** Where on the device files have zeros that no chunk holds: ascending, each of one file. */
  zeros: Range[]
  /** Bytes, a multiple of BLOCK_BYTES. */
  deviceSize: number
}

/** The largest read-ahead that FUSE mounts have (their bdi is set to it). */
const READ_AHEAD_BYTES = 1 << 20
/**
 * Whoever reads the first page of what was read ahead makes the kernel read as much again behind it (Linux, `page_cache_async_ra`): it
 * is two read-aheads before its readers. Nothing lies in the gap, so it costs no disk.
 */
const GAP_BYTES = 2 * READ_AHEAD_BYTES

/** A distinct content: its first file stands for all. */
interface Content {
  file: File
  /** The file's extents in terms of the chunks kept, without those of zeros. */
  pieces: readonly Extent[]
  offset: number
}

/** @throws Failure corrupt when a file is not wholly made of verifiable bytes, limit */
export function layOut(chunks: readonly StoredChunk[], wantedFirst: readonly number[], files: readonly File[]): Layout {
  const alike = new Alike(chunks)
  const distinct: Content[] = []
  const contents = files.map((file) => {
    const number = alike.contentOf(file)
    if (number === distinct.length) distinct.push({ file, pieces: piecesOf(file, alike), offset: -1 })
    return distinct[number] as Content // numbers are counted
  })
  const first = [...new Set(wantedFirst.map((chunk) => alike.representative(chunk)))]
  const ordered = inOrder(first, distinct)
  const deviceSize = assignOffsets(ordered)
  const places = collectPlaces(ordered.all, chunks.length)
  // what is wanted first leads, whatever lies before it on the device
  const leading = first.filter((chunk) => places.of[chunk] !== undefined)
  const order = leading.length === 0 ? places.order : [...new Set([...leading, ...places.order])]
  return {
    chunks: order.map((i) => placed(chunks[i] as StoredChunk, places.of[i] as Place[])), // those that have places
    first: leading.length,
    offsets: contents.map(({ offset }) => offset),
    zeros: collectZeros(ordered.all),
    deviceSize,
  }
}

/** Its extents in terms of the chunks kept, without those of zeros; mostly they are that already. */
function piecesOf({ extents }: File, alike: Alike): readonly Extent[] {
  if (extents.every(({ chunk }) => chunk !== ZEROS && alike.representative(chunk) === chunk)) return extents
  return extents
    .filter(({ chunk }) => chunk !== ZEROS)
    .map((each) => ({ ...each, chunk: alike.representative(each.chunk) }))
}

function placed({ blob, stored, size, codec, checks }: StoredChunk, places: Place[]): Chunk {
  if (places.length > 1) places.sort((a, b) => a.from - b.from || a.at - b.at)
  return { blob, stored, size, codec, checks, places }
}

interface Places {
  /** Chunk -> where its bytes go. */
  of: (Place[] | undefined)[]
  /** Chunks in the order of the device, as `contents` are. */
  order: number[]
}

function collectPlaces(contents: readonly Content[], chunks: number): Places {
  const of: Places['of'] = new Array(chunks)
  const order: number[] = []
  for (const { pieces, offset } of contents) {
    for (const { at, chunk, offset: from, length } of pieces) {
      const place = { from, length, at: offset + at }
      const others = of[chunk]
      if (others) others.push(place)
      else {
        of[chunk] = [place]
        order.push(chunk)
      }
    }
  }
  return { of, order }
}

function collectZeros(contents: readonly Content[]): Range[] {
  const zeros: Range[] = []
  for (const { file, pieces, offset } of contents) {
    if (pieces.length === file.extents.length) continue
    for (const { at, chunk, length } of file.extents) {
      if (chunk === ZEROS) zeros.push({ start: offset + at, end: offset + at + length })
    }
  }
  return zeros
}

/** Contents in the order of the device. */
interface Ordered {
  all: readonly Content[]
  /** So many of them are wanted first. */
  leading: number
}

function inOrder(first: readonly number[], contents: readonly Content[]): Ordered {
  if (first.length === 0) return { all: contents, leading: 0 }
  const leading = wantedBy(first, contents)
  return { all: [...leading, ...contents.filter((each) => !leading.has(each))], leading: leading.size }
}

/**
 * The contents that `first` chunks are wanted for, chunk by chunk. Of several that share a chunk it is those of which everything is wanted,
 * if there are any: pieces of any two programs may be alike, where a writer cuts by contents.
 */
function wantedBy(first: readonly number[], contents: readonly Content[]): Set<Content> {
  const users = new Map<number, Content[]>(first.map((chunk) => [chunk, []]))
  for (const content of contents) for (const { chunk } of content.pieces) users.get(chunk)?.push(content)
  const isWhole = ({ pieces }: Content) => pieces.every(({ chunk }) => users.has(chunk))
  const whole = new Set(contents.filter(isWhole))
  return new Set(
    first.flatMap((chunk) => {
      const all = users.get(chunk) as Content[]
      const wholly = all.filter((each) => whole.has(each))
      return wholly.length > 0 ? wholly : all
    }),
  )
}

/** A gap keeps the kernel's read-ahead of what is wanted first from asking for what comes behind. @returns the device's size @throws Failure limit */
function assignOffsets({ all, leading }: Ordered): number {
  let at = 0
  for (const [i, content] of all.entries()) {
    if (i === leading && leading > 0) at += GAP_BYTES
    content.offset = at
    at += Math.ceil(content.file.inode.size / BLOCK_BYTES) * BLOCK_BYTES
    if (at > DEVICE_BLOCKS_MAX * BLOCK_BYTES) {
      throw Failure.limit(`the layer's files take more than ${DEVICE_BLOCKS_MAX} blocks of ${BLOCK_BYTES} bytes`)
    }
  }
  return at
}
