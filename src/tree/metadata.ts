// One entry's metadata -> an inode, within what Linux and EROFS can hold.
import { Failure } from '../errors.ts'
import { type Entry, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from './entry.ts'
import { CHUNK_BYTES_MAX, XATTRS_MAX_BYTES } from './erofs-format.ts'
import { xattrPrefix, xattrsBytes } from './erofs-plan.ts'
import { type Inode, NO_XATTRS } from './inode.ts'
import { isOverlayXattr } from './whiteout.ts'

/** 8 TiB: what one chunk index covers. */
export const FILE_MAX_BYTES = CHUNK_BYTES_MAX
/** PATH_MAX without its NUL. */
export const TARGET_MAX_BYTES = 4095
/** XATTR_NAME_MAX. */
export const XATTR_NAME_MAX_BYTES = 255
/** The size field has 16 bits; Linux would allow one byte more. */
export const XATTR_MAX_BYTES = 0xffff
/** Of an inode's xattrs; 128 bytes are left for the one that makes a directory opaque. */
export const XATTRS_OF_ENTRY_MAX_BYTES = XATTRS_MAX_BYTES - 128
/** Linux takes all ones for "no such user". */
const ID_MAX = 0xffff_fffe
/** Seconds that a number holds exactly, both ways from 1970: 285 million years, in nanoseconds. */
const MTIME_MAX = BigInt(Number.MAX_SAFE_INTEGER) * 1_000_000_000n + 999_999_999n
/** Linux keeps 12 bits of major and 20 of minor. */
const MAJOR_MAX = 0xfff
const MINOR_MAX = 0xfffff

/** @throws Failure corrupt, limit: naming the entry */
export function makeInode(entry: Entry): Inode {
  const of = () => JSON.stringify(entry.path) // of few entries it is asked
  const type = entry.mode & S_IFMT
  if (!isUpTo(entry.mode, 0xffff)) throw Failure.corrupt(`${of()}: ${entry.mode} is no mode`)
  if (!isUpTo(entry.uid, ID_MAX) || !isUpTo(entry.gid, ID_MAX))
    throw Failure.corrupt(`${of()}: ${entry.uid}:${entry.gid} is no owner`)
  if (entry.mtime > MTIME_MAX || entry.mtime < -MTIME_MAX)
    throw Failure.limit(`${of()}: ${entry.mtime} ns is no time Linux keeps`)
  const { mode, uid, gid, mtime } = entry
  const inode: Inode = {
    mode,
    uid,
    gid,
    mtime,
    size: 0,
    xattrs: entry.xattrs ? keptXattrs(entry.xattrs, type, of) : NO_XATTRS,
  }
  switch (type) {
    case S_IFREG:
      if (!Number.isSafeInteger(entry.size) || entry.size < 0)
        throw Failure.corrupt(`${of()}: ${entry.size} is no size`)
      if (entry.size > FILE_MAX_BYTES)
        throw Failure.limit(`${of()}: ${entry.size} bytes, at most ${FILE_MAX_BYTES} are accepted`)
      inode.size = entry.size
      inode.content = null
      break
    case S_IFDIR:
      inode.children = new Map()
      break
    case S_IFLNK:
      // what Linux shows of every symlink, whatever a tar says
      inode.mode = S_IFLNK | 0o777
      inode.target = checkedTarget(entry.target, of)
      break
    case S_IFCHR:
    case S_IFBLK: {
      const [major, minor] = entry.rdev ?? []
      if (!isUpTo(major, MAJOR_MAX) || !isUpTo(minor, MINOR_MAX))
        throw Failure.corrupt(`${of()}: ${major}:${minor} is no device`)
      inode.rdev = [major, minor]
      break
    }
    case S_IFIFO:
    case S_IFSOCK:
      break
    default:
      throw Failure.corrupt(`${of()}: mode 0${entry.mode.toString(8)} has no file type`)
  }
  return inode
}

function isUpTo(value: number | undefined, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max
}

function checkedTarget(target: string | undefined, of: () => string): string {
  if (!target) throw Failure.corrupt(`${of()} is a symlink to nothing`)
  if (target.includes('\0') || !target.isWellFormed()) throw Failure.corrupt(`${of()}: the symlink's target is no path`)
  if (Buffer.byteLength(target) > TARGET_MAX_BYTES) {
    throw Failure.limit(`${of()}: the symlink's target is longer than ${TARGET_MAX_BYTES} bytes`)
  }
  return target
}

/**
 * Without overlayfs's own, and without those that no Linux filesystem can hold: other namespaces, as macOS writes them; `user.` but
 * on files and directories; ACLs of symlinks (xattr(7)).
 */
function canHold(name: string, type: number): boolean {
  const prefix = xattrPrefix(name)
  if (prefix === undefined || isOverlayXattr(name)) return false
  if (prefix.whole) return type !== S_IFLNK
  if (prefix.prefix === 'user.' && type !== S_IFREG && type !== S_IFDIR) return false
  return name !== prefix.prefix
}

function keptXattrs(
  xattrs: ReadonlyMap<string, Uint8Array>,
  type: number,
  of: () => string,
): ReadonlyMap<string, Uint8Array> {
  const kept = new Map<string, Uint8Array>()
  for (const [name, value] of xattrs) {
    if (!canHold(name, type)) continue
    const what = `${of()}: xattr ${JSON.stringify(name.slice(0, XATTR_NAME_MAX_BYTES))}`
    if (name.includes('\0') || !name.isWellFormed()) throw Failure.corrupt(`${what} is no name`)
    if (Buffer.byteLength(name) > XATTR_NAME_MAX_BYTES) {
      throw Failure.limit(`${what} has a name of more than ${XATTR_NAME_MAX_BYTES} bytes`)
    }
    if (value.length > XATTR_MAX_BYTES) {
      throw Failure.limit(`${what} has ${value.length} bytes, at most ${XATTR_MAX_BYTES} are accepted`)
    }
    kept.set(name, value)
  }
  const bytes = xattrsBytes(kept)
  if (bytes > XATTRS_OF_ENTRY_MAX_BYTES) {
    throw Failure.limit(`${of()}: ${bytes} bytes of xattrs, at most ${XATTRS_OF_ENTRY_MAX_BYTES} are accepted`)
  }
  return kept.size === 0 ? NO_XATTRS : kept
}
