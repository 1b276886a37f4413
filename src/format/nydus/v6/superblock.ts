// The two superblocks with which a RAFS v6 bootstrap begins: an EROFS one, and behind it what nydus adds.
//
//   1024 EROFS superblock 128 │ 1152 nydus's 256 │ 1408 a slot for each blob …
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import type { RafsBytes } from '../bytes.ts'
import { RECORD_BYTES } from '../chunk-record.ts'
import { checkFlags, SUPER } from '../codes.ts'
import { RAFS_BLOBS_MAX, RAFS_CHUNK_MAX_BYTES, RAFS_CHUNK_MIN_BYTES } from '../rafs.ts'

const AT = { magic: 1024, compat: 1032, blockBits: 1036, rootNid: 1038, inodesBlock: 1064, incompat: 1104 }
const NYDUS_AT = 1152
const END = NYDUS_AT + 256
/** From NYDUS_AT. */
const NYDUS = {
  flags: 0,
  blobsAt: 8,
  blobsBytes: 16,
  chunkSize: 20,
  chunksAt: 24,
  chunksBytes: 32,
  firstAt: 40,
  firstBytes: 48,
}

const MAGIC = 0xe0f5e1e2
/** In feature_compat: says that nydus's superblock follows. */
const IS_RAFS = 0x4000_0000
/** Chunked files, and a table of devices. */
const INCOMPAT = 0xc
/** Blocks of 512 bytes are those of tars (tarfs), which are refused. */
const BLOCK_BITS = 12
export const BLOCK_BYTES = 1 << BLOCK_BITS
export const BLOB_ENTRY_BYTES = 256

const COMPRESSIONS = SUPER.none | SUPER.lz4 | SUPER.gzip | SUPER.zstd
const DIGESTS = SUPER.blake3 | SUPER.sha256

export interface Superblock6 {
  rootNid: number
  /** Where nid 0 would be, in bytes. */
  inodesAt: number
  /** Decoded bytes of every chunk but a file's last. */
  chunkSize: number
  /** Owners are those of the inodes; else they are whoever serves them. */
  hasOwners: boolean
  blobs: Range
  chunkTable: Range
  prefetch: Range
}

/** Whether a bootstrap is one of this version, by its first bytes. */
export function isRafs6(bytes: Uint8Array): boolean {
  if (bytes.length < END) return false
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  return view.getUint32(AT.magic, true) === MAGIC
}

/** @throws Failure corrupt, unsupported: what it needs from a reader that we do not know */
export function parseSuperblock6(from: RafsBytes): Superblock6 {
  const { what } = from
  from.range(0, END, 'its superblock')
  if ((from.u32(AT.compat) & IS_RAFS) === 0) {
    throw Failure.unsupported(`${what}: it is an EROFS image that nydus did not make`, {
      why: `feature_compat is 0x${from.u32(AT.compat).toString(16)}, without 0x${IS_RAFS.toString(16)}`,
    })
  }
  checkFlags(from.bits(NYDUS_AT + NYDUS.flags), what)
  const flags = from.u32(NYDUS_AT + NYDUS.flags)
  const incompat = from.u32(AT.incompat)
  if (incompat !== INCOMPAT) {
    throw Failure.unsupported(
      `${what}: feature_incompat is 0x${incompat.toString(16)}, 0x${INCOMPAT.toString(16)} is known`,
    )
  }
  const blockBits = from.bytes[AT.blockBits]
  if (blockBits !== BLOCK_BITS)
    throw Failure.unsupported(`${what}: blocks of 2^${blockBits} bytes, 2^${BLOCK_BITS} are known`)
  if (!isOne(flags & COMPRESSIONS))
    throw Failure.corrupt(`${what}: its flags 0x${flags.toString(16)} name not one compressor`)
  if (!isOne(flags & DIGESTS))
    throw Failure.corrupt(`${what}: its flags 0x${flags.toString(16)} name not one digest algorithm`)
  const table = (at: number, size: number, entry: number, of: string): Range => {
    if (size % entry !== 0) throw Failure.corrupt(`${what}: ${of} has ${size} bytes, entries have ${entry}`)
    return size === 0 ? { start: 0, end: 0 } : from.range(at, size, of)
  }
  const offset = (field: number, of: string) => from.u64(NYDUS_AT + field, `the offset of ${of}`)
  const blobs = table(
    offset(NYDUS.blobsAt, 'its blob table'),
    from.u32(NYDUS_AT + NYDUS.blobsBytes),
    BLOB_ENTRY_BYTES,
    'its blob table',
  )
  const count = (blobs.end - blobs.start) / BLOB_ENTRY_BYTES
  if (count > RAFS_BLOBS_MAX)
    throw Failure.limit(`${what}: it has ${count} blobs, at most ${RAFS_BLOBS_MAX} can be addressed`)
  const firstAt = offset(NYDUS.firstAt, 'its prefetch table')
  return {
    rootNid: from.u16(AT.rootNid),
    inodesAt: from.u32(AT.inodesBlock) * BLOCK_BYTES,
    chunkSize: chunkSizeOf(from),
    hasOwners: (flags & SUPER.explicitIds) !== 0,
    blobs,
    chunkTable: table(
      offset(NYDUS.chunksAt, 'its chunk table'),
      from.u64(NYDUS_AT + NYDUS.chunksBytes, 'the size of its chunk table'),
      RECORD_BYTES,
      'its chunk table',
    ),
    // old writers gave a size to a table that is not there
    prefetch: table(firstAt, firstAt === 0 ? 0 : from.u32(NYDUS_AT + NYDUS.firstBytes), 4, 'its prefetch table'),
  }
}

function chunkSizeOf(from: RafsBytes): number {
  const size = from.u32(NYDUS_AT + NYDUS.chunkSize)
  if (isOne(size) && size >= RAFS_CHUNK_MIN_BYTES && size <= RAFS_CHUNK_MAX_BYTES) return size
  throw Failure.corrupt(`${from.what}: chunks of ${size} bytes`, {
    why: `they have a power of two between ${RAFS_CHUNK_MIN_BYTES} and ${RAFS_CHUNK_MAX_BYTES}`,
  })
}

function isOne(bits: number): boolean {
  return bits !== 0 && (bits & (bits - 1)) === 0
}
