// A chunk record: what both versions of RAFS say of a chunk. 80 bytes, behind the inodes of version 5 and in the chunk table of version 6:
//   0 digest 32   32 blob u32   36 flags u32   40 stored length u32   44 decoded length u32   48 stored offset u64
//   56 offset in the blob's decoded space u64   64 offset in the file u64   72 number in the blob u32   76 CRC-32C u32
import { Failure } from '../../errors.ts'
import type { ChunkDigest } from '../../image/digest.ts'
import type { RafsBytes } from './bytes.ts'
import { encrypted } from './codes.ts'
import { type ChunkRecord, type Digester, RAFS_CHUNK_MAX_BYTES, RAFS_CHUNK_NUMBERS } from './rafs.ts'

export const RECORD_BYTES = 80
/** Both algorithms'. */
export const DIGEST_BYTES = 32
/** Flags of chunk records. */
export const CHUNK = { compressed: 0x1, encrypted: 0x4, batch: 0x8 } as const

/**
 * The record at `at`.
 * @param digesters of each blob of the blob table
 * @throws Failure corrupt: cut off, no such blob, a length or an offset that no writer writes; unsupported: encrypted
 */
export function recordAt(of: RafsBytes, at: number, digesters: readonly Digester[]): ChunkRecord {
  of.holds(at, RECORD_BYTES, 'a chunk record')
  const blob = of.u32(at + 32)
  const digester = digesters[blob]
  if (digester === undefined) throw Failure.corrupt(`${where(of, at)}: it names blob ${blob} of ${digesters.length}`)
  const flags = of.u32(at + 36)
  if (flags & CHUNK.encrypted) throw encrypted(where(of, at))
  const size = of.u32(at + 44)
  if (size === 0 || size > RAFS_CHUNK_MAX_BYTES) {
    throw Failure.corrupt(`${where(of, at)}: ${size} bytes, chunks have 1 to ${RAFS_CHUNK_MAX_BYTES}`)
  }
  const index = of.u32(at + 72)
  if (index >= RAFS_CHUNK_NUMBERS) throw Failure.corrupt(`${where(of, at)}: its number is ${index}`)
  const start = of.u64(at + 48, 'the offset of a chunk')
  const digest: ChunkDigest = `${digester}:${of.hex(at, DIGEST_BYTES)}`
  const stored = { start, end: start + of.u32(at + 40) }
  return { blob, index, digest, flags, stored, size, fileOffset: of.u64(at + 64, 'the place of a chunk in its file') }
}

function where(of: RafsBytes, at: number): string {
  return `${of.what}: chunk record at ${at}`
}

/** DIGEST_BYTES as text. */
export function chunkDigest(digester: Digester, bytes: Uint8Array): ChunkDigest {
  return `${digester}:${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('hex')}`
}
