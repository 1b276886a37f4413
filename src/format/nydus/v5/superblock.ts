// The first 8 KiB of a RAFS v5 bootstrap, and the tables that it leads to.
//
//   superblock | inode table | prefetch table | blob table | extended blob table | inodes, names, chunk records
//
// A v5 bootstrap has the addresses and the digests of all chunks itself; blobs have no tables of their own.
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import { ENTRIES_MAX } from '../../../tree/entries.ts'
import type { RafsBytes } from '../bytes.ts'
import { checkFlags, SUPER } from '../codes.ts'
import { type Compressor, type Digester, RAFS_CHUNK_MAX_BYTES, RAFS_CHUNK_MIN_BYTES } from '../rafs.ts'

const MAGIC = 0x52414653
const VERSION = 0x500
const SUPERBLOCK_BYTES = 8192
/** Offsets of inodes count units of this. */
export const ALIGNMENT = 8

const AT = {
  magic: 0,
  version: 4,
  size: 8,
  chunkSize: 12,
  flags: 16,
  inodeTable: 32,
  prefetchTable: 40,
  blobTable: 48,
  inodeEntries: 56,
  prefetchEntries: 60,
  blobTableBytes: 64,
  extendedEntries: 68,
  extendedTable: 72,
}

/** Of an entry of the inode table or the prefetch table. */
export const NUMBER_BYTES = 4
const EXTENDED_BYTES = 64

const COMPRESSORS: readonly (readonly [number, Compressor])[] = [
  [SUPER.none, 'none'],
  [SUPER.lz4, 'lz4_block'],
  [SUPER.gzip, 'gzip'],
  [SUPER.zstd, 'zstd'],
]
const DIGESTERS: readonly (readonly [number, Digester])[] = [
  [SUPER.blake3, 'blake3'],
  [SUPER.sha256, 'sha256'],
]

export interface Superblock5 {
  compressor: Compressor
  digester: Digester
  /** Clear: the image does not say whose files are. */
  explicitIds: boolean
  /** Bytes of a whole chunk. */
  chunkSize: number
  /** Where each table lies. The extended blob table is empty in old images. */
  inodes: Range
  prefetch: Range
  blobs: Range
  extended: Range
}

export function isRafs5(bytes: Uint8Array): boolean {
  return bytes.length >= ALIGNMENT && new DataView(bytes.buffer, bytes.byteOffset).getUint32(AT.magic, true) === MAGIC
}

/** @throws Failure corrupt, limit, unsupported */
export function parseSuperblock5(from: RafsBytes): Superblock5 {
  const { what } = from
  from.range(0, SUPERBLOCK_BYTES, 'the RAFS v5 superblock')
  const field = (at: number, want: number, of: string) => {
    const value = from.u32(at)
    if (value !== want)
      throw Failure.corrupt(`${what}: ${of} at ${at} is 0x${value.toString(16)}, not 0x${want.toString(16)}`)
  }
  field(AT.magic, MAGIC, "the superblock's magic")
  const version = from.u32(AT.version)
  if (version !== VERSION)
    throw Failure.unsupported(`${what}: its bootstrap is RAFS of version 0x${version.toString(16)}`)
  field(AT.size, SUPERBLOCK_BYTES, "the superblock's size")
  const table = (at: number, count: number, bytes: number, of: string) =>
    count === 0 ? { start: 0, end: 0 } : from.range(from.u64(at, `the offset of ${of}`), count * bytes, of)
  const entries = from.u32(AT.inodeEntries)
  if (entries > ENTRIES_MAX) throw Failure.limit(`${what}: ${entries} inodes, at most ${ENTRIES_MAX} are accepted`)
  const chunkSize = from.u32(AT.chunkSize)
  if (chunkSize < RAFS_CHUNK_MIN_BYTES || chunkSize > RAFS_CHUNK_MAX_BYTES || (chunkSize & (chunkSize - 1)) !== 0) {
    throw Failure.corrupt(
      `${what}: its chunks have ${chunkSize} bytes, a power of two from ${RAFS_CHUNK_MIN_BYTES} to ${RAFS_CHUNK_MAX_BYTES} was expected`,
    )
  }
  return {
    ...parseFlags(from.bits(AT.flags), what),
    chunkSize,
    inodes: table(AT.inodeTable, entries, NUMBER_BYTES, 'the inode table'),
    prefetch: table(AT.prefetchTable, from.u32(AT.prefetchEntries), NUMBER_BYTES, 'the prefetch table'),
    blobs: table(AT.blobTable, from.u32(AT.blobTableBytes), 1, 'the blob table'),
    extended: table(AT.extendedTable, from.u32(AT.extendedEntries), EXTENDED_BYTES, 'the extended blob table'),
  }
}

/** Where neither of a kind is set, it is what the first images had. */
function parseFlags(bits: bigint, what: string): Pick<Superblock5, 'compressor' | 'digester' | 'explicitIds'> {
  checkFlags(bits, what)
  const flags = Number(bits & 0xffff_ffffn)
  return {
    compressor: oneOf(flags, COMPRESSORS, 'lz4_block', `${what}: the superblock has several compressors`),
    digester: oneOf(flags, DIGESTERS, 'blake3', `${what}: the superblock has several digest algorithms`),
    explicitIds: (flags & SUPER.explicitIds) !== 0,
  }
}

/** @param otherwise where no flag is set @throws Failure corrupt */
function oneOf<T>(flags: number, named: readonly (readonly [number, T])[], otherwise: T, several: string): T {
  const set = named.filter(([flag]) => (flags & flag) !== 0)
  if (set.length > 1) throw Failure.corrupt(several)
  return set[0]?.[1] ?? otherwise
}
