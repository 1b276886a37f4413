import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type ChunkDigest, digestOf, hex } from '../../src/image/digest.ts'
import { type Chunk, type Codec, GZIP, NONE, ZSTD } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'

const blobs = [{ digest: digestOf(Uint8Array.of(1)), size: 5_000_000_000 }]

const bytes = fc.integer({ min: 0, max: 2 ** 44 })
const checked = fc.tuple(fc.constantFrom('sha256', 'blake3'), fc.uint8Array({ minLength: 32, maxLength: 32 }))
const chunkDigest = checked.map(([algorithm, of]) => `${algorithm}:${Buffer.from(of).toString('hex')}` as ChunkDigest)
const state = fc.uint8Array({ maxLength: 40 })
const codec: fc.Arbitrary<Codec> = fc.oneof(
  fc.constantFrom<Codec>(NONE, GZIP, ZSTD, { name: 'lz4' }),
  state.map((seed): Codec => ({ name: 'gzip', seed })),
  state.map((dictionary): Codec => ({ name: 'zstd', dictionary })),
)
const range = fc.tuple(bytes, bytes).map(([a, b]) => ({ start: Math.min(a, b), end: Math.max(a, b) }))
const arbitraryChunk: fc.Arbitrary<Chunk> = fc.record({
  blob: fc.nat(10),
  stored: range,
  size: bytes,
  codec,
  checks: fc.array(fc.record({ of: fc.constantFrom('stored', 'decoded'), range, digest: chunkDigest }), {
    maxLength: 3,
  }),
  places: fc.array(fc.record({ from: bytes, length: bytes, at: bytes }), { minLength: 1, maxLength: 3 }),
})

const chunk: Chunk = {
  blob: 0,
  stored: { start: 0, end: 100 },
  size: 10,
  codec: GZIP,
  checks: [
    { of: 'stored', range: { start: 0, end: 100 }, digest: digestOf(Uint8Array.of(2)) },
    { of: 'decoded', range: { start: 0, end: 10 }, digest: digestOf(Uint8Array.of(3)) },
  ],
  places: [{ from: 0, length: 10, at: 4096 }],
}
const table = (...chunks: Chunk[]) => new ChunkTable(encodeChunks(blobs, chunks, 0, 8192))

describe('a chunk table', () => {
  test('gives back what was put in, from any alignment and as a Buffer', () => {
    fc.assert(
      fc.property(fc.array(arbitraryChunk, { maxLength: 20 }), fc.nat(9), fc.boolean(), (chunks, shift, asBuffer) => {
        const encoded = encodeChunks(blobs, chunks, 1, 8192)
        const moved = new Uint8Array(encoded.length + shift)
        moved.set(encoded, shift)
        const view = moved.subarray(shift)
        const read = new ChunkTable(asBuffer ? Buffer.from(view.buffer, view.byteOffset, view.length) : view)
        expect(Array.from({ length: read.length }, (_, i) => read.get(i))).toEqual(chunks)
        expect(read).toMatchObject({ blobs, first: 1, deviceSize: 8192, length: chunks.length })
        for (const [i, each] of chunks.entries()) {
          expect(read.storedRange(i)).toEqual(each.stored)
          expect([read.blobOf(i), read.sizeOf(i)]).toEqual([each.blob, each.size])
        }
      }),
    )
  })

  test('a dictionary that many chunks share is kept once', () => {
    const dictionary = new Uint8Array(10_000).fill(7)
    const of = (count: number) =>
      encodeChunks(blobs, Array(count).fill({ ...chunk, codec: { name: 'zstd', dictionary } }), 0, 8192)
    expect(of(9).length - of(1).length).toBeLessThan(8 * 200)
    expect(new ChunkTable(of(9)).get(8).codec).toEqual({ name: 'zstd', dictionary })
  })

  test('a table of another version is told from a damaged one, and not guessed at', () => {
    for (const version of ['lazychk2', 'lazychk4']) {
      const other = encodeChunks(blobs, [chunk], 0, 8192)
      other.set(new TextEncoder().encode(version))
      other.set(createHash('sha256').update(other.subarray(0, -32)).digest(), other.length - 32)
      expect(() => new ChunkTable(other)).toThrow(expect.objectContaining({ code: 'unsupported' }))
    }
  })

  test('runs of zeros are given back, and are part of what the device holds', () => {
    const of = (...zeros: { start: number; end: number }[]) =>
      new ChunkTable(encodeChunks(blobs, [chunk], 0, 16384, zeros))
    const runs = [
      { start: 0, end: 10 },
      { start: 8192, end: 9000 },
    ]
    expect(of(...runs).zeros()).toEqual(runs)
    expect(of().zeros()).toEqual([])
    const digests = [of(), of({ start: 0, end: 10 }), of({ start: 0, end: 11 }), of({ start: 1, end: 11 })]
    expect(new Set(digests.map((each) => each.contentDigest())).size).toBe(digests.length)
  })

  test('any changed or missing byte is noticed', () => {
    const encoded = encodeChunks(blobs, [chunk], 0, 8192)
    for (let i = 0; i < encoded.length; i += 7) {
      const changed = encoded.slice()
      changed[i] = (changed[i] as number) ^ 1
      expect(() => new ChunkTable(changed)).toThrow(expect.objectContaining({ code: 'corrupt' }))
    }
    for (const length of [0, 1, 31, 32, 43, 44, 45, encoded.length - 1]) {
      expect(() => new ChunkTable(encoded.subarray(0, length))).toThrow(expect.objectContaining({ code: 'corrupt' }))
    }
  })

  test('places are packed for the native side in the order of the device', () => {
    const far = { ...chunk, places: [{ from: 0, length: 10, at: 2 ** 40 }] }
    const both = {
      ...chunk,
      places: [
        { from: 0, length: 4, at: 4096 },
        { from: 4, length: 6, at: 0 },
      ],
    } // prettier-ignore
    const view = new DataView(table(far, both).packedPlaces().buffer)
    const read = [0, 24, 48].map((at) => [
      view.getBigUint64(at, true),
      view.getBigUint64(at + 8, true),
      view.getUint32(at + 16, true),
      view.getUint32(at + 20, true),
    ])
    expect(read).toEqual([
      [0n, 6n, 1, 0],
      [4096n, 4n, 1, 0],
      [1n << 40n, 10n, 0, 0],
    ])
  })
})

describe('the content digest', () => {
  const of = (...chunks: Chunk[]) => table(...chunks).contentDigest()
  const decoded = chunk.checks.slice(1)

  test('does not depend on how the chunks are stored', () => {
    const stored = { ...chunk, blob: 1, stored: { start: 5, end: 6 }, codec: ZSTD, checks: decoded }
    expect(of(stored)).toBe(of(chunk))
  })

  test('changes with sizes, digests and places', () => {
    const others: Chunk[] = [
      { ...chunk, size: 11 },
      { ...chunk, checks: decoded.map((each) => ({ ...each, digest: digestOf(Uint8Array.of(4)) })) },
      { ...chunk, checks: decoded.map((each) => ({ ...each, range: { start: 0, end: 9 } })) },
      { ...chunk, checks: decoded.map((each) => ({ ...each, digest: `blake3:${hex(each.digest)}` })) },
      { ...chunk, places: [{ from: 0, length: 10, at: 0 }] },
      { ...chunk, places: [{ from: 1, length: 9, at: 4096 }] },
    ]
    const digests = new Set([of(chunk), of(), of(chunk, chunk), ...others.map((each) => of(each))])
    expect(digests.size).toBe(3 + others.length)
  })
})
