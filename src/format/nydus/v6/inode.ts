// One inode of a RAFS v6 bootstrap, as EROFS has them: 32 bytes, or 64 where bit 0 of the first word is set; its xattrs behind it, and
// then what its layout says.
//
//   compact   0 format u16  2 xattrs u16  4 mode u16  8 size u32  16 u u32  24 uid u16  26 gid u16
//   extended  0 format u16  2 xattrs u16  4 mode u16  8 size u64  16 u u32  24 uid u32  28 gid u32  32 seconds i64  40 nanoseconds u32
//
//   flat     content in blocks from u on; with "inline", what is left of a last block stands behind the xattrs
//   chunks   addresses of 8 bytes each, from the next multiple of 8 on: u16 low · u8 blob, counted from 1 · u8 high · u32 unused here
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import { S_IFBLK, S_IFCHR, S_IFMT } from '../../../tree/entry.ts'
import type { RafsBytes } from '../bytes.ts'
import { deviceOf } from '../codes.ts'
import { BLOCK_BYTES } from './superblock.ts'
import { parseXattrs6, xattrsLength } from './xattrs.ts'

const AT = { format: 0, xattrs: 2, mode: 4, size: 8, u: 16, ids: 24, seconds: 32, nanoseconds: 40 }
const COMPACT_BYTES = 32
const EXTENDED_BYTES = 64
export const ADDRESS_BYTES = 8
/** Bits 1 to 3 of the format. */
const LAYOUTS = new Map([
  [0, 'plain'],
  [2, 'inline'],
  [4, 'chunks'],
] as const)
const FORMAT_BITS = 0xf
const SECOND = 1_000_000_000n

export interface Inode6 {
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970; 0 where an inode has none. */
  mtime: bigint
  /** Bytes of a file, of a directory's entries, or of a symlink's target. */
  size: number
  rdev: readonly [number, number] | undefined
  xattrs: ReadonlyMap<string, Uint8Array> | undefined
  layout: 'plain' | 'inline' | 'chunks'
  /** Where the content begins, of which a last piece may be elsewhere. */
  contentAt: number
  /** Behind the inode and its xattrs. */
  end: number
}

/** @param from names the inode in errors @throws Failure corrupt, unsupported */
export function parseInode6(from: RafsBytes, at: number): Inode6 {
  from.holds(at, COMPACT_BYTES, 'it')
  const format = from.u16(at + AT.format)
  const isExtended = (format & 1) !== 0
  const layout = LAYOUTS.get((format >> 1) as 0 | 2 | 4) // any other number has none
  if (format > FORMAT_BITS || layout === undefined)
    throw Failure.corrupt(`${from.what}: its layout is 0x${format.toString(16)}`)
  if (isExtended) from.holds(at, EXTENDED_BYTES, 'it')
  const mode = from.u16(at + AT.mode)
  const type = mode & S_IFMT
  const u = from.u32(at + AT.u)
  const nanoseconds = isExtended ? from.u32(at + AT.nanoseconds) : 0
  if (nanoseconds >= SECOND) throw Failure.corrupt(`${from.what}: its time has ${nanoseconds} nanoseconds`)
  const xattrs = from.range(
    at + (isExtended ? EXTENDED_BYTES : COMPACT_BYTES),
    xattrsLength(from.u16(at + AT.xattrs)),
    'the list of its xattrs',
  )
  return {
    mode,
    uid: isExtended ? from.u32(at + AT.ids) : from.u16(at + AT.ids),
    gid: isExtended ? from.u32(at + AT.ids + 4) : from.u16(at + AT.ids + 2),
    mtime: isExtended ? from.i64(at + AT.seconds) * SECOND + BigInt(nanoseconds) : 0n,
    size: isExtended ? from.u64(at + AT.size, 'its size') : from.u32(at + AT.size),
    rdev: type === S_IFCHR || type === S_IFBLK ? deviceOf(u) : undefined,
    xattrs: parseXattrs6(from, xattrs),
    layout,
    contentAt: u * BLOCK_BYTES,
    end: xattrs.end,
  }
}

/** A directory's or a symlink's content, of a flat layout. @throws Failure corrupt */
export function contentOf(from: RafsBytes, { layout, size, contentAt, end }: Inode6): Uint8Array {
  if (layout === 'chunks') throw Failure.corrupt(`${from.what}: its content is in chunks, as only a file's can be`)
  const tail = layout === 'inline' ? size % BLOCK_BYTES || Math.min(size, BLOCK_BYTES) : 0
  const inline = from.slice(from.range(end, tail, 'the end of its content'))
  if (tail === size) return inline
  const blocks = from.slice(from.range(contentAt, size - tail, 'its content'))
  return tail === 0 ? blocks : Buffer.concat([blocks, inline])
}

/** A chunk's address: its blob, and its number there. */
export interface Address {
  blob: number
  index: number
}

/** Where the addresses of a file of so many chunks lie. @throws Failure corrupt */
export function addressesOf(from: RafsBytes, { layout, end }: Inode6, count: number): Range {
  if (layout !== 'chunks') throw Failure.corrupt(`${from.what}: it is a file whose content is not in chunks`)
  const at = Math.ceil(end / ADDRESS_BYTES) * ADDRESS_BYTES
  return from.range(at, count * ADDRESS_BYTES, 'the list of its chunks')
}

export function addressAt(from: RafsBytes, at: number): Address {
  const high = from.u16(at + 2)
  return { blob: (high & 0xff) - 1, index: ((high >>> 8) << 16) | from.u16(at) }
}
