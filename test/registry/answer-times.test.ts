import { expect, test } from 'vitest'
import { AnswerTimes } from '../../src/registry/pulse.ts'

test('answers are counted by what they are, and up to the first bound that they do not exceed', () => {
  const times = new AnswerTimes()
  times.note(200, 0.005)
  times.note(206, 0.006)
  times.note(304, 1)
  times.note(404, 61)
  times.note(503, 0)
  times.note(undefined, 2)
  const all = times.all()
  const counted = Object.entries(all).map(([code, { counts }]) => [code, counts.reduce((sum, each) => sum + each, 0)])
  expect(counted).toEqual([
    ['2xx', 2],
    ['3xx', 1],
    ['4xx', 1],
    ['5xx', 1],
    ['none', 1],
  ])
  expect(all['2xx'].counts.slice(0, 3)).toEqual([1, 1, 0])
  expect(all['2xx'].upTo.slice(0, 2)).toEqual([0.005, 0.01])
  expect(all['2xx'].seconds).toBeCloseTo(0.011)
  expect(all['4xx'].counts.at(-1)).toBe(1)
  expect(all['4xx'].counts).toHaveLength(all['4xx'].upTo.length + 1)
})
