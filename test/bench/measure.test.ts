import { expect, test } from 'vitest'
import type { Subject } from '../../bench/case.ts'
import { measure, median, medians, missed, percentile99, takeTurns } from '../../bench/measure.ts'

const samples = (name: string, ...values: number[]) => ({ name, samples: values.map((speed) => ({ speed })) })
const RATIO = { metric: 'speed', of: 'us', over: 'them', atLeast: 2 }

test('a median is the middle, or between the two in the middle', () => {
  expect([median([3, 1, 2]), median([4, 1, 2, 3]), median([])]).toEqual([2, 2.5, undefined])
})

test('of a hundred values the 99th percentile is the second largest, of fewer the largest', () => {
  const upTo = (count: number) => Array.from({ length: count }, (_, i) => count - i)
  expect([percentile99(upTo(200)), percentile99(upTo(100)), percentile99(upTo(10)), percentile99([])]).toEqual([
    198,
    99,
    10,
    undefined,
  ])
})

test('medians are taken a metric', () => {
  expect(
    medians([
      { a: 1, b: 9 },
      { a: 2, b: 8 },
      { a: 9, b: 1 },
    ]),
  ).toEqual({ a: 2, b: 8 })
})

test('a ratio is formed within a round: a slow moment slows both', () => {
  const measured = measure(RATIO, [samples('us', 30, 3, 33), samples('them', 10, 1, 10)])
  expect(measured).toEqual({ ...RATIO, median: 3, least: 3, most: 3.3 })
})

test('a bar is missed below it, and when nothing was measured', () => {
  const check = (us: number[], isMissed: boolean) =>
    expect(missed(measure(RATIO, [samples('us', ...us), samples('them', 1)]))).toBe(isMissed)
  check([2], false)
  check([1.99], true)
  check([], true)
})

test('what has no bar is never missed', () => {
  expect(missed(measure({ metric: 'speed', of: 'us', over: 'nobody' }, [samples('us', 1)]))).toBe(false)
})

test('nothing to divide by is not measured, rather than infinitely fast', () => {
  expect(measure(RATIO, [samples('us', 1), samples('them', 0)])).toEqual(RATIO)
})

test('subjects take turns, every other round the other way round, after one turn each that does not count', async () => {
  const turns: string[] = []
  const subject = (name: string): Subject => ({
    name,
    open: async () => async () => ({ turn: turns.push(name) }),
  })
  const { measured, absent } = await takeTurns([subject('a'), subject('b')], 2)
  expect(turns).toEqual(['a', 'b', 'a', 'b', 'b', 'a'])
  expect(absent).toEqual([])
  expect(measured).toEqual([
    { name: 'a', samples: [{ turn: 3 }, { turn: 6 }] },
    { name: 'b', samples: [{ turn: 4 }, { turn: 5 }] },
  ])
})

test('a program of others says its version, once it was measured', async () => {
  const subject = { name: 'other', version: async () => 'other 1.2', open: async () => async () => ({ speed: 1 }) }
  const { measured } = await takeTurns([subject], 1)
  expect(measured).toEqual([{ name: 'other', version: 'other 1.2', samples: [{ speed: 1 }] }])
})

test('who cannot be opened, or fails in the first turn, is absent with the reason; a later failure ends the run', async () => {
  const fails = async () => Promise.reject(new Error('no such thing'))
  const { measured, absent } = await takeTurns(
    [
      { name: 'closed', open: fails },
      { name: 'broken', open: async () => fails },
      { name: 'well', open: async () => async () => ({ speed: 1 }) },
    ],
    1,
  )
  expect(absent).toEqual([
    { name: 'closed', why: 'no such thing' },
    { name: 'broken', why: 'no such thing' },
  ])
  expect(measured).toEqual([{ name: 'well', samples: [{ speed: 1 }] }])
  let turns = 0
  const weak = async () => (turns++ === 0 ? { speed: 1 } : fails())
  await expect(takeTurns([{ name: 'weak', open: async () => weak }], 1)).rejects.toThrow('no such thing')
})
