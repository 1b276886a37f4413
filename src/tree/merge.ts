// The images of an image's layers -> one image of the tree that overlayfs would show of them.
import { Failure } from '../errors.ts'
import { DEPTH_MAX, ENTRIES_MAX } from './entries.ts'
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './entry.ts'
import { type Device, writeImage } from './erofs.ts'
import { ErofsReader } from './erofs-reader.ts'
import { type Directory, type Inode, isDirectory, makeDirectory, NO_XATTRS } from './inode.ts'
import { isOverlayXattr, isWhiteout, OPAQUE, OPAQUE_XATTR } from './whiteout.ts'

/**
 * `images`: lowest layer first. Neither whiteouts nor overlayfs's xattrs are left. The devices keep their order: with one a layer,
 * slot i is layer i's (from 1), even where nothing of it is left.
 * @throws Failure corrupt, limit
 */
export function mergeImages(images: readonly Uint8Array[]): Uint8Array {
  const root = makeDirectory()
  const devices: Device[] = []
  for (const image of images) {
    const reader = new ErofsReader(image)
    new Layer(reader, devices.length).apply(reader.root, root, 0)
    devices.push(...reader.devices)
  }
  return writeImage(root, devices)
}

/** One layer on its way onto those below. */
class Layer {
  readonly #reader: ErofsReader
  /** Devices of the layers below. */
  readonly #devicesBelow: number
  /** Files, by number: one met again is a hard link. */
  readonly #inodes = new Map<number, Inode>()
  #entries = 0

  constructor(reader: ErofsReader, devicesBelow: number) {
    this.#reader = reader
    this.#devicesBelow = devicesBelow
  }

  /** Puts directory `nid` over `onto`, which takes its metadata. */
  apply(nid: number, onto: Directory, depth: number): void {
    if (depth > DEPTH_MAX)
      throw Failure.corrupt('the image is damaged', { why: `it is deeper than ${DEPTH_MAX} directories` })
    const { mode, uid, gid, mtime } = this.#reader.attributes(nid)
    if ((mode & S_IFMT) !== S_IFDIR)
      throw Failure.corrupt('the image is damaged', { why: `node ${nid} is no directory` })
    const xattrs = this.#reader.xattrs(nid)
    if (isOpaque(xattrs)) onto.children.clear()
    Object.assign(onto, { mode, uid, gid, mtime, xattrs: withoutOverlay(xattrs) })
    for (const child of this.#reader.readdir(nid)) {
      if (++this.#entries > ENTRIES_MAX) throw Failure.limit(`the layer has more than ${ENTRIES_MAX} entries`)
      const above = this.#inode(child.nid)
      const below = onto.children.get(child.name)
      if (isWhiteout(above)) onto.children.delete(child.name)
      else if (isDirectory(above)) {
        const target = below && isDirectory(below) ? below : makeDirectory()
        onto.children.set(child.name, target)
        this.apply(child.nid, target, depth + 1)
      } else onto.children.set(child.name, above)
    }
  }

  #inode(nid: number): Inode {
    const known = this.#inodes.get(nid)
    if (known) return known
    const { mode, uid, gid, mtime, size, rdev } = this.#reader.attributes(nid)
    const type = mode & S_IFMT
    if (type === S_IFDIR) return makeDirectory()
    const inode: Inode = { mode, uid, gid, mtime, size: 0, xattrs: withoutOverlay(this.#reader.xattrs(nid)) }
    if (rdev) inode.rdev = rdev
    if (type === S_IFLNK) inode.target = this.#reader.readlink(nid)
    if (type === S_IFREG) {
      inode.size = size
      const content = this.#reader.content(nid)
      inode.content = content && { device: this.#devicesBelow + content.device, offset: content.offset }
    }
    this.#inodes.set(nid, inode)
    return inode
  }
}

function isOpaque(xattrs: ReadonlyMap<string, Uint8Array>): boolean {
  return xattrs.get(OPAQUE_XATTR)?.[0] === OPAQUE[0]
}

function withoutOverlay(xattrs: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
  if (xattrs.size === 0) return NO_XATTRS
  return new Map([...xattrs].filter(([name]) => !isOverlayXattr(name)))
}
