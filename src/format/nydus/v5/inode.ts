// One inode of a RAFS v5 bootstrap, and what follows it: each part is padded to 8 bytes.
//
//   inode (128) | name | symlink's target | xattrs: u64 bytes, then u32 length · name NUL value | chunk records (80 each)
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import { S_IFBLK, S_IFCHR, S_IFLNK, S_IFMT, S_IFREG } from '../../../tree/entry.ts'
import type { RafsBytes } from '../bytes.ts'
import { DIGEST_BYTES, RECORD_BYTES } from '../chunk-record.ts'
import { deviceOf } from '../codes.ts'
import { ALIGNMENT } from './superblock.ts'

const INODE_BYTES = 128
const AT = {
  digest: 0,
  ino: 40,
  uid: 48,
  gid: 52,
  mode: 60,
  size: 64,
  flags: 80,
  childIndex: 92,
  childCount: 96,
  nameBytes: 100,
  targetBytes: 102,
  rdev: 104,
  nanoseconds: 108,
  seconds: 112,
}
const HAS_XATTRS = 4n
const SECOND = 1_000_000_000n

export interface Inode5 {
  /** Of its contents: names and modes are no part of them. */
  digest: Uint8Array
  name: string
  /** The same for all names of a file. */
  ino: number
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
  /** Bytes, regular files only (else 0). */
  size: number
  rdev: readonly [number, number] | undefined
  target: string | undefined
  xattrs: ReadonlyMap<string, Uint8Array> | undefined
  /** What the directory's children are in the inode table, counted from 0. */
  children: Range
  /** Where a regular file's chunk records lie. */
  chunks: Range
}

/** @param from names the inode in errors @throws Failure corrupt, unsupported */
export function parseInode5(from: RafsBytes, at: number): Inode5 {
  from.range(at, INODE_BYTES, 'it')
  const mode = from.u32(at + AT.mode)
  const type = mode & S_IFMT
  const count = from.u32(at + AT.childCount)
  const first = from.u32(at + AT.childIndex)
  const nanoseconds = from.u32(at + AT.nanoseconds)
  if (nanoseconds >= SECOND) throw Failure.corrupt(`${from.what}: its time has ${nanoseconds} nanoseconds`)
  const name = from.range(at + INODE_BYTES, from.u16(at + AT.nameBytes), 'its name')
  const target = from.range(padded(name.end), from.u16(at + AT.targetBytes), 'its target')
  const isFile = type === S_IFREG
  const [xattrs, end] =
    (from.bits(at + AT.flags) & HAS_XATTRS) === 0n
      ? [undefined, padded(target.end)]
      : parseXattrs(from, padded(target.end))
  const isDevice = type === S_IFCHR || type === S_IFBLK
  return {
    digest: from.slice({ start: at + AT.digest, end: at + AT.digest + DIGEST_BYTES }),
    name: from.text(name, 'its name'),
    ino: from.u64(at + AT.ino, 'its number'),
    mode,
    uid: from.u32(at + AT.uid),
    gid: from.u32(at + AT.gid),
    mtime: from.i64(at + AT.seconds) * SECOND + BigInt(nanoseconds),
    size: isFile ? from.u64(at + AT.size, 'its size') : 0,
    rdev: isDevice ? deviceOf(from.u32(at + AT.rdev)) : undefined,
    target: type === S_IFLNK ? from.text(target, 'its target') : undefined,
    xattrs,
    children: { start: first - 1, end: first - 1 + count },
    chunks: from.range(end, isFile ? count * RECORD_BYTES : 0, 'the list of its chunks'),
  }
}

function parseXattrs(from: RafsBytes, at: number): [ReadonlyMap<string, Uint8Array>, number] {
  from.range(at, 8, 'the size of its xattrs')
  const { start, end } = from.range(at + 8, from.u64(at, 'the size of its xattrs'), 'the list of its xattrs')
  const xattrs = new Map<string, Uint8Array>()
  for (let next = start; next < end; ) {
    const pair = next + 4 <= end ? { start: next + 4, end: next + 4 + from.u32(next) } : undefined
    const nul = pair && pair.end <= end ? from.bytes.indexOf(0, pair.start) : -1
    if (!pair || nul < 0 || nul >= pair.end) {
      throw Failure.corrupt(`${from.what}: its xattrs are broken at ${next}`, {
        why: `they lie between ${start} and ${end}`,
      })
    }
    const name = from.text({ start: pair.start, end: nul }, 'the name of an xattr')
    xattrs.set(name, new Uint8Array(from.slice({ start: nul + 1, end: pair.end })))
    next = pair.end
  }
  return [xattrs, padded(end)]
}

function padded(at: number): number {
  return Math.ceil(at / ALIGNMENT) * ALIGNMENT
}
