// A layer's index, parsed -> the layer's tree: its image and its chunks.
import { digestOf, hex } from '../image/digest.ts'
import type { StoredChunk } from './chunk.ts'
import { type ChunkBlob, ChunkTable, encodeChunks } from './chunk-table.ts'
import { growTree } from './entries.ts'
import type { Entry } from './entry.ts'
import { writeImage } from './erofs.ts'
import { BLOCK_BYTES } from './inode.ts'
import { layOut } from './layout.ts'
import type { Tree } from './tree.ts'
import { usuallyRead } from './usually-read.ts'

/** What building takes from a format's `Contents`. */
export interface Source {
  blobs: readonly ChunkBlob[]
  chunks: readonly StoredChunk[]
  entries: Iterable<Entry>
  /** Numbers of the chunks that the image itself wants ready first, in that order. */
  first: readonly number[]
}

/**
 * The same source gives the same bytes.
 * @throws Failure corrupt, limit, unsupported: naming the entry
 */
export function buildTree(source: Source): Tree {
  const { root, files } = growTree(source.entries)
  const wantedFirst = [...source.first, ...usuallyRead(files, source.first.length > 0)]
  const { chunks, first, offsets, zeros, deviceSize } = layOut(source.chunks, wantedFirst, files)
  for (const [i, { inode }] of files.entries()) inode.content = { device: 1, offset: offsets[i] as number }
  const table = new ChunkTable(encodeChunks(source.blobs, chunks, first, deviceSize, zeros))
  const image = writeImage(root, [{ tag: hex(table.contentDigest()), blocks: deviceSize / BLOCK_BYTES }])
  return { image, digest: digestOf(image), chunks: table }
}
