// Reads a whole layer, once, in a worker: what its tar is called, what engines keep to put it together again, the tree it makes, and
// whether that is the tree that is served for it.
//
//   blob file -> decompress -> tar file      (so that pieces of it can be compared, or copied to a device)
//                           -> scan: digest, index, records for engines -> gzip -> split file
import { readSync } from 'node:fs'
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { buildTree } from '../tree/build.ts'
import { ChunkTable } from '../tree/chunk-table.ts'
import { firstDifference } from '../tree/compare.ts'
import type { Difference } from '../tree/difference.ts'
import type { Tree } from '../tree/tree.ts'
import { TOC_NAME } from './estargz/toc-member.ts'
import { scanTar } from './tar/scan.ts'
import { SplitFile, writeAll } from './tar/split-file.ts'
import { storedTar } from './tar/stored-tar.ts'
import { parseTarIndex } from './tar/tar-index.ts'

/** Descriptors are the process's: whoever asks keeps them open until the examination has ended, well or badly; nothing uses them then. */
export interface Examination {
  layer: Descriptor
  /** Holds the blob, whose digest was checked. */
  blobFd: number
  /** Empty files. */
  tarFd: number
  splitFd: number
  /** Bytes that the tar may have. */
  tarMaxBytes: number
  /** What is served for the layer, if anything is: its image and its chunk table. */
  served: { image: Uint8Array; chunks: Uint8Array } | undefined
}

export interface Examined {
  diffId: Digest
  /** Bytes. */
  tarSize: number
  /** Of the split file: tar-split's records, gzipped, as containers/storage keeps them. */
  split: Digest
  /** The tar's own tree, whose chunks are pieces of the tar. */
  tree: Tree
  /** Where the served tree is another than the tar's. */
  difference: Difference | undefined
}

/** A table that is too large for a chunk is not shown; nor is one that seems to stand behind the tar's end, which no digest vouches for. */
const MAY_LACK: ReadonlySet<string> = new Set([TOC_NAME])

/** @throws Failure corrupt, limit, unsupported (a tar that can be read in two ways), system */
export async function examine({ layer, blobFd, tarFd, splitFd, tarMaxBytes, served }: Examination): Promise<Examined> {
  const what = `layer ${layer.digest}`
  const split = new SplitFile(splitFd)
  try {
    const kept = keptIn(tarFd, storedTar(blobFd, what), tarMaxBytes, what)
    const { diffId, tarSize, index } = await scanTar(kept, split, { what })
    const tree = buildTree(parseTarIndex(index, what))
    let difference: Examined['difference']
    if (served !== undefined) {
      const sides = [{ image: served.image, chunks: new ChunkTable(served.chunks) }, tree] as const
      difference = await firstDifference(...sides, (range) => readRange(tarFd, range), { mayLack: MAY_LACK })
    }
    return { diffId, tarSize, split: await split.end(), tree, difference }
  } finally {
    await split.close()
  }
}

async function* keptIn(
  fd: number,
  tar: AsyncIterable<Uint8Array>,
  maxBytes: number,
  what: string,
): AsyncIterable<Uint8Array> {
  let at = 0
  for await (const piece of tar) {
    if (at + piece.length > maxBytes) {
      throw Failure.limit(`${what}: its tar has more than ${maxBytes} bytes`, {
        fix: 'Free space below the cache directory, or leave this image to the engine.',
      })
    }
    writeAll(fd, piece, at)
    at += piece.length
    yield piece
  }
}

function readRange(fd: number, { start, end }: Range): Uint8Array {
  const bytes = new Uint8Array(end - start)
  for (let done = 0; done < bytes.length; ) {
    const read = readSync(fd, bytes, done, bytes.length - done, start + done)
    if (read === 0) throw new TypeError('a piece of a tar lies outside of it')
    done += read
  }
  return bytes
}
