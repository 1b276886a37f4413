// Numbers of the EROFS on-disk format (Linux, fs/erofs/erofs_fs.h), as far as our images use it. All fields are little-endian.
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from './entry.ts'

export const SUPER_OFFSET = 1024
export const SUPER_BYTES = 128
export const SUPER_MAGIC = 0xe0f5e1e2
/** Fields of the superblock, bytes from its start. */
export const SUPER = {
  magic: 0,
  checksum: 4,
  featureCompat: 8,
  blockBits: 12,
  rootNid: 14,
  inodes: 16,
  blocks: 36,
  metaBlock: 40,
  featureIncompat: 80,
  extraDevices: 86,
  deviceTable: 88,
} as const

export const BLOCK_BITS = 12
/** The checksum counts; times are mtimes. */
export const COMPAT = 0x1 | 0x2
/** Chunk-based files; a device table. */
export const INCOMPAT = 0x4 | 0x8

export const DEVICE_SLOT_BYTES = 128
export const DEVICE_TAG_BYTES = 64
/** Fields of a device slot, bytes from its start. */
export const DEVICE = { tag: 0, blocks: 64 } as const
/** The table is found by a 16-bit number of slots from the image's start: right behind the superblock. */
export const DEVICE_TABLE_SLOT = (SUPER_OFFSET + SUPER_BYTES) / DEVICE_SLOT_BYTES
/** The root's number has 16 bits, so the table must end below 65,535 × 32 bytes; images have at most 1,024 layers. */
export const DEVICES_MAX = 4096

/** A node number is the inode's place in the image in units of that many bytes (the metadata area begins at block 0): never 0. */
export const NID_BYTES = 32
export const INODE_BYTES = 64
/** Fields of an extended inode, bytes from its start. */
export const INODE = {
  format: 0,
  xattrCount: 2,
  mode: 4,
  size: 8,
  /** Block of plain data, device number, or chunk format. */
  union: 16,
  ino: 20,
  uid: 24,
  gid: 28,
  mtime: 32,
  mtimeNs: 40,
  nlink: 44,
} as const

/** i_format: bit 0 says extended, bits 1–3 are the data layout. */
export const EXTENDED = 1
export const FLAT_PLAIN = 0
export const FLAT_INLINE = 2
export const CHUNK_BASED = 4

/** 8-byte indexes (0x20), chunks of 2^(12 + 31) bytes: one index a file. */
export const CHUNK_FORMAT = 0x20 | 31
export const CHUNK_BYTES_MAX = 2 ** 43
export const CHUNK_INDEX_BYTES = 8
/** Fields of a chunk index, bytes from its start. */
export const CHUNK_INDEX = { device: 2, block: 4 } as const
/** Block numbers have 32 bits, all ones mean a hole. */
export const DEVICE_BLOCKS_MAX = 0xffff_fffe

export const XATTR_HEADER_BYTES = 12
export const XATTR_ENTRY_BYTES = 4
/** The header, and one 4-byte unit less than the 16-bit count says. */
export const XATTRS_MAX_BYTES = XATTR_HEADER_BYTES + 4 * (0xffff - 1)

/** Prefixes that the format keeps as a number. ACLs are whole names. */
export const XATTR_PREFIXES: readonly { index: number; prefix: string; whole: boolean }[] = [
  { index: 1, prefix: 'user.', whole: false },
  { index: 2, prefix: 'system.posix_acl_access', whole: true },
  { index: 3, prefix: 'system.posix_acl_default', whole: true },
  { index: 4, prefix: 'trusted.', whole: false },
  { index: 6, prefix: 'security.', whole: false },
]

/** Whether an xattr is what decides, beside the mode, who may do what. */
export function isAcl(name: string): boolean {
  return XATTR_PREFIXES.some(({ prefix, whole }) => whole && prefix === name)
}

export const DIRENT_BYTES = 12
/** Fields of a directory entry, bytes from its start. */
export const DIRENT = { nid: 0, nameOffset: 8, type: 10 } as const

/** Linux's generic FT_* numbers. */
export function fileType(mode: number): number {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return 1
    case S_IFDIR:
      return 2
    case S_IFCHR:
      return 3
    case S_IFBLK:
      return 4
    case S_IFIFO:
      return 5
    case S_IFSOCK:
      return 6
    case S_IFLNK:
      return 7
    default:
      return 0
  }
}

/** Linux's 32-bit form of a device number: 12 bits of major, 20 of minor. */
export function encodeDevice([major, minor]: readonly [number, number]): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}

export function decodeDevice(of: number): [number, number] {
  return [(of >>> 8) & 0xfff, (of & 0xff) | ((of >>> 12) & 0xfff00)]
}
