// Bootstraps whose blobs have tables, from the layer on: what is read of blobs is what a hostile bootstrap says.
import { zstdCompressSync } from 'node:zlib'
import { Failure } from '../../../src/errors.ts'
import type { Source } from '../../../src/format/format.ts'
import { nydus } from '../../../src/format/nydus/nydus.ts'
import { hex } from '../../../src/image/digest.ts'
import { MemoryBlob } from '../../format/memory-blob.ts'
import { checkpoints, contextHeader, records1, records2, tocOf } from '../../format/nydus/context-craft.ts'
import { bootstrapLayer, nydusImage } from '../../format/nydus/nydus-craft.ts'
import { type Blob6, craft6, dir6, file6 } from '../../format/nydus/v6/rafs6-craft.ts'
import type { Target } from '../target.ts'
import { outcomeLater } from '../well-formed.ts'

const ZSTD = 3
/** Features: without a chunk table in the bootstrap, and with checkpoints. */
const ALIGNED = 0x1
const ZRAN = 0xd

const SIZES = [100, 4000]
const CHUNKS_END = 6000

/** Records alone, compressed by zstd; digests by way of a table of contents. */
const digests = new Uint8Array(SIZES.length * 32).fill(3)
const places = records1(SIZES.map((size, i) => ({ size, stored: size, offset: i * 100 })))
const packed = zstdCompressSync(places)
const digestsAt = CHUNKS_END + packed.length + 4096
const toc = tocOf(digests, digestsAt)

/** Records and checkpoints. */
const gzip = Buffer.concat([
  records2(SIZES.map((size, i) => ({ flags: 3, size, stored: 0, offset: 0, context: i, within: 0 }))),
  checkpoints([
    { at: 0, stored: 2000, size: 6000 },
    { at: 2000, stored: 900, size: 5000, dictionary: new Uint8Array(200).fill(7) },
  ]),
])
const gzipAt = digestsAt + digests.length

const blob = new MemoryBlob(
  new Uint8Array(
    Buffer.concat([
      Buffer.alloc(CHUNKS_END),
      packed,
      contextHeader(SIZES.length),
      digests,
      gzip,
      contextHeader(SIZES.length, SIZES.length),
      toc.bytes,
    ]),
  ),
)

function bootstrap(of: Blob6, hasRecords: boolean): Uint8Array {
  const root = dir6(Object.fromEntries(SIZES.map((size, index) => [`f${index}`, file6([{ index, size }])])))
  const blobs = [{ id: hex(blob.digest), chunks: SIZES.length, ...of }]
  return craft6({ root, blobs, ...(hasRecords ? {} : { records: [] }) }).bytes
}

export const nydusTables: Target = {
  name: 'nydus-tables',
  seeds: [
    bootstrap(
      {
        features: ALIGNED,
        tables: { offset: CHUNKS_END, stored: packed.length, decoded: places.length, compressor: ZSTD },
        toc: { size: toc.bytes.length, digest: toc.digest },
      },
      false,
    ),
    bootstrap({ features: ZRAN, tables: { offset: gzipAt, stored: gzip.length, decoded: gzip.length } }, true),
  ],
  run: (bytes) =>
    outcomeLater(async () => {
      const { unit, source } = nydusImage(bootstrapLayer({ 'image.boot': bytes }), [blob])
      return nydus.parseIndex(await nydus.readIndex(unit, withOthersMissing(source)), unit)
    }),
}

/** Whatever else a bootstrap names, the registry does not have. */
function withOthersMissing(source: Source): Source {
  return {
    ...source,
    blob: (of) => {
      try {
        return source.blob(of)
      } catch (cause) {
        throw Failure.missing(`no blob ${of.digest}`, { cause })
      }
    },
  }
}
