import { expect, test } from 'vitest'
import { AnswerTimes } from '../../src/registry/pulse.ts'

test('answers are counted by what was asked for and what they are, and up to the first bound that they do not exceed', () => {
  const times = new AnswerTimes()
  expect(times.all()).toEqual([])
  times.note('blob', 200, 0.005)
  times.note('blob', 206, 0.006)
  times.note('manifest', 200, 1)
  times.note('blob', 304, 1)
  times.note('manifest', 404, 61)
  times.note('token', 503, 0)
  times.note('other', undefined, 2)
  const all = times.all()
  const counted = all.map(({ kind, code, counts }) => [kind, code, counts.reduce((sum, each) => sum + each, 0)])
  expect(counted).toEqual([
    ['blob', '2xx', 2],
    ['manifest', '2xx', 1],
    ['blob', '3xx', 1],
    ['manifest', '4xx', 1],
    ['token', '5xx', 1],
    ['other', 'none', 1],
  ])
  const of = (kind: string, code: string) => all.find((each) => each.kind === kind && each.code === code)
  expect(of('blob', '2xx')?.counts.slice(0, 3)).toEqual([1, 1, 0])
  expect(of('blob', '2xx')?.upTo.slice(0, 2)).toEqual([0.005, 0.01])
  expect(of('blob', '2xx')?.seconds).toBeCloseTo(0.011)
  expect(of('manifest', '4xx')?.counts.at(-1)).toBe(1)
  expect(of('manifest', '4xx')?.counts).toHaveLength((of('manifest', '4xx')?.upTo.length ?? 0) + 1)
})
