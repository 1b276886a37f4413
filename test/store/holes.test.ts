import fc from 'fast-check'
import { expect, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { Holes } from '../../src/store/holes.ts'
import { type Chunk, GZIP } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import { runs } from '../fixtures/runs.ts'

const BLOCK = 4096

/** Chunks with one place each, of these lengths, with these gaps before. */
function table(places: readonly { gap: number; length: number }[]): ChunkTable {
  let end = 0
  const chunks = places.map(({ gap, length }, i): Chunk => {
    const at = end + gap
    end = at + length
    return {
      blob: 0,
      stored: { start: i, end: i + 1 },
      size: length,
      codec: GZIP,
      checks: [{ of: 'decoded', range: { start: 0, end: length }, digest: digestOf(Uint8Array.of(i)) }],
      places: [{ from: 0, length, at }],
    }
  })
  return new ChunkTable(
    encodeChunks([{ digest: digestOf(new Uint8Array()), size: 1 }], chunks, 0, Math.ceil(end / BLOCK) * BLOCK),
  )
}

const holes = (places: Parameters<typeof table>[0], gone: number[], there: number[]) => [
  ...new Holes(table(places)).of(gone, (chunk) => there.includes(chunk)),
]

test('a chunk goes with the rest of its last block, where nothing else is in it', () => {
  const places = [
    { gap: 0, length: 5000 },
    { gap: 3192, length: 100 },
    { gap: 0, length: 100 },
  ]
  expect(holes(places, [0], [1, 2])).toEqual([0, 8192])
  expect(holes(places, [1], [0, 2])).toEqual([8192, 8292])
  expect(holes(places, [2], [0, 1])).toEqual([8292, 12288])
  expect(holes(places, [2], [0])).toEqual([8192, 12288])
  expect(holes(places, [0, 1, 2], [])).toEqual([0, 12288])
})

test('no byte of a chunk that stays is in a hole, all bytes of those that go are, and holes are apart', () => {
  const place = fc.record({
    gap: fc.nat(5000),
    length: fc.integer({ min: 1, max: 9000 }),
    fate: fc.constantFrom('goes', 'stays', 'absent'),
  })
  fc.assert(
    fc.property(fc.array(place, { minLength: 1, maxLength: 30 }), (places) => {
      const chunks = table(places)
      const [fates, all] = [places.map(({ fate }) => fate), [...places.keys()]]
      const gone = all.filter((i) => fates[i] === 'goes')
      const ranges = new Holes(chunks).of(gone, (i) => fates[i] === 'stays')
      const inside = (at: number) =>
        ranges.some((start, i) => i % 2 === 0 && at >= start && at < (ranges[i + 1] as number))
      for (const i of all) {
        chunks.places(i, (at, length) => {
          const ends = [at, at + length - 1].map(inside)
          if (fates[i] === 'goes') expect(ends).toEqual([true, true])
          if (fates[i] === 'stays') expect(ends).toEqual([false, false])
        })
      }
      expect([...ranges]).toEqual([...ranges].sort((a, b) => a - b))
      expect(new Set(ranges).size).toBe(ranges.length)
    }),
    { numRuns: runs(200) },
  )
})
