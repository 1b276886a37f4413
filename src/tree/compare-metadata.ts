// Two trees side by side: names, kinds, metadata, hard links; everything but what is in the files.
import { Failure } from '../errors.ts'
import { type Difference, different, incomparable } from './difference.ts'
import { DEPTH_MAX, ENTRIES_MAX, NAME_MAX_BYTES } from './entries.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from './entry.ts'
import type { Attributes, Child, ErofsReader } from './erofs-reader.ts'

/** A regular file that is not empty. */
export interface FilePair {
  /** Its node as served. */
  nid: number
  /** Where its contents begin on the served device, bytes. */
  at: number
  /** Where they begin on the tar's device, bytes. */
  tarAt: number
  size: number
}

/**
 * eStargz keeps times in whole seconds: its tools write what Go's `Round(time.Second)` makes of the tar's time, halves upwards. A
 * served time without a fraction is therefore equal to each that rounds to it.
 */
const ROUNDED_TO_NS = 1_000_000_000n
/** The same tools leave out a time whose `Unix()` is 0, that of the whole first second; readers take none for 0. */
const LEFT_OUT_BELOW_NS = 1_000_000_000n

const KINDS: ReadonlyMap<number, string> = new Map([
  [S_IFREG, 'file'],
  [S_IFDIR, 'directory'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'character device'],
  [S_IFBLK, 'block device'],
  [S_IFIFO, 'fifo'],
])

/**
 * The files of both trees, each inode once, and what one of them lacks that it may; or the first difference.
 * @throws Failure corrupt, limit
 */
export function walkBoth(
  served: ErofsReader,
  tar: ErofsReader,
  mayLack: ReadonlySet<string>,
): { files: FilePair[]; lacking: Difference | undefined } | { difference: Difference } {
  const walk = new Walk(served, tar, mayLack)
  const difference = walk.compare('', served.root, tar.root, 0)
  return difference === undefined ? { files: walk.files, lacking: walk.lacking } : { difference }
}

class Walk {
  readonly files: FilePair[] = []
  /** What one of the trees may lack and does, the first; the walk goes on, so that it hides nothing. */
  lacking: Difference | undefined
  readonly #served: ErofsReader
  readonly #tar: ErofsReader
  readonly #mayLack: ReadonlySet<string>
  /** Node as served -> node of the tar; no directories. One to one, or the hard links differ. */
  readonly #pairs = new Map<number, number>()
  readonly #paired = new Set<number>()
  #entries = 0

  constructor(served: ErofsReader, tar: ErofsReader, mayLack: ReadonlySet<string>) {
    this.#served = served
    this.#tar = tar
    this.#mayLack = mayLack
  }

  compare(path: string, nid: number, tarNid: number, depth: number): Difference | undefined {
    if (depth > DEPTH_MAX || ++this.#entries > ENTRIES_MAX + 1) {
      throw Failure.limit(`the tree is deeper than ${DEPTH_MAX} directories, or has more than ${ENTRIES_MAX} entries`)
    }
    const pair = this.#pairs.get(nid)
    if (pair === tarNid) return undefined
    const [node, tarNode] = [this.#served.attributes(nid), this.#tar.attributes(tarNid)]
    const unlike =
      differentAttributes(node, tarNode) ?? differentXattrs(this.#served.xattrs(nid), this.#tar.xattrs(tarNid))
    if (unlike !== undefined) return different(`${quote(path)}: ${unlike}`)
    if (isKind(node, S_IFDIR)) return this.#compareChildren(path, nid, tarNid, depth)
    if (pair !== undefined) {
      const other = quote(pathOf(this.#served, nid))
      return different(`${quote(path)}: a hard link to ${other} as served, a file of its own in the tar`)
    }
    if (this.#paired.has(tarNid)) {
      const other = quote(pathOf(this.#tar, tarNid))
      return different(`${quote(path)}: a hard link to ${other} in the tar, a file of its own as served`)
    }
    this.#pairs.set(nid, tarNid)
    this.#paired.add(tarNid)
    if (isKind(node, S_IFLNK)) {
      const [target, tarTarget] = [this.#served.readlink(nid), this.#tar.readlink(tarNid)]
      if (target !== tarTarget)
        return different(`${quote(path)}: ${unequal('target', quote(target), quote(tarTarget))}`)
    }
    if (isKind(node, S_IFREG)) this.#addFile(nid, tarNid)
    return undefined
  }

  #compareChildren(path: string, nid: number, tarNid: number, depth: number): Difference | undefined {
    const below = (name: string) => (path === '' ? name : `${path}/${name}`)
    const [children, others] = [this.#served.readdir(nid), this.#tar.readdir(tarNid)]
    let [child, other] = [nextOf(children), nextOf(others)]
    while (child || other) {
      if (child && child.name === other?.name) {
        const difference = this.compare(below(child.name), child.nid, other.nid, depth + 1)
        if (difference !== undefined) return difference
        child = nextOf(children)
        other = nextOf(others)
        continue
      }
      const difference = this.#nameOne(nid, tarNid, child, other, below)
      if (difference.lacks === undefined) return difference
      this.lacking ??= { what: difference.what, open: true }
      if (difference.lacks === 'tar') child = nextOf(children)
      else other = nextOf(others)
    }
    return undefined
  }

  /** Which of two names in a directory, the first that differ, the other side does not have, and whether it may. */
  #nameOne(
    nid: number,
    tarNid: number,
    child: Child | undefined,
    other: Child | undefined,
    below: (name: string) => string,
  ): Difference & { lacks?: 'served' | 'tar' } {
    const mayLack = (name: string) => this.#mayLack.has(below(name))
    if (child && this.#tar.lookup(tarNid, child.name) === undefined) {
      const what = `${quote(below(child.name))}: a ${kind(this.#served.attributes(child.nid))} that the tar does not have`
      return mayLack(child.name) ? { what, open: true, lacks: 'tar' } : different(what)
    }
    if (other && this.#served.lookup(nid, other.name) === undefined) {
      const what = `${quote(below(other.name))}: the tar's ${kind(this.#tar.attributes(other.nid))} is not served`
      return mayLack(other.name) ? { what, open: true, lacks: 'served' } : different(what)
    }
    return incomparable(quote(below(child?.name ?? other?.name ?? '')), 'the names around it are in no order')
  }

  #addFile(nid: number, tarNid: number): void {
    const [content, tarContent] = [this.#served.content(nid), this.#tar.content(tarNid)]
    // sizes are equal: none or both
    if (content && tarContent) {
      this.files.push({ nid, at: content.offset, tarAt: tarContent.offset, size: content.size })
    }
  }
}

function nextOf(children: Iterator<Child>): Child | undefined {
  const { done, value } = children.next()
  return done ? undefined : value
}

function differentAttributes(served: Attributes, tar: Attributes): string | undefined {
  if (kind(served) !== kind(tar)) return `a ${kind(served)} as served, a ${kind(tar)} in the tar`
  if (served.mode !== tar.mode) return unequal('mode', octal(served.mode), octal(tar.mode))
  if (served.uid !== tar.uid) return unequal('uid', served.uid, tar.uid)
  if (served.gid !== tar.gid) return unequal('gid', served.gid, tar.gid)
  if (!isSameTime(served.mtime, tar.mtime)) return unequal('mtime', `${served.mtime} ns`, `${tar.mtime} ns`)
  // of directories and symlinks it follows from what they hold, which says more
  if (isKind(served, S_IFREG) && served.size !== tar.size) return unequal('size', served.size, tar.size)
  const [rdev, tarRdev] = [served.rdev?.join(':'), tar.rdev?.join(':')]
  return rdev === tarRdev ? undefined : unequal('device', rdev, tarRdev)
}

function isSameTime(served: bigint, tar: bigint): boolean {
  if (served === tar) return true
  if (served === 0n && tar >= 0n && tar < LEFT_OUT_BELOW_NS) return true
  const behind = tar - served
  return served % ROUNDED_TO_NS === 0n && behind >= -ROUNDED_TO_NS / 2n && behind < ROUNDED_TO_NS / 2n
}

function differentXattrs(
  served: ReadonlyMap<string, Uint8Array>,
  tar: ReadonlyMap<string, Uint8Array>,
): string | undefined {
  for (const [name, value] of served) {
    const other = tar.get(name)
    if (other === undefined) return `it is served with an xattr ${quote(name)} that it does not have in the tar`
    if (Buffer.compare(value, other) !== 0) return `the xattr ${quote(name)} has another value in the tar`
  }
  for (const name of tar.keys()) {
    if (!served.has(name)) return `it is served without the xattr ${quote(name)} that it has in the tar`
  }
  return undefined
}

/** A path of node `nid`, for messages: the whole tree is looked through. */
export function pathOf(reader: ErofsReader, nid: number): string {
  const pending: Child[] = [{ name: '', nid: reader.root }]
  for (let next = pending.pop(); next; next = pending.pop()) {
    for (const child of reader.readdir(next.nid)) {
      const name = next.name === '' ? child.name : `${next.name}/${child.name}`
      if (child.nid === nid) return name
      if (isKind(reader.attributes(child.nid), S_IFDIR)) pending.push({ name, nid: child.nid })
    }
  }
  return ''
}

function isKind({ mode }: Attributes, format: number): boolean {
  return (mode & S_IFMT) === format
}

function kind({ mode, rdev }: Attributes): string {
  if ((mode & S_IFMT) === S_IFCHR && rdev?.[0] === 0 && rdev[1] === 0) return 'whiteout'
  return KINDS.get(mode & S_IFMT) ?? 'socket'
}

function unequal(what: string, served: unknown, tar: unknown): string {
  return `${what} ${served} as served, ${tar} in the tar`
}

function octal(mode: number): string {
  return `0${(mode & 0o7777).toString(8)}`
}

/** For messages, whose readers do not want thousands of letters; the root is "/". */
export function quote(path: string): string {
  return JSON.stringify(path.length > NAME_MAX_BYTES ? `${path.slice(0, NAME_MAX_BYTES)}…` : path || '/')
}
