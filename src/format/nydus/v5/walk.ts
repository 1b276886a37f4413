// The tree of a RAFS v5 bootstrap, from the root down. A directory's children are a range of the inode table. The names of a file have
// an inode each, which bear the same number (`ino`): the first is the file, the others are hard links to it.
import { Failure } from '../../../errors.ts'
import { DEPTH_MAX, NAME_MAX_BYTES } from '../../../tree/entries.ts'
import { type Entry, S_IFDIR, S_IFMT, S_IFREG } from '../../../tree/entry.ts'
import { quote } from '../../path.ts'
import type { RafsBytes } from '../bytes.ts'
import { RafsPaths } from '../paths.ts'
import type { Chunks5 } from './chunks.ts'
import { type Inode5, parseInode5 } from './inode.ts'
import { ALIGNMENT, NUMBER_BYTES, type Superblock5 } from './superblock.ts'

export interface Walked {
  /** Parents first; names in the order of the inode table. */
  entries: Entry[]
  /** By the inode's number: its first path. */
  paths: ReadonlyMap<number, string>
}

/** @throws Failure corrupt, limit, unsupported: naming the inode by its place in the table, from 1 */
export function walk5(from: RafsBytes, superblock: Superblock5, chunks: Chunks5): Walked {
  return new Walk(from, superblock, chunks).run()
}

/** A directory whose children are being visited. */
interface Level {
  path: string
  names: Set<string>
  /** Places in the inode table, from 0. */
  next: number
  end: number
}

class Walk {
  readonly #from: RafsBytes
  readonly #explicitIds: boolean
  readonly #chunks: Chunks5
  readonly #offsets: readonly number[]
  /** By place in the table: an inode that is reached twice has two names that it does not know of, or is below itself. */
  readonly #visited: Uint8Array
  readonly #entries: Entry[] = []
  readonly #paths = new Map<number, string>()
  /** By number, of what is no directory: what further names must say of it, too. */
  readonly #files = new Map<number, Pick<Inode5, 'mode' | 'size' | 'digest'>>()
  readonly #levels: Level[] = []
  readonly #joined = new RafsPaths()
  /** Bytes of the inodes so far, and of what follows them. */
  #read = 0

  constructor(from: RafsBytes, { inodes, explicitIds }: Superblock5, chunks: Chunks5) {
    this.#from = from
    this.#explicitIds = explicitIds
    this.#chunks = chunks
    this.#offsets = Array.from({ length: (inodes.end - inodes.start) / NUMBER_BYTES }, (_, i) =>
      from.u32(inodes.start + i * NUMBER_BYTES),
    )
    this.#visited = new Uint8Array(this.#offsets.length)
  }

  run(): Walked {
    const root = this.#inode(0)
    if ((root.mode & S_IFMT) !== S_IFDIR) {
      throw Failure.corrupt(`${this.#from.what}: its root has mode 0${root.mode.toString(8)}, of no directory`, {
        why: 'the first bootstraps of RAFS v5 had inodes of another layout, which nothing reads any more',
      })
    }
    this.#add(root, '', this.#from)
    for (let level = this.#levels.at(-1); level; level = this.#levels.at(-1)) {
      if (level.next === level.end) this.#levels.pop()
      else this.#visit(level, level.next++)
    }
    return { entries: this.#entries, paths: this.#paths }
  }

  #visit(level: Level, place: number): void {
    const of = this.#of(place)
    const inode = this.#inode(place, of)
    const { name } = inode
    const bytes = Buffer.byteLength(name)
    if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) {
      throw Failure.corrupt(`${of.what}: its name is ${quote(name)}`)
    }
    if (bytes > NAME_MAX_BYTES) throw Failure.limit(`${of.what}: its name has ${bytes} bytes, of ${NAME_MAX_BYTES}`)
    if (level.names.has(name)) throw Failure.corrupt(`${of.what}: ${quote(level.path)} has ${quote(name)} twice`)
    level.names.add(name)
    this.#add(inode, this.#joined.join(level.path, name, of), of)
  }

  #add(inode: Inode5, path: string, of: RafsBytes): void {
    const { ino, mode, mtime, size, rdev, target, xattrs } = inode
    const type = mode & S_IFMT
    // without the flag the image does not say whose the files are; they are shown as the agent's, which is root
    const [uid, gid] = this.#explicitIds ? [inode.uid, inode.gid] : [0, 0]
    const entry: Entry = { path, mode, uid, gid, mtime, size }
    const first = this.#paths.get(ino)
    if (first !== undefined) {
      this.#checkLink(inode, first, of)
      this.#entries.push({ ...entry, size: 0, link: first })
      return
    }
    this.#paths.set(ino, path)
    if (rdev) entry.rdev = rdev
    if (target !== undefined) entry.target = target
    if (xattrs?.size) entry.xattrs = xattrs
    if (type === S_IFREG) entry.extents = this.#chunks.extentsOf(inode, of)
    this.#entries.push(entry)
    if (type === S_IFDIR) this.#enter(inode, path, of)
    else this.#files.set(ino, { mode, size: inode.size, digest: inode.digest })
  }

  /** Two names of one number that say otherwise of its contents are no hard links. */
  #checkLink({ ino, mode, size, digest }: Inode5, first: string, of: RafsBytes): void {
    const file = this.#files.get(ino)
    const isSame =
      file !== undefined &&
      ((file.mode ^ mode) & S_IFMT) === 0 &&
      file.size === size &&
      Buffer.compare(file.digest, digest) === 0
    if (isSame) return
    throw Failure.corrupt(`${of.what}: its number is ${ino}, as that of ${quote(first)}, which is something else`)
  }

  #enter({ children }: Inode5, path: string, of: RafsBytes): void {
    const { start, end } = children
    if (start === end) return
    if (start < 0 || end > this.#offsets.length) {
      throw Failure.corrupt(
        `${of.what}: its children are ${start + 1} to ${end}, there are ${this.#offsets.length} inodes`,
      )
    }
    if (this.#levels.length === DEPTH_MAX) throw Failure.limit(`${of.what}: it is deeper than ${DEPTH_MAX} directories`)
    this.#levels.push({ path, names: new Set(), next: start, end })
  }

  #inode(place: number, of = this.#of(place)): Inode5 {
    const offset = this.#offsets[place]
    if (offset === undefined) throw Failure.corrupt(`${of.what}: the inode table has ${this.#offsets.length}`)
    if (this.#visited[place]) throw Failure.corrupt(`${of.what}: two directories have it, or one twice`)
    this.#visited[place] = 1
    const at = offset * ALIGNMENT
    const inode = parseInode5(of, at)
    // so that all that is read is never more than the bootstrap has, which bounds what a hostile one costs
    this.#read += inode.chunks.end - at
    if (this.#read > of.bytes.length) throw Failure.corrupt(`${of.what}: inodes before it have bytes in common`)
    return inode
  }

  #of(place: number): RafsBytes {
    return this.#from.within(() => `inode ${place + 1}`)
  }
}
