// RAFS v6: a bootstrap that is an EROFS image (dragonflyoss/nydus `rafs/src/metadata/layout/v6.rs`), with nydus's own tables in it.
//
//   superblocks │ blob table │ prefetch table │ inodes, directories, addresses of chunks │ chunk table
//
// An inode is called by its nid, which is its place; names are in directories alone. Inodes share no bytes, so all that is read of them is
// never more than the bootstrap has: that bounds what a hostile one costs.
import { Failure } from '../../../errors.ts'
import { DEPTH_MAX, ENTRIES_MAX } from '../../../tree/entries.ts'
import { type Entry, type Extent, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../../tree/entry.ts'
import { quote } from '../../path.ts'
import { RafsBytes } from '../bytes.ts'
import { RafsPaths } from '../paths.ts'
import { RAFS_CHUNKS_MAX, type Rafs } from '../rafs.ts'
import { parseBlobs6 } from './blobs.ts'
import { Chunks6 } from './chunks.ts'
import { type Child6, childrenIn } from './directory.ts'
import { ADDRESS_BYTES, addressAt, addressesOf, contentOf, type Inode6, parseInode6 } from './inode.ts'
import { parseSuperblock6, type Superblock6 } from './superblock.ts'

/** What a nid counts. */
const NID_BYTES = 32

/** @param what names the bootstrap in errors @throws Failure corrupt, limit, unsupported: naming what, and where */
export function parseRafs6(bytes: Uint8Array, what: string): Rafs {
  const from = new RafsBytes(bytes, what)
  const superblock = parseSuperblock6(from)
  const blobs = parseBlobs6(from, superblock.blobs)
  const chunks = new Chunks6(from, blobs, superblock.chunkTable)
  const walk = new Walk(from, superblock, chunks)
  walk.run()
  return { version: 6, blobs, chunks: chunks.all, entries: walk.entries, prefetch: walk.prefetched() }
}

/** A directory whose children are being added. */
interface Open {
  path: string
  children: readonly Child6[]
  next: number
}

class Walk {
  readonly #from: RafsBytes
  readonly #superblock: Superblock6
  readonly #chunks: Chunks6
  /** The first name of each inode. */
  readonly #firsts = new Map<number, Entry>()
  readonly #joined = new RafsPaths()
  readonly entries: Entry[] = []
  /** Of inodes, their xattrs, contents and lists of chunks. */
  #bytes = 0
  #extents = 0
  /** What is being added: errors name it. */
  #nid = 0
  #path = ''
  readonly #inode: RafsBytes

  constructor(from: RafsBytes, superblock: Superblock6, chunks: Chunks6) {
    this.#from = from
    this.#inode = from.within(() => `inode ${this.#nid} (${quote(this.#path)})`)
    this.#superblock = superblock
    this.#chunks = chunks
  }

  /** Depth first, as it lies. @throws Failure */
  run(): void {
    const root = this.#add('', this.#superblock.rootNid)
    if (root === undefined) throw Failure.corrupt(`${this.#from.what}: its root is no directory`)
    const open: Open[] = [root]
    for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
      const child = top.children[top.next++]
      if (child === undefined) {
        open.pop()
        continue
      }
      const below = this.#add(this.#joined.join(top.path, child.name, this.#from), child.nid)
      if (below === undefined) continue
      if (open.push(below) > DEPTH_MAX) {
        throw Failure.limit(`${this.#from.what}: ${quote(below.path)} is deeper than ${DEPTH_MAX} directories`)
      }
    }
  }

  /** The paths that the prefetch table names by their nids; it only orders fetching, so what it names that is not there does not matter. */
  prefetched(): string[] {
    const { start, end } = this.#superblock.prefetch
    const paths: string[] = []
    for (let at = start; at < end; at += 4) {
      const path = this.#firsts.get(this.#from.u32(at))?.path
      if (path !== undefined) paths.push(path)
    }
    return paths
  }

  /** Adds an entry; what a directory has below it is still to be added. */
  #add(path: string, nid: number): Open | undefined {
    if (this.entries.length >= ENTRIES_MAX)
      throw Failure.limit(`${this.#from.what}: it has more than ${ENTRIES_MAX} entries`)
    this.#nid = nid
    this.#path = path
    const from = this.#inode
    const known = this.#firsts.get(nid)
    if (known !== undefined) {
      this.#addLink(known, path, from)
      return undefined
    }
    const at = this.#superblock.inodesAt + nid * NID_BYTES
    const inode = parseInode6(from, at)
    const { mode, mtime, rdev, xattrs } = inode
    const type = mode & S_IFMT
    const { uid, gid } = this.#superblock.hasOwners ? inode : { uid: 0, gid: 0 }
    const entry: Entry = { path, mode, uid, gid, mtime, size: 0 }
    this.entries.push(entry)
    this.#firsts.set(nid, entry)
    this.#take(inode.end - at, from)
    if (rdev !== undefined) entry.rdev = rdev
    if (xattrs !== undefined) entry.xattrs = xattrs
    if (type === S_IFREG) this.#addContents(entry, inode, from)
    if (type !== S_IFDIR && type !== S_IFLNK) return undefined
    const content = contentOf(from, inode)
    this.#take(content.length, from)
    if (type === S_IFDIR) return { path, children: childrenIn(content, from), next: 0 }
    entry.target = from.textOf(content, 'its target')
    return undefined
  }

  /** Another name of an inode, which is not read again: names are short, and what an inode has may be long. */
  #addLink({ path: link, mode, uid, gid, mtime }: Entry, path: string, from: RafsBytes): void {
    if ((mode & S_IFMT) === S_IFDIR) throw Failure.corrupt(`${from.what}: the directory is ${quote(link)} as well`)
    this.entries.push({ path, mode, uid, gid, mtime, size: 0, link })
  }

  #addContents(entry: Entry, inode: Inode6, from: RafsBytes): void {
    const { chunkSize } = this.#superblock
    entry.size = inode.size
    const { start, end } = addressesOf(from, inode, Math.ceil(inode.size / chunkSize))
    this.#take(end - start, from)
    const extents: Extent[] = []
    for (let at = start; at < end; at += ADDRESS_BYTES) {
      const begin = extents.length * chunkSize
      const length = Math.min(chunkSize, inode.size - begin)
      extents.push({ at: begin, chunk: this.#chunks.numberOf(addressAt(from, at), length, from), offset: 0, length })
    }
    this.#extents += extents.length
    if (this.#extents > RAFS_CHUNKS_MAX)
      throw Failure.limit(`${from.what}: files have more than ${RAFS_CHUNKS_MAX} chunks`)
    entry.extents = extents
  }

  #take(bytes: number, from: RafsBytes): void {
    this.#bytes += bytes
    if (this.#bytes > this.#from.bytes.length) {
      throw Failure.corrupt(`${from.what}: inodes before it have bytes in common`)
    }
  }
}
