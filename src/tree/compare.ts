// Whether a layer's tree, as an index describes it, is the tree of the layer's tar: what has to be shown before the layer may bear the
// name of that tar. What cannot be compared counts as a difference.
import type { Range } from '../image/blob.ts'
import { hex } from '../image/digest.ts'
import type { ChunkTable } from './chunk-table.ts'
import { differentContents } from './compare-contents.ts'
import { pathOf, walkBoth } from './compare-metadata.ts'
import { TarBytes } from './compare-tar.ts'
import { type Difference, incomparable } from './difference.ts'
import { ErofsReader } from './erofs-reader.ts'

/** A tree: an EROFS image as `buildTree` makes it, and its chunk table. */
export interface Side {
  image: Uint8Array
  chunks: ChunkTable
}

export interface CompareOptions {
  signal?: AbortSignal
  /** Files that one of the trees may leave out: the index's own. Where that is all that differs, nothing is proven, nor refuted. */
  mayLack?: ReadonlySet<string>
}

/**
 * The first difference; undefined: the trees are the same. The device of `served` is not read: its
 * bytes are known by their digests, which every chunk has to pass before it gets there.
 *
 * Time grows with the entries, and with the bytes of those chunks that the tar's table does not have as the same piece: they are read
 * from the tar and hashed, once. Memory: some 500 bytes an entry, and one read of 1 MiB at most.
 *
 * @param tar its blob 0 is the tar itself, uncompressed; a file's chunks are pieces of it, not encoded. Its digests are taken at their
 * word: they were made from that tar
 * @param readTar exactly the bytes of `range`
 * @throws Failure corrupt (a damaged image or tar), limit, aborted, and what `readTar` throws
 */
export async function firstDifference(
  served: Side,
  tar: Side,
  readTar: (range: Range) => Uint8Array | Promise<Uint8Array>,
  { signal, mayLack = new Set() }: CompareOptions = {},
): Promise<Difference | undefined> {
  const readers = { served: new ErofsReader(served.image), tar: new ErofsReader(tar.image) }
  const [servedContents, tarContents] = [served.chunks.contentDigest(), tar.chunks.contentDigest()]
  if (!isOf(readers.served, hex(servedContents)) || !isOf(readers.tar, hex(tarContents))) {
    return incomparable('the trees', 'an image and its chunk table do not belong together')
  }
  if (servedContents === tarContents && Buffer.compare(served.image, tar.image) === 0) return undefined
  const walked = walkBoth(readers.served, readers.tar, mayLack)
  if ('difference' in walked) return walked.difference
  const bytes = new TarBytes(tar.chunks, readTar, signal)
  const nameOf = (nid: number) => pathOf(readers.served, nid)
  return (await differentContents(walked.files, served.chunks, bytes, nameOf)) ?? walked.lacking
}

function isOf(reader: ErofsReader, contents: string): boolean {
  return reader.devices.length === 1 && reader.devices[0]?.tag === contents
}
