import fc from 'fast-check'
import { expect, test } from 'vitest'
import { StoredOrder } from '../../src/fetch/order.ts'
import { Plan } from '../../src/fetch/plan.ts'
import { row, tableOf } from './layer.ts'

const KIB = 1 << 10
const LIMITS = { gapMaxBytes: 64 * KIB, runMaxBytes: 4 << 20 }
const table = tableOf(row(1000, 10 * KIB))
const all = () => true

/** Misses chunk after chunk, each time the first that did not come along. */
function walk(plan: Plan, from: number, misses: number, wants: (chunk: number) => boolean = all): number[] {
  const counts: number[] = []
  let next = from
  for (let i = 0; i < misses; i++) {
    const ahead = plan.ahead(0, table.storedRange(next), wants)
    counts.push(ahead.length)
    next = Math.max(next, ...ahead) + 1
  }
  return counts
}

test('a single miss gets nothing more', () => {
  expect(new Plan(new StoredOrder(table), LIMITS).ahead(0, table.storedRange(500), all)).toEqual([])
})

test('misses here and there get nothing more', () => {
  const plan = new Plan(new StoredOrder(table), LIMITS)
  for (let i = 0; i < 200; i++) expect(plan.ahead(0, table.storedRange((i * 397) % 1000), all)).toEqual([])
})

test('misses in a row get more each time, up to 1 MiB', () => {
  expect(walk(new Plan(new StoredOrder(table), LIMITS), 0, 8)).toEqual([0, 0, 12, 25, 51, 102, 102, 102])
})

test('readers that take turns are told apart', () => {
  const plan = new Plan(new StoredOrder(table), LIMITS)
  const next = [0, 300, 600]
  for (let round = 0; round < 3; round++) {
    next.forEach((chunk, i) => {
      expect(plan.ahead(0, table.storedRange(chunk), all)).toHaveLength(round === 2 ? 12 : 0)
      next[i] = chunk + 1
    })
  }
})

test('what is here already does not come along, and ends it where a gap would be paid for', () => {
  expect(walk(new Plan(new StoredOrder(table), LIMITS), 0, 3, (chunk) => chunk !== 4)).toEqual([0, 0, 11])
  expect(walk(new Plan(new StoredOrder(table), LIMITS), 0, 3, (chunk) => chunk < 5 || chunk > 12)).toEqual([0, 0, 2])
})

test('it ends at the end of the blob and within one request', () => {
  const two = tableOf([...row(10, 10 * KIB), ...row(10, 10 * KIB).map((each) => ({ ...each, blob: 1 }))])
  const plan = new Plan(new StoredOrder(two), LIMITS)
  for (const chunk of [5, 6]) plan.ahead(0, two.storedRange(chunk), all)
  expect(plan.ahead(0, two.storedRange(7), all)).toEqual([8, 9])
  const small = new Plan(new StoredOrder(table), { ...LIMITS, runMaxBytes: 30 * KIB })
  expect(walk(small, 0, 4)).toEqual([0, 0, 2, 2])
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
      plan.ahead(0, at(from), all)
      plan.ahead(0, at(from + 1), all)
      const ahead = plan.ahead(0, at(from + 2), all)
      const want = Array.from({ length: Math.min(6, 40 - from - 3) }, (_, i) => places.indexOf(from + 3 + i))
      expect(ahead).toEqual(want)
    }),
  )
})
