import { expect, test } from 'vitest'
import { ignoredRanges } from '../../src/registry/blob-habits.ts'

function clock() {
  let now = 0
  const ranges = ignoredRanges(() => now)
  return { ranges, pass: (ms: number) => (now += ms), now: () => now }
}

test('three answers in a row that came whole make a blob rangeless, for half a minute', () => {
  const { ranges, pass, now } = clock()
  for (let i = 0; i < 3; i++) {
    expect(ranges.of('a')).toBe(false)
    ranges.happened('a', now())
    pass(1)
  }
  expect(ranges.of('a')).toBe(true)
  expect(ranges.of('b')).toBe(false)
  pass(30_000)
  expect(ranges.of('a')).toBe(false)
  // and it begins anew
  ranges.happened('a', now())
  expect(ranges.of('a')).toBe(false)
})

test('one range that comes ends the row', () => {
  const { ranges, pass, now } = clock()
  for (const came of [false, false, true, false, false]) {
    if (came) ranges.ended('a')
    else ranges.happened('a', now())
    pass(1)
  }
  expect(ranges.of('a')).toBe(false)
})

test('requests that were under way together count once', () => {
  const { ranges, pass, now } = clock()
  const began = now()
  pass(100)
  for (let i = 0; i < 10; i++) ranges.happened('a', began)
  expect(ranges.of('a')).toBe(false)
})

test('of more blobs than are remembered the oldest are forgotten', () => {
  const { ranges, now } = clock()
  for (let i = 0; i < 2000; i++) for (let times = 0; times < 3; times++) ranges.happened(`${i}`, now())
  expect([ranges.of('0'), ranges.of('1999')]).toEqual([false, true])
})
