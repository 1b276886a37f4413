import { createHash } from 'node:crypto'
import { zstdCompressSync } from 'node:zlib'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import type { Contents } from '../../../src/format/format.ts'
import { parseBlobToc } from '../../../src/format/nydus/blob-toc.ts'
import { decodeTable } from '../../../src/format/nydus/decode.ts'
import { nydus } from '../../../src/format/nydus/nydus.ts'
import { hex } from '../../../src/image/digest.ts'
import { runs } from '../../fixtures/runs.ts'
import { MemoryBlob } from '../memory-blob.ts'
import { batches, checkpoints, contextHeader, records1, records2, tocOf } from './context-craft.ts'
import { bootstrapLayer, nydusImage } from './nydus-craft.ts'
import { type Blob6, type Chunk6, craft6, dir6, file6 } from './v6/rafs6-craft.ts'

const V2 = 4
const BATCH = 0x80
const ZRAN = 8
const SEPARATE = 0x10
const DIGEST_BYTES = 32

/** Digests of so many chunks: of chunk i, that of `i`. */
const digestsOf = (count: number) =>
  Buffer.concat(Array.from({ length: count }, (_, i) => createHash('sha256').update(`${i}`).digest()))
const digest = (i: number) => `sha256:${createHash('sha256').update(`${i}`).digest('hex')}`
const at = (i: number) => digestsOf(i + 1).subarray(i * DIGEST_BYTES)

interface Made {
  /** What is behind the chunks in the blob: 1000 bytes. */
  table: Uint8Array
  header: Uint8Array
  chunks: Chunk6[]
  blob?: Blob6
  /** In the bootstrap's chunk table. */
  hasRecords?: boolean
  /** Beside the bootstrap, as nydusd keeps it, not in the blob. */
  beside?: boolean
  digests?: Uint8Array
}

const CHUNKS_END = 1000

/** An image of a file for each chunk, whose blob is made of these tables. */
async function contentsOf(
  made: Made,
  change: (index: Uint8Array) => void = () => {},
): Promise<Contents & { blob: MemoryBlob }> {
  const { table, header, chunks, hasRecords = true, beside = false } = made
  const stored = beside ? new Uint8Array() : Buffer.concat([table, header])
  const digests = made.digests ?? digestsOf(chunks.length)
  const toc = tocOf(digests, CHUNKS_END + stored.length)
  const bytes = Buffer.concat([Buffer.alloc(CHUNKS_END), stored, digests, toc.bytes])
  const blob = new MemoryBlob(new Uint8Array(bytes))
  const entry: Blob6 = {
    id: hex(blob.digest),
    chunks: chunks.length,
    tables: { offset: CHUNKS_END, stored: table.length, decoded: table.length },
    toc: { size: toc.bytes.length, digest: toc.digest },
    ...made.blob,
  }
  const files = chunks.map((each, i) => [`f${i}`, file6([each])])
  const { bytes: boot } = craft6({
    root: dir6(Object.fromEntries(files)),
    blobs: [entry],
    ...(hasRecords ? {} : { records: [] }),
  })
  const meta = Buffer.concat([table, Buffer.alloc(4096 - (table.length % 4096)), header])
  const holder = entry.holder ? Buffer.from(entry.holder).toString('hex') : hex(blob.digest)
  const top = bootstrapLayer({ 'image.boot': boot, ...(beside ? { [`${holder}.blob.meta`]: meta } : {}) })
  const { unit, source } = nydusImage(top, [blob])
  const index = await nydus.readIndex(unit, source)
  change(index)
  return { ...nydus.parseIndex(index, unit), blob }
}

function refuses(made: Made, code: string, text: RegExp) {
  return expect(contentsOf(made)).rejects.toMatchObject({ code, message: expect.stringMatching(text) })
}

const checks = (...all: [from: number, to: number, i: number][]) =>
  all.map(([start, end, i]) => ({ of: 'decoded', range: { start, end }, digest: digest(i) }))

describe('a bootstrap without a chunk table', () => {
  const records = [
    { size: 9, stored: 9, offset: 0 },
    { size: 2_000_000, stored: 500, offset: 9 },
    { size: 1, stored: 17, offset: 509 },
  ]
  const made: Made = {
    table: records1(records),
    header: contextHeader(3),
    chunks: records.map(({ size }, index) => ({ index, size })),
    hasRecords: false,
  }

  test('has the places of chunks from their blob, and digests as the bootstrap vouches for them', async () => {
    const { chunks, blob } = await contentsOf({
      ...made,
      chunks: made.chunks.map((each) => ({ ...each, size: Math.min(each.size, 1 << 20) })),
    })
    expect(chunks).toMatchObject([
      { stored: { start: 0, end: 9 }, size: 9, codec: { name: 'none' }, checks: checks([0, 9, 0]) },
      { stored: { start: 9, end: 509 }, size: 2_000_000, codec: { name: 'zstd' }, checks: checks([0, 2_000_000, 1]) },
      { stored: { start: 509, end: 526 }, size: 1, codec: { name: 'zstd' }, checks: checks([0, 1, 2]) },
    ])
    expect(blob.ranges).toHaveLength(3) // places, the end, digests
  })

  const short = { ...made, chunks: made.chunks.map((each) => ({ ...each, size: 1 })) }

  test('is refused where no digests are vouched for, or others are there', async () => {
    await refuses({ ...short, blob: { toc: { size: 0, digest: Buffer.alloc(32) } } }, 'unsupported', /no digests/)
    await refuses(
      { ...short, blob: { toc: { size: 640, digest: Buffer.alloc(32) } } },
      'corrupt',
      /differs from the bootstrap/,
    )
    await refuses(
      { ...short, blob: { toc: { size: (64 << 10) + 1, digest: Buffer.alloc(32) } } },
      'limit',
      /table of contents has 65537 bytes/,
    )
    const forge = (index: Uint8Array) => {
      index.fill(0, Buffer.from(index).indexOf(at(1).subarray(0, 32)))
    }
    await expect(contentsOf(short, forge)).rejects.toMatchObject({
      message: expect.stringMatching(/blob.digest: it differs/),
    })
    await refuses({ ...short, digests: digestsOf(2) }, 'corrupt', /digests of 2 chunks, not of chunk 2/)
  })

  test('is refused when a table says otherwise how many chunks there are, or is no table', async () => {
    await refuses({ ...short, header: contextHeader(4) }, 'corrupt', /it has 4 chunks, the bootstrap says 3/)
    await refuses({ ...short, header: contextHeader(3).fill(0, 0, 1) }, 'corrupt', /magic/)
    await refuses({ ...short, header: contextHeader(3).fill(0, 4092) }, 'corrupt', /magic/)
    await refuses({ ...short, table: made.table.subarray(0, 40) }, 'corrupt', /list of chunks/)
    await refuses({ ...short, chunks: [{ index: 3, size: 1 }] }, 'corrupt', /4 chunks|3 chunks/)
    await refuses({ ...short, chunks: [0, 1, 3].map((index) => ({ index, size: 1 })) }, 'corrupt', /no chunk 3, but 3/)
  })

  test('is refused when its tables lie outside the blob, or are too large', async () => {
    const tables = { offset: 1 << 30, stored: 48, decoded: 48 }
    await refuses({ ...short, blob: { tables } }, 'corrupt', /the blob has \d+ bytes/)
    await refuses({ ...short, blob: { tables: { ...tables, stored: 100 << 20 } } }, 'limit', /tables/)
    await refuses(
      { ...short, blob: { tables: { offset: CHUNKS_END, stored: 48, decoded: 1 << 30, compressor: 3 } } },
      'limit',
      /tables/,
    )
  })
})

test('digests that are more than a blob has chunks are refused before they are read', async () => {
  const made: Made = {
    table: records1([{ size: 9, stored: 9, offset: 0 }]),
    header: contextHeader(1),
    chunks: [{ index: 0, size: 9 }],
    hasRecords: false,
  }
  expect((await contentsOf(made)).chunks).toHaveLength(1)
  await refuses({ ...made, digests: digestsOf(3000) }, 'limit', /its digests are stored in 96000 bytes/)
})

describe('chunks of a batch', () => {
  const made = (more: Partial<Made> = {}): Made => ({
    table: Buffer.concat([
      records2([
        { size: 10, stored: 0, offset: 0, flags: 5, context: 0, within: 0 },
        { size: 20, stored: 0, offset: 0, flags: 5, context: 0, within: 10 },
        { size: 30, stored: 30, offset: 25, flags: 0 },
        { size: 5, stored: 0, offset: 55, flags: 4, context: 1, within: 0 },
      ]),
      batches([
        { stored: 25, size: 30 },
        { stored: 5, size: 5 },
      ]),
    ]),
    header: contextHeader(4, 2),
    chunks: [10, 20, 30, 5].map((size, index) => ({ index, size, stored: 0, digest: at(index).subarray(0, 32) })),
    blob: { features: 1 | V2 | BATCH },
    ...more,
  })

  test.each([
    ['from the blob', false],
    ['from beside the bootstrap', true],
  ])('are one chunk, with a check each; %s', async (_, beside) => {
    const { chunks, entries, blob } = await contentsOf(made({ beside }))
    expect(chunks).toMatchObject([
      { stored: { start: 0, end: 25 }, size: 30, codec: { name: 'zstd' }, checks: checks([0, 10, 0], [10, 30, 1]) },
      { stored: { start: 25, end: 55 }, size: 30, codec: { name: 'none' }, checks: checks([0, 30, 2]) },
      { stored: { start: 55, end: 60 }, size: 5, codec: { name: 'none' }, checks: checks([0, 5, 3]) },
    ])
    const extents = [...entries].flatMap(({ extents }) => extents ?? [])
    expect(extents.map(({ chunk, offset }) => [chunk, offset])).toEqual([
      [0, 0],
      [0, 10],
      [1, 0],
      [2, 0],
    ])
    expect(blob.ranges).toHaveLength(beside ? 0 : 1)
  })

  const changed = (record: object): Made => {
    const first = { size: 10, stored: 0, offset: 0, flags: 5, context: 0, within: 0, ...record }
    const { table } = made()
    return made({ table: Buffer.concat([records2([first]), table.subarray(24)]) })
  }

  test.each([
    ['that is not there', { context: 2 }, 'corrupt', /no context 2, but 2/],
    ['beyond its end', { within: 25 }, 'corrupt', /chunk 0 of blob 0/],
    ['with less than the bootstrap says', { size: 9 }, 'corrupt', /chunk 0 of blob 0/],
    ['outside the blob', { offset: 2 ** 40 - 1 }, 'corrupt', /chunk 0 of blob 0/],
    ['that is encrypted', { flags: 13 }, 'unsupported', /encrypted/],
  ])('%s are refused', async (_, record, code, text) => await refuses(changed(record), code, text))

  test('are refused without the tables that say where they are, or with contexts outside them', async () => {
    await refuses(made({ header: contextHeader(4, 99) }), 'corrupt', /list of contexts/)
  })
})

describe('chunks of a gzip layer', () => {
  const gzip = new MemoryBlob(new Uint8Array(Buffer.alloc(5000, 1)))
  const holder = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()
  const table = Buffer.concat([
    records2([
      { size: 100, stored: 40, offset: 10, flags: 3, context: 0, within: 512 },
      { size: 60, stored: 40, offset: 50, flags: 3, context: 0, within: 1024 },
      { size: 70, stored: 10, offset: 90, flags: 3, context: 1, within: 3 },
    ]),
    checkpoints([
      { at: 10, stored: 400, size: 2000 },
      { at: 400, stored: 700, size: 90, byte: 0b1011_0000, bits: 3, dictionary: Buffer.from('window') },
    ]),
  ])

  test('are one chunk from a checkpoint on, with the state of the decoder there', async () => {
    const id = hex(gzip.digest)
    const entry: Blob6 = {
      id,
      features: 1 | V2 | ZRAN | SEPARATE,
      compressor: 2,
      chunks: 3,
      storedSize: 5000,
      holder: holder(table),
    }
    const tables = { offset: 0, stored: table.length, decoded: table.length }
    const files = [100, 60, 70].map((size, index) => [
      `${index}`,
      file6([{ index, size, digest: at(index).subarray(0, 32) }]),
    ])
    const { bytes } = craft6({ root: dir6(Object.fromEntries(files)), blobs: [{ ...entry, tables }] })
    const meta = Buffer.concat([table, Buffer.alloc(4096 - (table.length % 4096)), contextHeader(3, 2)])
    const top = bootstrapLayer({ 'image.boot': bytes, [`${holder(table).toString('hex')}.blob.meta`]: meta })
    const { unit, source } = nydusImage(top, [new MemoryBlob(table)])
    const { blobs, chunks } = nydus.parseIndex(await nydus.readIndex(unit, source), unit)
    expect(blobs).toEqual([{ digest: gzip.digest, size: 5000 }])
    expect(chunks).toMatchObject([
      {
        stored: { start: 10, end: 410 },
        size: 2000,
        codec: { name: 'gzip', seed: Uint8Array.of(0, 0) },
        checks: checks([512, 612, 0], [1024, 1084, 1]),
      },
      {
        stored: { start: 400, end: 1100 },
        size: 90,
        codec: { name: 'gzip', seed: Uint8Array.of(3, 0b101, ...Buffer.from('window')) },
        checks: checks([3, 73, 2]),
      },
    ])
  })

  test.each([
    ['a dictionary beyond the table', 16, 1n << 40n, /dictionary of checkpoint 1/],
    ['a dictionary over 32 KiB', 32, 32_769n, /32769 bytes/],
  ])('are refused with %s', async (_, field, value, text) => {
    const broken = Buffer.from(table)
    const context = 3 * 24 + 40
    if (field === 16) broken.writeBigUInt64LE(value, context + field)
    else broken.writeUInt32LE(Number(value), context + field)
    const chunks = [100, 60, 70].map((size, index) => ({ index, size, digest: index }))
    await refuses(
      { table: broken, header: contextHeader(3, 2), chunks, blob: { features: 1 | V2 | ZRAN, compressor: 2 } },
      'corrupt',
      text,
    )
  })

  test('are refused with dictionaries that lie on each other, which would make much of little', async () => {
    const one = { at: 10, stored: 400, size: 2000 }
    const contexts = Buffer.from(checkpoints([{ ...one, dictionary: Buffer.alloc(100, 7) }, one, one]))
    for (const i of [1, 2]) contexts.writeUInt32LE(100, i * 40 + 32)
    for (const i of [1, 2]) contexts.writeBigUInt64LE(0n, i * 40 + 16)
    const records = records2([0, 1, 2].map((context) => ({ size: 10, stored: 1, offset: 0, flags: 3, context })))
    const chunks = [0, 1, 2].map((index) => ({ index, size: 10, digest: index }))
    const blob = { features: 1 | V2 | ZRAN, compressor: 2 }
    const made = { table: Buffer.concat([records, contexts]), header: contextHeader(3, 3), blob }
    await refuses({ ...made, chunks }, 'corrupt', /the dictionary of checkpoint 1 has bytes of others/)
  })

  test('are refused without a checkpoint', async () => {
    const plain = records2([{ size: 10, stored: 10, offset: 0, flags: 0 }])
    const blob = { features: 1 | V2 | ZRAN, compressor: 2 }
    await refuses(
      { table: plain, header: contextHeader(1, 0), chunks: [{ index: 0, size: 10 }], blob },
      'corrupt',
      /chunk 0/,
    )
  })
})

test('chunks of old stargz layers, whose lengths nobody wrote down, are as long as gzip can make them', async () => {
  const chunks = [{ index: 0, size: 500, stored: 0, offset: 10, flags: 1 }]
  const { chunks: found, blob } = await contentsOf({
    table: new Uint8Array(),
    header: contextHeader(1),
    chunks,
    blob: { compressor: 2 },
  })
  expect(found).toMatchObject([
    { stored: { start: 10, end: 10 + 500 + 10 + 8 + 5 + 128 }, size: 500, codec: { name: 'gzip' } },
  ])
  expect(blob.ranges).toEqual([])
})

describe('a blob’s table of contents', () => {
  const { bytes, digest: want } = tocOf(digestsOf(1), 7)

  test('says where the digests are', () => {
    expect(parseBlobToc(bytes, want, 'blob').get('blob.digest')).toMatchObject({
      compressor: 'none',
      stored: { start: 7, end: 39 },
      decodedSize: 32,
    })
  })

  test('is refused with another digest, cut off, and with a name twice', () => {
    const sha = (of: Uint8Array) => createHash('sha256').update(of).digest()
    expect(() => parseBlobToc(bytes, Buffer.alloc(32), 'blob')).toThrow(/differs/)
    for (const length of [0, 511, 520, 639]) {
      const part = bytes.subarray(0, length)
      expect(() => parseBlobToc(part, sha(part), 'blob')).toThrow(/640|\d+ bytes/)
    }
    const twice = Buffer.concat([bytes.subarray(0, 128), bytes])
    expect(() => parseBlobToc(twice, sha(twice), 'blob')).toThrow(/second "blob.digest"/)
  })
})

describe('tables', () => {
  const text = Buffer.from('abcabcabcabcabcabcabcabc and so on and so on')
  // token 3 literals and a match of 19 (4 + 15 + 0 more) at distance 3, then literals alone
  const lz4 = Buffer.concat([
    Buffer.from([0x3f]),
    Buffer.from('abc'),
    Buffer.from([3, 0, 2, 0xf0, 5]),
    text.subarray(24),
  ])

  test('are decoded from whatever writers compress them with', () => {
    expect(Buffer.from(decodeTable(text, 'none', text.length, 't'))).toEqual(text)
    expect(Buffer.from(decodeTable(zstdCompressSync(text), 'zstd', text.length, 't'))).toEqual(text)
    expect(Buffer.from(decodeTable(lz4, 'lz4_block', text.length, 't')).toString()).toBe(text.toString())
    expect(decodeTable(new Uint8Array(), 'zstd', 0, 't')).toHaveLength(0)
  })

  test('of other lengths than is said are refused, before they take more', () => {
    for (const size of [text.length - 1, text.length + 1]) {
      for (const [compressor, stored] of [
        ['none', text],
        ['zstd', zstdCompressSync(text)],
        ['lz4_block', lz4],
      ] as const) {
        expect(() => decodeTable(stored, compressor, size, 't')).toThrow(Failure)
      }
    }
    expect(() => decodeTable(text, 'zstd', 1 << 30, 't')).toThrow(/at most/)
    expect(() => decodeTable(lz4, 'lz4_block', 1 << 28, 't')).toThrow(/bytes cannot be 268435456/)
  })

  test('of LZ4 that are damaged are refused, or decode to as many bytes', () => {
    fc.assert(
      fc.property(fc.nat(lz4.length - 1), fc.nat(255), fc.nat(lz4.length), (place, value, length) => {
        const damaged = Buffer.from(lz4)
          .fill(value, place, place + 1)
          .subarray(0, length)
        try {
          expect(decodeTable(damaged, 'lz4_block', text.length, 't')).toHaveLength(text.length)
        } catch (error) {
          if (!(error instanceof Failure)) throw error
        }
      }),
      { numRuns: runs(300) },
    )
  })
})
