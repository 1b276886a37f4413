// A tree under construction: mutable, in memory, before it becomes an EROFS image.
import { S_IFDIR, S_IFMT } from './entry.ts'

/** Where a regular file's bytes are. */
export interface Content {
  /** Device slot, from 1. */
  device: number
  /** Bytes from the device's start, a multiple of BLOCK_BYTES. */
  offset: number
}

/** A hard link is one Inode under several names; directories have one name. */
export interface Inode {
  /** st_mode: type and permission bits. */
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
  /** Bytes, regular files only (else 0). */
  size: number
  /** Devices only: [major, minor]. */
  rdev?: readonly [number, number]
  /** Symlinks only. */
  target?: string
  xattrs: ReadonlyMap<string, Uint8Array>
  /** Regular files: null when empty. */
  content?: Content | null
  /** Directories only. */
  children?: Map<string, Inode>
  /** Its number in the image that was planned last; of which the plan has to tell whether it is its own. */
  number?: number
}

export interface Directory extends Inode {
  children: Map<string, Inode>
}

/** Blocks of the image and of devices, bytes. */
export const BLOCK_BYTES = 4096

export const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map()

/** What a directory is that no entry describes: 0755 root:root, 1970. */
export function makeDirectory(): Directory {
  return { mode: S_IFDIR | 0o755, uid: 0, gid: 0, mtime: 0n, size: 0, xattrs: NO_XATTRS, children: new Map() }
}

export function isDirectory(of: Inode): of is Directory {
  return (of.mode & S_IFMT) === S_IFDIR
}
