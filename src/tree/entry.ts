// One entry of a layer, as every format's parser yields it.

/** As the chunk of an extent: its bytes are zeros, which no chunk holds and nobody fetches. Its `offset` is 0. */
export const ZEROS = -1

/** A piece of a file: `length` bytes at `at` in the file are bytes `offset`… of decoded chunk number `chunk`, or ZEROS. */
export interface Extent {
  at: number
  chunk: number
  offset: number
  length: number
}

/**
 * An entry of a layer in the order of the index; of duplicate paths the last wins, parents may be missing, names may still be
 * OCI whiteouts (`.wh.NAME`). `path` has no leading or trailing slash, no empty, `.` or `..` component and no NUL; the root is ''.
 * Parsers make it so or refuse. A symlink has `target`, a hard link `link` (a path as above) and neither extents nor other metadata.
 */
export interface Entry {
  path: string
  /** st_mode: type and permission bits. */
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
  /** Bytes, regular files only (else 0). Extents cover [0, size) exactly, in order. */
  size: number
  /** Devices only: [major, minor]. */
  rdev?: readonly [number, number]
  target?: string
  link?: string
  xattrs?: ReadonlyMap<string, Uint8Array>
  extents?: readonly Extent[]
}

export const S_IFMT = 0o170000
export const S_IFREG = 0o100000
export const S_IFDIR = 0o040000
export const S_IFLNK = 0o120000
export const S_IFCHR = 0o020000
export const S_IFBLK = 0o060000
export const S_IFIFO = 0o010000
export const S_IFSOCK = 0o140000
