// Reads our own EROFS images. Every offset is checked: a damaged image gives Failure.corrupt, never another file's bytes by accident
// of arithmetic, and no endless loop.
import { Failure } from '../errors.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './entry.ts'
import type { Device } from './erofs.ts'
import {
  BLOCK_BITS,
  CHUNK_BASED,
  CHUNK_FORMAT,
  CHUNK_INDEX,
  CHUNK_INDEX_BYTES,
  DEVICE,
  DEVICE_SLOT_BYTES,
  DEVICE_TAG_BYTES,
  DIRENT,
  DIRENT_BYTES,
  decodeDevice,
  EXTENDED,
  FLAT_INLINE,
  FLAT_PLAIN,
  INCOMPAT,
  INODE,
  INODE_BYTES,
  NID_BYTES,
  SUPER,
  SUPER_BYTES,
  SUPER_MAGIC,
  SUPER_OFFSET,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
  XATTR_PREFIXES,
} from './erofs-format.ts'
import { align } from './erofs-plan.ts'
import { BLOCK_BYTES, type Content } from './inode.ts'
import { TARGET_MAX_BYTES } from './metadata.ts'

export interface Attributes {
  /** The inode's number: st_ino. */
  nid: number
  mode: number
  nlink: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
  /** Bytes, as st_size: of a directory its entries, of a symlink its target. */
  size: number
  /** Devices only: [major, minor]. */
  rdev?: [number, number]
}

export interface Child {
  name: string
  nid: number
}

/** Where an inode's parts are, bytes from the image's start. */
interface Located extends Attributes {
  layout: number
  union: number
  xattrsAt: number
  behind: number
}

const decoder = new TextDecoder('utf-8', { fatal: true })

export class ErofsReader {
  readonly root: number
  readonly devices: readonly Device[]
  readonly #bytes: Uint8Array
  readonly #view: DataView

  /** @throws Failure corrupt when these are not the beginnings of an image of ours */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#need(SUPER_OFFSET, SUPER_BYTES)
    const u32 = (field: number) => this.#view.getUint32(SUPER_OFFSET + field, true)
    if (u32(SUPER.magic) !== SUPER_MAGIC) throw Failure.corrupt('the image is no EROFS image')
    if (u32(SUPER.featureIncompat) !== INCOMPAT || this.#view.getUint8(SUPER_OFFSET + SUPER.blockBits) !== BLOCK_BITS) {
      throw Failure.corrupt('the image is an EROFS image of another kind')
    }
    this.root = this.#view.getUint16(SUPER_OFFSET + SUPER.rootNid, true)
    const slots = this.#view.getUint16(SUPER_OFFSET + SUPER.deviceTable, true)
    const count = this.#view.getUint16(SUPER_OFFSET + SUPER.extraDevices, true)
    this.#need(slots * DEVICE_SLOT_BYTES, count * DEVICE_SLOT_BYTES)
    this.devices = Array.from({ length: count }, (_, i) => {
      const at = (slots + i) * DEVICE_SLOT_BYTES
      const tag = Buffer.from(bytes.subarray(at + DEVICE.tag, at + DEVICE.tag + DEVICE_TAG_BYTES)).toString('latin1')
      return { tag, blocks: this.#view.getUint32(at + DEVICE.blocks, true) }
    })
  }

  attributes(nid: number): Attributes {
    const { mode, nlink, uid, gid, mtime, size, rdev } = this.#locate(nid)
    return { nid, mode, nlink, uid, gid, mtime, size, ...(rdev && { rdev }) }
  }

  /** The node at `path` (components joined by slashes; '' is the root), symlinks not followed. */
  resolve(path: string): number | undefined {
    let at: number | undefined = this.root
    for (const name of path === '' ? [] : path.split('/')) {
      if (at === undefined || (this.#locate(at).mode & S_IFMT) !== S_IFDIR) return undefined
      at = this.lookup(at, name)
    }
    return at
  }

  /** The child `name` of directory `nid`; not '.' or '..'. */
  lookup(nid: number, name: string): number | undefined {
    if (name === '.' || name === '..') return undefined
    const wanted = Buffer.from(name)
    const directory = this.#directory(nid)
    // the last block whose first name is not behind the wanted one
    let low = 0
    let high = directory.blocks
    while (low < high) {
      const middle = (low + high) >>> 1
      const first = this.#names(this.#block(directory, middle)).next().value
      if (first !== undefined && Buffer.compare(first.name, wanted) <= 0) low = middle + 1
      else high = middle
    }
    if (low === 0) return undefined
    for (const each of this.#names(this.#block(directory, low - 1))) {
      if (Buffer.compare(each.name, wanted) === 0) return each.nid
    }
    return undefined
  }

  /** The children of directory `nid` in the order of their names' bytes, without '.' and '..'. */
  *readdir(nid: number): Generator<Child> {
    const directory = this.#directory(nid)
    for (let i = 0; i < directory.blocks; i++) {
      for (const each of this.#names(this.#block(directory, i))) {
        const name = this.#text(each.name)
        if (name !== '.' && name !== '..') yield { name, nid: each.nid }
      }
    }
  }

  readlink(nid: number): string {
    const inode = this.#locate(nid)
    if ((inode.mode & S_IFMT) !== S_IFLNK) throw Failure.usage(`node ${nid} is no symlink`)
    if (inode.size > TARGET_MAX_BYTES) throw this.#corrupt(`symlink ${nid} has ${inode.size} bytes`)
    const at = inode.layout === FLAT_INLINE ? inode.behind : inode.union * BLOCK_BYTES
    return this.#text(this.#slice(at, inode.size))
  }

  xattrs(nid: number): Map<string, Uint8Array> {
    const { xattrsAt, behind } = this.#locate(nid)
    const found = new Map<string, Uint8Array>()
    if (xattrsAt === behind) return found
    if (this.#view.getUint8(xattrsAt + 4) !== 0) throw this.#corrupt(`node ${nid} shares xattrs`)
    for (let at = xattrsAt + XATTR_HEADER_BYTES; at < behind; ) {
      const nameLength = this.#view.getUint8(at)
      const index = this.#view.getUint8(at + 1)
      const valueLength = this.#view.getUint16(at + 2, true)
      const nameAt = at + XATTR_ENTRY_BYTES
      if (nameAt + nameLength + valueLength > behind)
        throw this.#corrupt(`an xattr of node ${nid} ends behind the others`)
      const prefix = XATTR_PREFIXES.find((each) => each.index === index)
      if (prefix === undefined) throw this.#corrupt(`an xattr of node ${nid} has prefix ${index}`)
      found.set(
        prefix.prefix + this.#text(this.#slice(nameAt, nameLength)),
        this.#slice(nameAt + nameLength, valueLength),
      )
      at = align(nameAt + nameLength + valueLength, 4)
    }
    return found
  }

  /** Where regular file `nid` lies; null when it is empty. */
  content(nid: number): (Content & { size: number }) | null {
    const { mode, layout, union, size, behind } = this.#locate(nid)
    if ((mode & S_IFMT) !== S_IFREG) throw Failure.usage(`node ${nid} is no regular file`)
    if (size === 0) return null
    if (layout !== CHUNK_BASED || union !== CHUNK_FORMAT) throw this.#corrupt(`file ${nid} is not one chunk`)
    const at = align(behind, CHUNK_INDEX_BYTES)
    this.#need(at, CHUNK_INDEX_BYTES)
    const device = this.#view.getUint16(at + CHUNK_INDEX.device, true)
    const block = this.#view.getUint32(at + CHUNK_INDEX.block, true)
    const of = this.devices[device - 1]
    if (of === undefined || block + Math.ceil(size / BLOCK_BYTES) > of.blocks) {
      throw this.#corrupt(`file ${nid} does not lie on device ${device}`)
    }
    return { device, offset: block * BLOCK_BYTES, size }
  }

  #locate(nid: number): Located {
    const at = nid * NID_BYTES
    if (!Number.isSafeInteger(at) || at < 0) throw this.#corrupt(`node ${nid} is outside`)
    this.#need(at, INODE_BYTES)
    const u16 = (field: number) => this.#view.getUint16(at + field, true)
    const u32 = (field: number) => this.#view.getUint32(at + field, true)
    const layout = u16(INODE.format) >> 1
    if ((u16(INODE.format) & 1) !== EXTENDED || ![FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED].includes(layout)) {
      throw this.#corrupt(`node ${nid} is no inode`)
    }
    const count = u16(INODE.xattrCount)
    const xattrsAt = at + INODE_BYTES
    const behind = xattrsAt + (count === 0 ? 0 : XATTR_HEADER_BYTES + (count - 1) * 4)
    this.#need(xattrsAt, behind - xattrsAt)
    const mode = u16(INODE.mode)
    const device = (mode & S_IFMT) === S_IFCHR || (mode & S_IFMT) === S_IFBLK
    const size = u32(INODE.size) + u32(INODE.size + 4) * 2 ** 32
    if (!Number.isSafeInteger(size)) throw this.#corrupt(`node ${nid} has ${size} bytes`)
    return {
      nid,
      mode,
      nlink: u32(INODE.nlink),
      uid: u32(INODE.uid),
      gid: u32(INODE.gid),
      mtime: this.#view.getBigInt64(at + INODE.mtime, true) * 1_000_000_000n + BigInt(u32(INODE.mtimeNs)),
      size,
      ...(device && { rdev: decodeDevice(u32(INODE.union)) }),
      layout,
      union: u32(INODE.union),
      xattrsAt,
      behind,
    }
  }

  #directory(nid: number): Located & { blocks: number } {
    const inode = this.#locate(nid)
    if ((inode.mode & S_IFMT) !== S_IFDIR) throw Failure.usage(`node ${nid} is no directory`)
    if (inode.size > this.#bytes.length || inode.layout === CHUNK_BASED) {
      throw this.#corrupt(`directory ${nid} has ${inode.size} bytes`)
    }
    return { ...inode, blocks: Math.ceil(inode.size / BLOCK_BYTES) }
  }

  /** Where block number `i` of a directory is; the last may lie behind the inode. */
  #block({ layout, size, union, behind }: Located, i: number): Span {
    const from = i * BLOCK_BYTES
    const length = Math.min(BLOCK_BYTES, size - from)
    const at = layout === FLAT_INLINE && length < BLOCK_BYTES ? behind : union * BLOCK_BYTES + from
    this.#need(at, length)
    return { at, length }
  }

  *#names({ at, length }: Span): Generator<{ name: Uint8Array; nid: number }> {
    // the first entry's name begins where the entries end
    const count = length < DIRENT_BYTES ? 0 : this.#view.getUint16(at + DIRENT.nameOffset, true) / DIRENT_BYTES
    if (!Number.isInteger(count) || count === 0 || count * DIRENT_BYTES >= length) {
      throw this.#corrupt(`the directory block at ${at} has ${count} entries`)
    }
    for (let i = 0; i < count; i++) {
      const entry = at + i * DIRENT_BYTES
      const start = this.#view.getUint16(entry + DIRENT.nameOffset, true)
      const end = i + 1 < count ? this.#view.getUint16(entry + DIRENT_BYTES + DIRENT.nameOffset, true) : length
      if (start >= end || end > length)
        throw this.#corrupt(`the directory block at ${at} has a name at ${start} to ${end}`)
      let name = this.#slice(at + start, end - start)
      if (i + 1 === count) {
        const nul = name.indexOf(0)
        if (nul >= 0) name = name.subarray(0, nul)
      }
      const nid = this.#view.getUint32(entry, true) + this.#view.getUint32(entry + 4, true) * 2 ** 32
      yield { name, nid }
    }
  }

  #slice(at: number, length: number): Uint8Array {
    this.#need(at, length)
    return this.#bytes.subarray(at, at + length)
  }

  #text(bytes: Uint8Array): string {
    try {
      return decoder.decode(bytes)
    } catch (cause) {
      throw Failure.corrupt('the image has a name that is no UTF-8', { cause })
    }
  }

  #need(at: number, length: number): void {
    if (at + length > this.#bytes.length) throw this.#corrupt(`it ends before byte ${at + length}`)
  }

  #corrupt(why: string): Failure {
    return Failure.corrupt('the image is damaged', { why })
  }
}

interface Span {
  at: number
  length: number
}
