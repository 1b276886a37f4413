// Runs in a worker: an index -> a tree. Errors go back as plain values, because structured cloning loses their class.
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { type Code, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Part } from '../image/part.ts'
import type { ProfileFile } from '../image/profile.ts'
import { buildTree } from '../tree/build.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import { ErofsReader } from '../tree/erofs-reader.ts'
import { mergeImages } from '../tree/merge.ts'
import { type DeviceRead, type ReadFile, readFiles } from '../tree/read-files.ts'
import type { Tree } from '../tree/tree.ts'
import { wantedChunks } from '../tree/wanted-chunks.ts'
import type { Examination, Examined } from './examine.ts'
import { type Contents, type Format, type Unit, unitText } from './format.ts'
import { FORMATS, formatNamed } from './formats.ts'
import { giveBack } from './memory.ts'
import type { RawExamination, RawExamined } from './raw-split.ts'

export interface Task {
  index: Uint8Array
  unit: Unit
}

/** A Failure as a plain value. */
export interface Failed {
  failure: { code: Code; what: string; why: string | undefined; fix: string | undefined }
}

/** The parts of a Tree. */
export interface Grown {
  image: Uint8Array
  digest: Digest
  chunks: Uint8Array
  /** Digest of what the chunks hold. */
  content: Digest
}

/** And what its index says of its unit's other layers. */
export interface Built extends Grown {
  parts: readonly Part[] | undefined
}

export interface Merged {
  image: Uint8Array
}

/** An image, and what was read of its devices. */
export interface Reads {
  image: Uint8Array
  reads: readonly DeviceRead[]
}

/** A tree, and the files of it that are wanted. */
export interface Wish {
  image: Uint8Array
  /** A chunk table's bytes. */
  chunks: Uint8Array
  files: readonly ProfileFile[]
}

/** The parts of an `Examined`. */
export type Seen = Omit<Examined, 'tree'> & Grown

/** Anything thrown from here is a bug of ours, not of the layer. */
export function build({ index, unit }: Task): Built | Failed {
  return buildOf(FORMATS, { index, unit })
}

/** The same, where these formats are known. */
export function buildOf(formats: readonly Format[], { index, unit }: Task): Built | Failed {
  return attempt(() => {
    try {
      const contents = formatNamed(unit.format, formats).parseIndex(index, unit)
      const { image, digest, chunks } = treeOf(contents, unit)
      const built = { image, digest, chunks: chunks.bytes, content: chunks.contentDigest(), parts: contents.parts }
      return moved(built, image, chunks.bytes)
    } finally {
      giveBack(index) // a message's is nobody else's
    }
  })
}

/** The images of an image's layers, lowest first, as one. */
export function merge(images: Uint8Array[]): Merged | Failed {
  return attempt(() => {
    const image = mergeImages(images)
    return moved({ image }, image)
  })
}

/** As readFiles has it. */
export function filesOf({ image, reads }: Reads): { files: readonly ReadFile[] } | Failed {
  return attempt(() => ({ files: readFiles(image, reads) }))
}

/** As wantedChunks has it. */
export function chunksOf({ image, chunks, files }: Wish): { wanted: Uint32Array } | Failed {
  return attempt(() => ({
    wanted: Uint32Array.from(wantedChunks(new ErofsReader(image), new ChunkTable(chunks), files)),
  }))
}

/** A whole layer, read and compared. */
export async function examine(examination: Examination): Promise<Seen | Failed> {
  try {
    const { examine: examineLayer } = await import('./examine.ts')
    const { tree, ...seen } = await examineLayer(examination)
    const { image, digest } = tree
    const chunks = tree.chunks.bytes
    return moved({ ...seen, image, digest, chunks, content: tree.chunks.contentDigest() }, image, chunks)
  } catch (error) {
    return failed(error)
  }
}

/** What a thread loads that examines. */
export async function readyToExamine(): Promise<void> {
  await Promise.all([import('./examine.ts'), import('./raw-split.ts')])
}

/** A whole layer, read for its tar alone. */
export async function examineRaw(examination: RawExamination): Promise<RawExamined | Failed> {
  try {
    const { examineRaw: examineLayer } = await import('./raw-split.ts')
    return await examineLayer(examination)
  } catch (error) {
    return failed(error)
  }
}

/** Parsers name the layer in their errors; the builder knows none. */
function treeOf(contents: Contents, unit: Unit): Tree {
  checkBlobs(contents, unit)
  try {
    return buildTree(contents)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const { why, fix } = error
    throw new Failure(error.code, `${unitText(unit)}: ${error.message}`, {
      ...(why === undefined ? {} : { why }),
      ...(fix === undefined ? {} : { fix }),
    })
  }
}

/** An index reads from no blob but those that belong to its image by the manifest, unless it may borrow. @throws Failure corrupt */
function checkBlobs({ blobs }: Contents, unit: Unit): void {
  for (const { digest, size } of blobs) {
    const known = unit.blobs.find((each) => each.digest === digest)
    if (known === undefined ? unit.borrows : (known.size ?? size) === size) continue
    const what =
      known === undefined ? `blob ${digest}, which is none of the image's` : `blob ${digest} with ${size} bytes`
    throw Failure.corrupt(
      `${unitText(unit)}: its index names ${what}`,
      known && { why: `the manifest says ${known.size}` },
    )
  }
}

function attempt<T>(work: () => T): T | Failed {
  try {
    return work()
  } catch (error) {
    return failed(error)
  }
}

function failed(error: unknown): Failed {
  if (!(error instanceof Failure)) throw error
  return { failure: { code: error.code, what: error.message, why: error.why, fix: error.fix } }
}

/** `result`, the bytes in it to be transferred, not copied. */
function moved<T>(result: T, ...bytes: Uint8Array[]): T {
  const buffers = bytes.map((each) => each.buffer).filter((each) => each instanceof ArrayBuffer)
  const parcel = { [transferableSymbol]: [...new Set(buffers)], [valueSymbol]: result }
  return move(parcel as unknown as Parameters<typeof move>[0]) as unknown as T // piscina types only single buffers
}
