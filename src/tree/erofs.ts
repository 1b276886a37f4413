// Writes a tree as an EROFS image that holds metadata only: a file is one chunk index, which says where on a device it lies.
//
//   superblock at 1024, device slots behind it, padded to a block
//   inodes: the root, then each directory's children side by side, its first subdirectory's children, …
//           inode (64) | xattrs | chunk index, symlink target, or the last piece of a directory's entries
//   blocks: the whole blocks of directories, and what does not fit a block with its inode, in the same order
//
// The bytes are a pure function of the tree and the devices: no clock, no random uuid.
import { Failure } from '../errors.ts'
import { S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT, S_IFREG } from './entry.ts'
import {
  BLOCK_BITS,
  CHUNK_BASED,
  CHUNK_FORMAT,
  CHUNK_INDEX,
  CHUNK_INDEX_BYTES,
  COMPAT,
  DEVICE,
  DEVICE_SLOT_BYTES,
  DEVICE_TABLE_SLOT,
  DEVICES_MAX,
  DIRENT,
  DIRENT_BYTES,
  EXTENDED,
  encodeDevice,
  FLAT_INLINE,
  FLAT_PLAIN,
  fileType,
  INCOMPAT,
  INODE,
  INODE_BYTES,
  NID_BYTES,
  SUPER,
  SUPER_MAGIC,
  SUPER_OFFSET,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
} from './erofs-format.ts'
import { align, type Plan, planImage, xattrPrefix, xattrsBytes } from './erofs-plan.ts'
import { BLOCK_BYTES, type Directory, type Inode } from './inode.ts'
import { sortNames } from './names.ts'

export interface Device {
  /** 64 hex digits: what the device holds. */
  tag: string
  /** Of BLOCK_BYTES. */
  blocks: number
}

const NANOSECONDS = 1_000_000_000n

/**
 * `root` keeps the limits of entries.ts (names, xattrs, numbers); contents lie within their device.
 * @throws Failure limit when the image would be too large, or names too many devices
 */
export function writeImage(root: Directory, devices: readonly Device[]): Uint8Array {
  if (devices.length > DEVICES_MAX) throw Failure.limit(`an image of ${devices.length} devices: ${DEVICES_MAX} at most`)
  const plan = planImage(root, devices.length)
  const buffer = Buffer.from(new ArrayBuffer(plan.size))
  const view = new DataView(buffer.buffer)
  for (let i = 0; i < plan.inodes.length; i++) writeInode(plan, i, plan.inodes[i] as Inode, buffer, view)
  for (const each of plan.directories) writeEntries(plan, each, buffer, view)
  writeSuper(plan, devices, buffer, view)
  return new Uint8Array(buffer.buffer)
}

function writeInode(plan: Plan, i: number, inode: Inode, buffer: Buffer, view: DataView): void {
  const at = plan.offsets[i] as number
  const type = inode.mode & S_IFMT
  const xattrs = xattrsBytes(inode.xattrs)
  const tail = plan.tailBytes[i] as number
  const plainAt = plan.plainAt[i] as number
  const layout = inode.content ? CHUNK_BASED : tail > 0 ? FLAT_INLINE : FLAT_PLAIN
  view.setUint16(at + INODE.format, EXTENDED | (layout << 1), true)
  view.setUint16(at + INODE.xattrCount, xattrs === 0 ? 0 : (xattrs - XATTR_HEADER_BYTES) / 4 + 1, true)
  view.setUint16(at + INODE.mode, inode.mode, true)
  writeU64(view, at + INODE.size, type === S_IFREG ? inode.size : (plan.dataBytes[i] as number))
  const device = type === S_IFCHR || type === S_IFBLK
  const union = inode.content ? CHUNK_FORMAT : device ? encodeDevice(inode.rdev ?? [0, 0]) : plainAt / BLOCK_BYTES
  view.setUint32(at + INODE.union, union, true)
  view.setUint32(at + INODE.ino, i + 1, true)
  view.setUint32(at + INODE.uid, inode.uid, true)
  view.setUint32(at + INODE.gid, inode.gid, true)
  const nanoseconds = Number(inode.mtime % NANOSECONDS)
  const seconds = Number(inode.mtime / NANOSECONDS) // which a number holds exactly
  // before 1970 both are below 0 here, and only seconds are in an image
  writeI64(view, at + INODE.mtime, nanoseconds < 0 ? seconds - 1 : seconds)
  view.setUint32(at + INODE.mtimeNs, nanoseconds < 0 ? nanoseconds + Number(NANOSECONDS) : nanoseconds, true)
  view.setUint32(at + INODE.nlink, plan.nlinks[i] as number, true)
  if (xattrs > 0) writeXattrs(inode.xattrs, at + INODE_BYTES, buffer, view)
  const behind = at + INODE_BYTES + xattrs
  if (inode.content) {
    const index = align(behind, CHUNK_INDEX_BYTES)
    view.setUint16(index + CHUNK_INDEX.device, inode.content.device, true)
    view.setUint32(index + CHUNK_INDEX.block, inode.content.offset / BLOCK_BYTES, true)
  } else if (type === S_IFLNK) {
    buffer.write(inode.target ?? '', tail > 0 ? behind : plainAt)
  }
}

/** By name, so that equal sets have equal bytes. */
function writeXattrs(xattrs: ReadonlyMap<string, Uint8Array>, start: number, buffer: Buffer, view: DataView): void {
  let at = start + XATTR_HEADER_BYTES // its name filter and shared count stay 0: unused
  for (const name of sortNames([...xattrs.keys()])) {
    const value = xattrs.get(name) as Uint8Array
    const { index, prefix } = xattrPrefix(name) as { index: number; prefix: string } // xattrsBytes saw to it
    const length = buffer.write(name.slice(prefix.length), at + XATTR_ENTRY_BYTES)
    view.setUint8(at, length)
    view.setUint8(at + 1, index)
    view.setUint16(at + 2, value.length, true)
    buffer.set(value, at + XATTR_ENTRY_BYTES + length)
    at = align(at + XATTR_ENTRY_BYTES + length + value.length, 4)
  }
}

/** Blocks of entries, each: the entries in order, then their names; the last block may lie behind the inode. */
function writeEntries(plan: Plan, of: Plan['directories'][number], buffer: Buffer, view: DataView): void {
  const { number, first, end } = of
  const inode = plan.inodes[number] as Inode
  const tailAt = (plan.offsets[number] as number) + INODE_BYTES + xattrsBytes(inode.xattrs)
  let plainAt = plan.plainAt[number] as number
  for (let i = first; i < end; ) {
    let used = 0
    let stop = i
    for (; stop < end; stop++) {
      const size = DIRENT_BYTES + (plan.entryBytes[stop] as number)
      if (used + size > BLOCK_BYTES) break
      used += size
    }
    const at = stop === end && (plan.tailBytes[number] as number) > 0 ? tailAt : plainAt
    let nameAt = (stop - i) * DIRENT_BYTES
    for (let entry = at; i < stop; i++, entry += DIRENT_BYTES) {
      const child = plan.entryNumbers[i] as number
      writeU64(view, entry + DIRENT.nid, nid(plan, child))
      view.setUint16(entry + DIRENT.nameOffset, nameAt, true)
      view.setUint8(entry + DIRENT.type, fileType((plan.inodes[child] as Inode).mode))
      nameAt += buffer.write(plan.entryNames[i] as string, at + nameAt)
    }
    plainAt += BLOCK_BYTES
  }
}

function writeSuper(plan: Plan, devices: readonly Device[], buffer: Buffer, view: DataView): void {
  view.setUint32(SUPER_OFFSET + SUPER.magic, SUPER_MAGIC, true)
  view.setUint32(SUPER_OFFSET + SUPER.featureCompat, COMPAT, true)
  view.setUint8(SUPER_OFFSET + SUPER.blockBits, BLOCK_BITS)
  view.setUint16(SUPER_OFFSET + SUPER.rootNid, nid(plan, 0), true)
  writeU64(view, SUPER_OFFSET + SUPER.inodes, plan.inodes.length)
  view.setUint32(SUPER_OFFSET + SUPER.blocks, plan.size / BLOCK_BYTES, true)
  view.setUint32(SUPER_OFFSET + SUPER.featureIncompat, INCOMPAT, true)
  view.setUint16(SUPER_OFFSET + SUPER.extraDevices, devices.length, true)
  view.setUint16(SUPER_OFFSET + SUPER.deviceTable, DEVICE_TABLE_SLOT, true)
  for (const [i, { tag, blocks }] of devices.entries()) {
    const at = (DEVICE_TABLE_SLOT + i) * DEVICE_SLOT_BYTES
    buffer.write(tag, at + DEVICE.tag, 'latin1')
    view.setUint32(at + DEVICE.blocks, blocks, true)
  }
  // of the first block from the superblock on, the field itself being zero
  view.setUint32(SUPER_OFFSET + SUPER.checksum, crc32c(buffer.subarray(SUPER_OFFSET, BLOCK_BYTES)), true)
}

function nid(plan: Plan, number: number): number {
  return (plan.offsets[number] as number) / NID_BYTES
}

function writeU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value % 2 ** 32, true)
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true)
}

function writeI64(view: DataView, at: number, value: number): void {
  const high = Math.floor(value / 2 ** 32)
  view.setUint32(at, value - high * 2 ** 32, true)
  view.setInt32(at + 4, high, true)
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

/** CRC-32C (Castagnoli), seeded with all ones and not inverted at the end. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] as number)
  return crc >>> 0
}
