import fc from 'fast-check'
import { expect, test } from 'vitest'
import { StoredOrder } from '../../src/fetch/order.ts'
import { Plan, runs } from '../../src/fetch/plan.ts'
import { row, tableOf } from './layer.ts'

const KIB = 1 << 10
const LIMITS = { gapMaxBytes: 64 * KIB, runMaxBytes: 4 << 20 }
const table = tableOf(row(1000, 10 * KIB))
const all = (chunks: readonly number[]) => chunks

const chunk = (index: number, start: number, end: number, blob = 0) => ({ index, blob, stored: { start, end } })
const NARROW = { gapMaxBytes: 10, runMaxBytes: 100 }

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
  expect(runs([...chunks], NARROW).map(({ range, chunks }) => [range.start, range.end, ...chunks])).toEqual(want)
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

/** Misses chunk after chunk, each time the first that did not come along. */
function walk(plan: Plan, from: number, misses: number, isAbsent: (chunk: number) => boolean = () => true): number[] {
  const counts: number[] = []
  let next = from
  for (let i = 0; i < misses; i++) {
    const ahead = plan.missed(0, table.storedRange(next), (chunks) => chunks.filter(isAbsent))
    counts.push(ahead.length)
    next = Math.max(next, ...ahead) + 1
  }
  return counts
}

test('a single miss gets nothing more', () => {
  expect(new Plan(new StoredOrder(table), LIMITS).missed(0, table.storedRange(500), all)).toEqual([])
})

test('misses here and there get nothing more', () => {
  const plan = new Plan(new StoredOrder(table), LIMITS)
  for (let i = 0; i < 200; i++) expect(plan.missed(0, table.storedRange((i * 397) % 1000), all)).toEqual([])
})

test('misses in a row have more read ahead each time, up to 8 MiB', () => {
  const long = tableOf(row(4000, 10 * KIB))
  const plan = new Plan(new StoredOrder(long), LIMITS)
  const counts: number[] = []
  for (let next = 0, i = 0; i < 10; i++) {
    const ahead = plan.missed(0, long.storedRange(next), all)
    counts.push(ahead.length)
    next = Math.max(next, ...ahead) + 1
  }
  expect(counts).toEqual([0, 0, 12, 25, 51, 102, 204, 409, 819, 819])
})

test('of large chunks one is read ahead first', () => {
  const plan = new Plan(new StoredOrder(tableOf(row(40, 1024 * KIB))), LIMITS)
  const large = tableOf(row(40, 1024 * KIB))
  const ahead = (chunk: number) => plan.missed(0, large.storedRange(chunk), all)
  expect([0, 1, 2, 4].map(ahead)).toEqual([[], [], [3], [5, 6]])
})

test('whoever has come half through what was read ahead, and waits, has more read ahead of him', () => {
  const long = tableOf(row(400, 10 * KIB))
  const plan = new Plan(new StoredOrder(long), LIMITS)
  const ahead = (chunk: number) => plan.reached(0, long.storedRange(chunk), all)
  for (const chunk of [0, 1]) plan.missed(0, long.storedRange(chunk), all)
  expect(plan.missed(0, long.storedRange(2), all)).toEqual(Array.from({ length: 12 }, (_, i) => 3 + i))
  for (const chunk of [3, 4, 5, 6, 7]) expect(ahead(chunk)).toEqual([])
  expect(ahead(8)).toEqual(Array.from({ length: 19 }, (_, i) => 15 + i)) // twice as far, of which six are under way
  for (const chunk of [9, 20]) expect(ahead(chunk)).toEqual([])
  expect(ahead(21)).toEqual(Array.from({ length: 39 }, (_, i) => 34 + i))
  expect(ahead(21)).toEqual([])
})

test('readers that take turns are told apart', () => {
  const plan = new Plan(new StoredOrder(table), LIMITS)
  const next = [0, 300, 600]
  for (let round = 0; round < 3; round++) {
    next.forEach((chunk, i) => {
      expect(plan.missed(0, table.storedRange(chunk), all)).toHaveLength(round === 2 ? 12 : 0)
      next[i] = chunk + 1
    })
  }
})

test('what is here already does not come along, and ends it where a gap would be paid for', () => {
  expect(walk(new Plan(new StoredOrder(table), LIMITS), 0, 3, (chunk) => chunk !== 4)).toEqual([0, 0, 11])
  expect(walk(new Plan(new StoredOrder(table), LIMITS), 0, 3, (chunk) => chunk < 5 || chunk > 12)).toEqual([0, 0, 2])
})

test('it ends at the end of the blob', () => {
  const two = tableOf([...row(10, 10 * KIB), ...row(10, 10 * KIB).map((each) => ({ ...each, blob: 1 }))])
  const plan = new Plan(new StoredOrder(two), LIMITS)
  for (const chunk of [5, 6]) plan.missed(0, two.storedRange(chunk), all)
  expect(plan.missed(0, two.storedRange(7), all)).toEqual([8, 9])
})

test('what comes along lies behind the miss, in stored order, whatever the layout', () => {
  const order = fc.shuffledSubarray(
    Array.from({ length: 40 }, (_, i) => i),
    { minLength: 40 },
  )
  fc.assert(
    fc.property(order, fc.nat(30), (places, from) => {
      const chunks = row(40, 20 * KIB)
      const shuffled = tableOf(places.map((i) => chunks[i] as (typeof chunks)[number]))
      const plan = new Plan(new StoredOrder(shuffled), LIMITS)
      const at = (i: number) => shuffled.storedRange(places.indexOf(i))
      plan.missed(0, at(from), all)
      plan.missed(0, at(from + 1), all)
      const ahead = plan.missed(0, at(from + 2), all)
      const want = Array.from({ length: Math.min(6, 40 - from - 3) }, (_, i) => places.indexOf(from + 3 + i))
      expect(ahead).toEqual(want)
    }),
  )
})
