// Tables of contents at the end of nydus blobs. The bootstrap has their digest, as it would whoever wrote them.
import { createHash } from 'node:crypto'
import { contextHeader, records1, tocOf } from '../../format/nydus/context-craft.ts'
import { craft6, dir6, file6 } from '../../format/nydus/v6/rafs6-craft.ts'
import type { Target } from '../target.ts'
import { readNydus } from './nydus.ts'

const DIGESTS = new Uint8Array(64).fill(3)
const RECORDS = [
  { size: 7, stored: 7, offset: 0 },
  { size: 9, stored: 9, offset: 7 },
]
const records = records1(RECORDS)
const decoded = new Uint8Array(Buffer.concat([records, contextHeader(RECORDS.length)]))
const tables = { offset: 50_000, stored: records.length, decoded: records.length }
const root = dir6({ a: file6([{ index: 0, size: 7 }]), b: file6([{ index: 1, size: 9 }]) })

export const nydusToc: Target = {
  name: 'nydus-toc',
  seeds: [tocOf(DIGESTS, 70_000).bytes],
  run: (bytes) => {
    const toc = { size: bytes.length, digest: createHash('sha256').update(bytes).digest() }
    const bootstrap = craft6({ root, records: [], blobs: [{ chunks: RECORDS.length, tables, toc }] }).bytes
    return readNydus(bootstrap, [{ blob: 0, decoded, toc: bytes, digests: DIGESTS }])
  },
}
