// Runs in a worker: an index -> a tree. Errors go back as plain values, because structured cloning loses their class.
import { move, transferableSymbol, valueSymbol } from 'piscina'
import { type Code, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { buildTree } from '../tree/build.ts'
import { mergeImages } from '../tree/merge.ts'
import type { Tree } from '../tree/tree.ts'
import type { Examination, Examined } from './examine.ts'
import type { Contents, Layer } from './format.ts'
import { formatNamed } from './formats.ts'
import { giveBack } from './memory.ts'

export interface Task {
  format: string
  index: Uint8Array
  layer: Layer
}

/** A Failure as a plain value. */
export interface Failed {
  failure: { code: Code; what: string; why: string | undefined; fix: string | undefined }
}

/** The parts of a Tree. */
export interface Built {
  image: Uint8Array
  digest: Digest
  chunks: Uint8Array
}

export interface Merged {
  image: Uint8Array
}

/** The parts of an `Examined`. */
export type Seen = Omit<Examined, 'tree'> & Built

/** Anything thrown from here is a bug of ours, not of the layer. */
export function build({ format, index, layer }: Task): Built | Failed {
  return attempt(() => {
    try {
      const tree = treeOf(formatNamed(format).parseIndex(index, layer), layer)
      return moved({ image: tree.image, digest: tree.digest, chunks: tree.chunks.bytes }, tree.image, tree.chunks.bytes)
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

/** A whole layer, read and compared. */
export async function examine(examination: Examination): Promise<Seen | Failed> {
  try {
    const { examine: examineLayer } = await import('./examine.ts')
    const { tree, ...seen } = await examineLayer(examination)
    const { image, digest } = tree
    return moved({ ...seen, image, digest, chunks: tree.chunks.bytes }, image, tree.chunks.bytes)
  } catch (error) {
    return failed(error)
  }
}

/** Parsers name the layer in their errors; the builder knows none. */
function treeOf(contents: Contents, layer: Layer): Tree {
  try {
    return buildTree(contents)
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const { why, fix } = error
    throw new Failure(error.code, `layer ${layer.descriptor.digest}: ${error.message}`, {
      ...(why === undefined ? {} : { why }),
      ...(fix === undefined ? {} : { fix }),
    })
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
