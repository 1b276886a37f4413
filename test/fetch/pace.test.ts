import { expect, test } from 'vitest'
import { BackgroundPace, type LinkPace, Pace } from '../../src/fetch/nearby.ts'

/** Reads one after the other: bytes, milliseconds. */
function after(reads: readonly [number, number][], of: new (now: () => number) => LinkPace = Pace): number {
  let now = 0
  const pace = new of(() => now)
  for (const [bytes, ms] of reads) {
    const ended = pace.begin()
    now += ms
    ended(bytes)
  }
  return pace.roundTripBytes
}

const many = <T>(count: number, each: T): T[] => Array.from({ length: count }, () => each)

test('without a short read no round trip is known, and nothing is promised', () => {
  expect(after([])).toBe(0)
  expect(after(many(10, [1 << 20, 100]))).toBe(0)
})

test('until a rate is measured, a round trip carries enough to measure it', () => {
  expect(after([[100, 1]])).toBe(128 << 10)
  expect(after([[100, 100]])).toBe(128 << 10)
})

test('short reads tell of the round trip, long ones of the rate', () => {
  // 40 ms and 12.5 MB/s: 250 KB take 20 ms more
  const bytes = after([...many<[number, number]>(5, [5_000, 40]), ...many<[number, number]>(30, [250_000, 60])])
  expect(bytes).toBeGreaterThan(0.99 * 500_000)
  expect(bytes).toBeLessThan(1.01 * 500_000)
})

test('a short read that stood in a queue does not make the way longer', () => {
  const way = many<[number, number]>(20, [5_000, 40])
  expect(after([...way, [5_000, 200]])).toBeLessThan(1.1 * after(way))
})

test('reads that share the line are taken together', () => {
  let now = 0
  const pace = new Pace(() => now)
  const short = pace.begin()
  now = 40
  short(100)
  for (let i = 0; i < 30; i++) {
    const both = [pace.begin(), pace.begin()]
    now += 60
    for (const ended of both) ended(125_000)
  }
  // of each pair one was counted with half of what arrived: between half the rate and the rate
  expect(pace.roundTripBytes).toBeGreaterThan(350_000)
  expect(pace.roundTripBytes).toBeLessThan(510_000)
})

test('no read makes a link wider than 1 Gbit/s', () => {
  const bytes = after([[100, 10], ...many<[number, number]>(50, [100 << 20, 10])])
  expect(bytes).toBeLessThanOrEqual(1.25e6)
})

test('beside a background only a short way brings anything along, and that much', () => {
  const way = (ms: number) => after(many(5, [5_000, ms]), BackgroundPace)
  expect(after([], BackgroundPace)).toBe(0)
  expect(way(4)).toBe(256 << 10)
  expect(way(6)).toBe(0)
})
