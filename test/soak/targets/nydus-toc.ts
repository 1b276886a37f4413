// Tables of contents at the end of nydus blobs. The bootstrap has their digest, as it would whoever wrote them.
import { createHash } from 'node:crypto'
import { craft6, dir6, file6 } from '../../format/rafs6-craft.ts'
import type { Target } from '../target.ts'
import { readNydus } from './nydus.ts'

const DIGESTS = new Uint8Array(64).fill(3)
const ENTRY_BYTES = 128
/** Two records of version 1: 7 bytes at 0, 9 bytes at 7, as they are. */
const RECORDS = [
  [7, 0],
  [9, 7],
] as const

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()

function toc(): Uint8Array {
  const bytes = Buffer.alloc(2 * ENTRY_BYTES + 512)
  for (const [i, [name, at, size]] of (
    [
      ['image.blob', 0, 16],
      ['blob.digest', 70_000, DIGESTS.length],
    ] as const
  ).entries()) {
    const entry = bytes.subarray(i * ENTRY_BYTES)
    entry.writeUInt32LE(1, 0)
    entry.write(name, 8)
    entry.set(sha256(DIGESTS), 24)
    for (const [j, value] of [at, size, size].entries()) entry.writeBigUInt64LE(BigInt(value), 56 + j * 8)
  }
  bytes.write('rafs.blob.toc', 2 * ENTRY_BYTES)
  return new Uint8Array(bytes)
}

function contexts(): Uint8Array {
  const bytes = Buffer.alloc(RECORDS.length * 16 + 4096)
  for (const [i, [size, at]] of RECORDS.entries()) {
    bytes.writeBigUInt64LE(BigInt(size - 1) << 44n, i * 16)
    bytes.writeBigUInt64LE((BigInt(size - 1) << 44n) | BigInt(at), i * 16 + 8)
  }
  const header = bytes.subarray(RECORDS.length * 16)
  for (const at of [0, 4092]) header.writeUInt32LE(0xb10bb10b, at)
  header.writeUInt32LE(RECORDS.length, 12)
  return new Uint8Array(bytes)
}

const decoded = contexts()
const tables = { offset: 50_000, stored: 32, decoded: 32 }
const root = dir6({ a: file6([{ index: 0, size: 7 }]), b: file6([{ index: 1, size: 9 }]) })

export const nydusToc: Target = {
  name: 'nydus-toc',
  seeds: [toc()],
  run: (bytes) => {
    const blob = { chunks: RECORDS.length, tables, toc: { size: bytes.length, digest: sha256(bytes) } }
    const bootstrap = craft6({ root, records: [], blobs: [blob] }).bytes
    return readNydus(bootstrap, [{ blob: 0, decoded, toc: bytes, digests: DIGESTS }])
  },
}
