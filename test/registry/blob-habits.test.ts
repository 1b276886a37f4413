import { expect, test } from 'vitest'
import { IgnoredRanges } from '../../src/registry/blob-habits.ts'

function clock() {
  let now = 0
  const ranges = new IgnoredRanges(() => now)
  return { ranges, pass: (ms: number) => (now += ms), now: () => now }
}

test('three answers in a row that came whole make a blob rangeless, for half a minute', () => {
  const { ranges, pass, now } = clock()
  for (let i = 0; i < 3; i++) {
    expect(ranges.of('a')).toBe(false)
    ranges.cameWhole('a', now())
    pass(1)
  }
  expect(ranges.of('a')).toBe(true)
  expect(ranges.of('b')).toBe(false)
  pass(30_000)
  expect(ranges.of('a')).toBe(false)
  // and it begins anew
  ranges.cameWhole('a', now())
  expect(ranges.of('a')).toBe(false)
})

test('one range that comes ends the row', () => {
  const { ranges, pass, now } = clock()
  for (const came of [false, false, true, false, false]) {
    if (came) ranges.came('a')
    else ranges.cameWhole('a', now())
    pass(1)
  }
  expect(ranges.of('a')).toBe(false)
})

test('requests that were under way together count once', () => {
  const { ranges, pass, now } = clock()
  const began = now()
  pass(100)
  for (let i = 0; i < 10; i++) ranges.cameWhole('a', began)
  expect(ranges.of('a')).toBe(false)
})
