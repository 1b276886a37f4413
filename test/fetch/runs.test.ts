import fc from 'fast-check'
import { expect, test } from 'vitest'
import { runs } from '../../src/fetch/runs.ts'

const chunk = (index: number, start: number, end: number, blob = 0) => ({ index, blob, stored: { start, end } })
const LIMITS = { gapMaxBytes: 10, runMaxBytes: 100 }

test.each([
  ['nothing', [], []],
  ['neighbours are one run', [chunk(1, 10, 20), chunk(0, 0, 10)], [[0, 20, 0, 1]]],
  ['a gap within the limit is joined', [chunk(0, 0, 10), chunk(1, 20, 30)], [[0, 30, 0, 1]]],
  [
    'a gap beyond it is not',
    [chunk(0, 0, 10), chunk(1, 21, 30)],
    [
      [0, 10, 0],
      [21, 30, 1],
    ],
  ],
  [
    'a run ends at its limit',
    [chunk(0, 0, 60), chunk(1, 60, 100), chunk(2, 100, 101)],
    [
      [0, 100, 0, 1],
      [100, 101, 2],
    ],
  ],
  [
    'a larger chunk is a run of its own',
    [chunk(0, 0, 10), chunk(1, 10, 400), chunk(2, 400, 401)],
    [
      [0, 10, 0],
      [10, 400, 1],
      [400, 401, 2],
    ],
  ],
  [
    'blobs are apart',
    [chunk(0, 0, 10), chunk(1, 10, 20, 1)],
    [
      [0, 10, 0],
      [10, 20, 1],
    ],
  ],
  ['chunks inside and over each other', [chunk(0, 0, 50), chunk(1, 10, 20), chunk(2, 40, 60)], [[0, 60, 0, 1, 2]]],
] as const)('%s', (_, chunks, want) => {
  expect(runs([...chunks], LIMITS).map(({ range, chunks }) => [range.start, range.end, ...chunks])).toEqual(want)
})

test('every chunk is in one run that covers it, and no run exceeds a limit', () => {
  const chunks = fc.array(
    fc.record({ blob: fc.nat(2), start: fc.nat(2000), length: fc.integer({ min: 1, max: 300 }) }),
    {
      maxLength: 60,
    },
  )
  fc.assert(
    fc.property(chunks, fc.nat(100), fc.integer({ min: 1, max: 500 }), (made, gapMaxBytes, runMaxBytes) => {
      const wanted = made.map(({ blob, start, length }, index) => chunk(index, start, start + length, blob))
      const result = runs(wanted, { gapMaxBytes, runMaxBytes })
      expect(result.flatMap((each) => each.chunks).toSorted((a, b) => a - b)).toEqual(wanted.map((each) => each.index))
      for (const run of result) {
        const inside = run.chunks.map((index) => wanted[index] as (typeof wanted)[number])
        expect(run.range.start).toBe(Math.min(...inside.map((each) => each.stored.start)))
        expect(run.range.end).toBe(Math.max(...inside.map((each) => each.stored.end)))
        expect(inside.every((each) => each.blob === run.blob)).toBe(true)
        expect(inside.length === 1 || run.range.end - run.range.start <= runMaxBytes).toBe(true)
        let end = run.range.start
        for (const { stored } of inside) {
          expect(stored.start - end).toBeLessThanOrEqual(gapMaxBytes)
          end = Math.max(end, stored.end)
        }
      }
    }),
  )
})
