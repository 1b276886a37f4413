// RAFS v5 (dragonflyoss/nydus `rafs/src/metadata/layout/v5.rs`): the tree of a nydus image as older tools lay it out. The addresses and
// the digests of all chunks stand behind the inodes; blobs have no tables of their own.
import type { Range } from '../../../image/blob.ts'
import { RafsBytes } from '../bytes.ts'
import type { Rafs } from '../rafs.ts'
import { parseBlobs5 } from './blobs.ts'
import { Chunks5 } from './chunks.ts'
import { NUMBER_BYTES, parseSuperblock5 } from './superblock.ts'
import { walk5 } from './walk.ts'

/**
 * @param what names the bootstrap in errors
 * @throws Failure corrupt, limit, unsupported: naming the table or the inode
 */
export function parseRafs5(bytes: Uint8Array, what: string): Rafs {
  const from = new RafsBytes(bytes, what)
  const superblock = parseSuperblock5(from)
  const blobs = parseBlobs5(from, superblock)
  const collected = new Chunks5(blobs, superblock.chunkSize)
  const { entries, paths } = walk5(from, superblock, collected)
  const prefetch = pathsIn(from, superblock.prefetch, paths)
  return { version: 5, blobs, chunks: collected.chunks, entries, prefetch }
}

/** Each once. What a table names and is not there does not matter: it only orders fetching. */
function pathsIn(from: RafsBytes, { start, end }: Range, paths: ReadonlyMap<number, string>): string[] {
  const found = new Set<string>()
  for (let at = start; at < end; at += NUMBER_BYTES) {
    const path = paths.get(from.u32(at))
    if (path !== undefined) found.add(path)
  }
  return [...found]
}
