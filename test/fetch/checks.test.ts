import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { CHECKS_MAX, Checks, COPIES_MAX, type Verdict } from '../../src/fetch/checks.ts'
import { type Flight, newFlight } from '../../src/fetch/flights.ts'
import type { Priority } from '../../src/image/blob.ts'

const flights = (count: number, priority: Priority = 'prefetch') =>
  Array.from({ length: count }, (_, chunk) => newFlight(chunk, priority))

/** Checks that end when they are told to. */
function checking(max = CHECKS_MAX) {
  const ends = new Map<number, PromiseWithResolvers<Verdict>>()
  const begun: number[] = []
  const results: (readonly [number, Verdict | string])[] = []
  const tracked: Promise<void>[] = []
  const checks = new Checks({
    max,
    verify: ({ chunk }) => {
      begun.push(chunk)
      const end = Promise.withResolvers<Verdict>()
      ends.set(chunk, end)
      return end.promise
    },
    track: (check) => void tracked.push(check),
    checked: ({ chunk }, verdict) => void results.push([chunk, verdict]),
    failed: ({ chunk }, error) => void results.push([chunk, String(error)]),
  })
  const end = async (chunk: number, verdict: Verdict = 'right') => {
    ends.get(chunk)?.resolve(verdict)
    await turn()
  }
  const fail = async (chunk: number) => {
    ends.get(chunk)?.reject(new Error('EIO'))
    await turn()
  }
  return { checks, begun, results, tracked, end, fail }
}

test('at most eight that nobody waits for are checked at once, in order; one that somebody waits for is checked without waiting', async () => {
  const { checks, begun, end } = checking()
  const some = flights(12)
  for (const each of some) checks.add(each)
  expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  expect(some.map(({ stage }) => stage)).toEqual([...Array(8).fill('checking'), ...Array(4).fill('unchecked')])
  checks.add(newFlight(100, 'demand'))
  expect(begun.at(-1)).toBe(100)
  await end(100)
  expect(begun).toHaveLength(9) // it took nobody's turn, and gives none
  await end(3)
  expect(begun.slice(9)).toEqual([8])
  await end(8)
  expect(begun.slice(9)).toEqual([8, 9])
})

test('of copies, which many chunks are in a row, a worker’s batches are full', () => {
  const { checks, begun } = checking(COPIES_MAX)
  for (const each of flights(40)) checks.add(each)
  expect(begun).toHaveLength(32)
})

test('one that was taken out is not checked, and one that became urgent takes nobody’s turn', async () => {
  const { checks, begun, end } = checking()
  const some = flights(11)
  for (const each of some) checks.add(each)
  const [dropped, urgent] = [some[8] as Flight, some[9] as Flight]
  checks.delete(dropped)
  urgent.priority = 'demand'
  checks.delete(urgent)
  checks.add(urgent)
  expect(begun.slice(8)).toEqual([9])
  await end(9)
  expect(begun.slice(8)).toEqual([9])
  await end(0)
  expect(begun.slice(8)).toEqual([9, 10])
})

test('a check that became urgent while it ran gives its turn on all the same', async () => {
  const { checks, begun, end } = checking()
  const some = flights(9)
  for (const each of some) checks.add(each)
  const [first] = some as [Flight]
  first.priority = 'demand'
  await end(0)
  expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8])
})

test('what cannot be checked is told with the reason, and is no damage', async () => {
  const { checks, results, end, fail } = checking()
  for (const each of flights(4, 'demand')) checks.add(each)
  await end(0)
  await end(1, 'damaged')
  await fail(2)
  await end(3, 'unknown')
  expect(results).toEqual([
    [0, 'right'],
    [1, 'damaged'],
    [2, 'Error: EIO'],
    [3, 'unknown'],
  ])
})

test('however many somebody waits for, 64 are under way at once, and what nobody waits for has its own turns', async () => {
  const { checks, begun, end, fail } = checking()
  const some = flights(100, 'demand')
  for (const each of some) checks.add(each)
  expect(begun).toHaveLength(64)
  for (const each of flights(109).slice(100)) checks.add(each)
  expect(begun.slice(64)).toEqual([100, 101, 102, 103, 104, 105, 106, 107])
  await end(5)
  await fail(6)
  expect(begun.slice(72)).toEqual([64, 65])
})

test('after close nothing is begun, and nobody is told', async () => {
  const { checks, begun, results, tracked, end, fail } = checking()
  for (const each of flights(10)) checks.add(each)
  checks.close()
  for (let chunk = 0; chunk < 7; chunk++) await end(chunk)
  await fail(7)
  await Promise.all(tracked)
  expect(begun).toHaveLength(8)
  expect(results).toEqual([])
})
