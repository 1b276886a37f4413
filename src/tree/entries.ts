// A layer's entries -> a tree of inodes, as unpacking the layer's tar would make it, whiteouts as overlayfs wants them.
//
// Where entries contradict each other, this does what containers/storage does when it unpacks the tar (`Unpack`), except that it
// refuses what only a walk through a symlink could place:
//   same path twice          the last wins; a directory over a directory keeps the children and takes the new metadata
//   parent missing           a directory 0755 root:root of 1970
//   parent is no directory   refused (mkdir fails there, too); a symlink: refused as unsupported, the engine pulls such a layer itself
//   .wh.NAME and NAME        NAME wins, whichever comes first; a directory is then opaque, as a whiteout means the layers below only
import { Failure } from '../errors.ts'
import { type Entry, type Extent, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT } from './entry.ts'
import { type Directory, type Inode, isDirectory, makeDirectory } from './inode.ts'
import { Links } from './links.ts'
import { makeInode } from './metadata.ts'
import { OPAQUE, OPAQUE_XATTR, parseMarker } from './whiteout.ts'

/** The largest images have a few hundred thousand; missing parents count. */
export const ENTRIES_MAX = 2_000_000
/** Components of a path. */
export const DEPTH_MAX = 256
/** NAME_MAX and PATH_MAX. */
export const NAME_MAX_BYTES = 255
export const PATH_MAX_BYTES = 4096

/** A file that is not empty, and what it consists of. */
export interface File {
  path: string
  inode: Inode
  extents: readonly Extent[]
}

export interface Grown {
  root: Directory
  /** In the order of the index; only those in the tree. */
  files: readonly File[]
}

/** @throws Failure corrupt, limit, unsupported: naming the entry */
export function growTree(entries: Iterable<Entry>): Grown {
  const grower = new Grower()
  for (const entry of entries) grower.add(entry)
  return grower.finish()
}

class Grower {
  readonly #root = makeDirectory()
  readonly #links = new Links()
  readonly #files: File[] = []
  readonly #opaque = new Set<Directory>()
  /** Directory -> name -> the whiteout's entry. */
  readonly #whiteouts = new Map<Directory, Map<string, Entry>>()
  #entries = 0
  #inodes = 1
  /** Whether some entry took the place of another. */
  #replaces = false
  /** The directory that an entry was in last: the next is mostly in the same. */
  #last: { path: string; directory: Directory | undefined } = { path: '', directory: undefined }

  add(entry: Entry): void {
    if (++this.#entries > ENTRIES_MAX) throw Failure.limit(`the layer has more than ${ENTRIES_MAX} entries`)
    const { path } = entry
    if (path === '') {
      this.#setRoot(entry)
      return
    }
    const cut = path.lastIndexOf('/')
    const name = path.slice(cut + 1)
    const known = cut >= 0 && path.slice(0, cut) === this.#last.path ? this.#last.directory : undefined
    const parents = known === undefined ? split(path) : []
    if (known === undefined) parents.pop()
    else checkName(name, path)
    for (const each of parents) {
      const marker = parseMarker(each, path)
      if (marker === 'internal' || marker === 'opaque') return
      if (marker) throw Failure.corrupt(`${quote(path)} lies below a whiteout`)
    }
    const marker = parseMarker(name, path)
    if (marker === 'internal') return
    const parent = known ?? this.#descend(parents, path)
    if (known === undefined && cut >= 0) this.#last = { path: path.slice(0, cut), directory: parent }
    if (marker === 'opaque') this.#opaque.add(parent)
    else if (marker) this.#addWhiteout(parent, marker.removes, entry)
    else if (entry.link !== undefined) this.#addLink(parent, name, entry, entry.link)
    else this.#addInode(parent, name, entry)
  }

  finish(): Grown {
    this.#links.resolve(
      (path) => this.#find(path),
      (path, by) => {
        const parents = path.split('/')
        const name = parents.pop() as string
        this.#descend(parents, path).children.set(name, by)
      },
    )
    for (const [directory, names] of this.#whiteouts) {
      for (const [name, entry] of names) {
        const present = directory.children.get(name)
        if (present === undefined) directory.children.set(name, makeWhiteout(entry))
        else if (isDirectory(present)) this.#opaque.add(present)
      }
    }
    for (const each of this.#opaque) each.xattrs = new Map([...each.xattrs, [OPAQUE_XATTR, OPAQUE]])
    if (!this.#replaces) return { root: this.#root, files: this.#files }
    const reached = reachable(this.#root)
    return { root: this.#root, files: this.#files.filter(({ inode }) => reached.has(inode)) }
  }

  #setRoot(entry: Entry): void {
    if ((entry.mode & S_IFMT) !== S_IFDIR) throw Failure.corrupt('the root is no directory')
    Object.assign(this.#root, { ...makeInode(entry), children: this.#root.children })
  }

  #addInode(parent: Directory, name: string, entry: Entry): void {
    const inode = makeInode(entry)
    const present = parent.children.get(name)
    if (present && isDirectory(present) && isDirectory(inode)) {
      Object.assign(present, { ...inode, children: present.children })
      return
    }
    this.#count()
    if (present !== undefined) this.#replace()
    parent.children.set(name, inode)
    if (inode.size > 0) this.#files.push({ path: entry.path, inode, extents: entry.extents ?? [] })
    else if (entry.extents?.length) throw Failure.corrupt(`${quote(entry.path)} is empty and has contents`)
  }

  #addLink(parent: Directory, name: string, { path }: Entry, link: string): void {
    // what is at `path` goes first, so it cannot be linked to, nor can what is below
    if (link === path || link.startsWith(`${path}/`)) throw Failure.corrupt(`${quote(path)} is a hard link to itself`)
    split(link, () => `the target of hard link ${quote(path)}`)
    this.#count()
    if (parent.children.has(name)) this.#replace()
    parent.children.set(name, this.#links.add(path, this.#find(link) ?? link))
  }

  #replace(): void {
    this.#replaces = true
    this.#last = { path: '', directory: undefined } // it may lie in what is gone
  }

  #addWhiteout(parent: Directory, name: string, entry: Entry): void {
    const names = this.#whiteouts.get(parent) ?? new Map<string, Entry>()
    this.#whiteouts.set(parent, names.set(name, entry))
    this.#count()
  }

  /** The directory at `parents`, made where it is missing. */
  #descend(parents: readonly string[], path: string): Directory {
    let at: Directory = this.#root
    for (const name of parents) {
      let next = at.children.get(name)
      if (next === undefined) {
        this.#count()
        next = makeDirectory()
        at.children.set(name, next)
      }
      if (!isDirectory(next)) throw notADirectory(next, name, path)
      at = next
    }
    return at
  }

  #find(path: string): Inode | undefined {
    let at: Inode | undefined = this.#root
    for (const name of path.split('/')) at = at?.children?.get(name)
    return at
  }

  #count(): void {
    if (++this.#inodes > ENTRIES_MAX)
      throw Failure.limit(`the layer has more than ${ENTRIES_MAX} files and directories`)
  }
}

function makeWhiteout({ path, uid, gid, mtime }: Entry): Inode {
  return makeInode({ path, mode: S_IFCHR, uid, gid, mtime, size: 0, rdev: [0, 0] })
}

function notADirectory(inode: Inode, name: string, path: string): Failure {
  if ((inode.mode & S_IFMT) === S_IFLNK) {
    return Failure.unsupported(`${quote(path)} lies below ${quote(name)}, which is a symlink in the same layer`)
  }
  return Failure.corrupt(`${quote(path)} lies below ${quote(name)}, which is no directory`)
}

/** The components of a path, which messages call `of`. @throws Failure corrupt, limit */
function split(path: string, of = () => quote(path)): string[] {
  if (path.includes('\0') || !path.isWellFormed()) throw Failure.corrupt(`${of()} is no path`)
  if (isLonger(path, PATH_MAX_BYTES)) throw Failure.limit(`${of()} is longer than ${PATH_MAX_BYTES} bytes`)
  const names = path.split('/')
  if (names.length > DEPTH_MAX) throw Failure.limit(`${of()} is deeper than ${DEPTH_MAX} directories`)
  for (const name of names) checkComponent(name, of)
  return names
}

/** The last component of a path whose others were checked. @throws Failure corrupt, limit */
function checkName(name: string, path: string): void {
  const of = () => quote(path)
  if (name.includes('\0') || !name.isWellFormed()) throw Failure.corrupt(`${of()} is no path`)
  if (isLonger(path, PATH_MAX_BYTES)) throw Failure.limit(`${of()} is longer than ${PATH_MAX_BYTES} bytes`)
  checkComponent(name, of)
}

function checkComponent(name: string, of: () => string): void {
  if (name === '' || name === '.' || name === '..') throw Failure.corrupt(`${of()} is no path`)
  if (isLonger(name, NAME_MAX_BYTES)) throw Failure.limit(`${of()} has a name of more than ${NAME_MAX_BYTES} bytes`)
}

/** Of most names their letters tell: none has more than three bytes a unit. */
function isLonger(text: string, maxBytes: number): boolean {
  return text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes
}

function reachable(root: Directory): Set<Inode> {
  const reached = new Set<Inode>([root])
  const pending = [root]
  for (let next = pending.pop(); next; next = pending.pop()) {
    for (const child of next.children.values()) {
      reached.add(child)
      if (isDirectory(child)) pending.push(child)
    }
  }
  return reached
}

/** For messages, whose readers do not want thousands of letters. */
function quote(path: string): string {
  return JSON.stringify(path.length > NAME_MAX_BYTES ? `${path.slice(0, NAME_MAX_BYTES)}…` : path)
}
