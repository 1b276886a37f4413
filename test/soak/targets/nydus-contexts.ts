// Context tables of nydus blobs whose chunks are decoded together: from the checkpoints of a gzip layer, or in batches. Nobody vouches for
// them.
import { batches, checkpoints, contextHeader, records2 } from '../../format/nydus/context-craft.ts'
import { craft6, dir6, file6 } from '../../format/nydus/v6/rafs6-craft.ts'
import type { Target } from '../target.ts'
import { readNydus } from './nydus.ts'

const SIZES = [100, 4000, 300]

/** Bits of the features, and of a record's flags. */
const ZRAN = { features: 0x1d, flag: 2, compressor: 2 }
const BATCH = { features: 0x85, flag: 4, compressor: 3 }

/** @param contexts two of them */
function target(name: string, { features, flag, compressor }: typeof ZRAN, contexts: Uint8Array): Target {
  const place = (i: number) => ({ flags: 1 | flag, stored: 0, offset: 0, context: i >> 1, within: i * 512 })
  const records = records2(SIZES.map((size, i) => ({ size, ...place(i) })))
  const table = new Uint8Array(Buffer.concat([records, contexts, contextHeader(SIZES.length, 2)]))
  const decoded = records.length + contexts.length
  const files = SIZES.map((size, index) => [`f${index}`, file6([{ index, size, digest: index }])])
  const tables = { offset: 50_000, stored: decoded, decoded }
  const blob = { features, compressor, chunks: SIZES.length, tables, holder: new Uint8Array(32).fill(0xab) }
  const { bytes } = craft6({ root: dir6(Object.fromEntries(files)), blobs: [blob] })
  return { name, seeds: [table], run: (damaged) => readNydus(bytes, [{ blob: 0, decoded: damaged }]) }
}

export const nydusCheckpoints = target(
  'nydus-checkpoints',
  ZRAN,
  checkpoints([
    { at: 10, stored: 2000, size: 6000 },
    { at: 2009, stored: 900, size: 2000, byte: 0xa0, bits: 3, dictionary: new Uint8Array(200).fill(7) },
  ]),
)

export const nydusBatches = target(
  'nydus-batches',
  BATCH,
  batches([
    { stored: 2000, size: 6000 },
    { stored: 1500, size: 1500 },
  ]),
)
