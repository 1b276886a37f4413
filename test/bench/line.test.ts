import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Line } from '../../bench/line.ts'

test('bytes on a free line arrive after their own length and the delay', () => {
  expect(new Line(20, 1000).enter(5, 100)).toBe(5 + 100 + 20)
})

test('bytes behind others wait until the line is free, and not for the delay', () => {
  const line = new Line(20, 1000)
  line.enter(0, 100)
  expect(line.enter(0, 50)).toBe(150 + 20)
  expect(line.enter(500, 50)).toBe(550 + 20)
})

test('an unlimited line only delays', () => {
  const line = new Line(20, Number.POSITIVE_INFINITY)
  expect([line.enter(1, 1 << 30), line.enter(1, 1)]).toEqual([21, 21])
})

test('whatever enters and when: arrivals keep their order and never exceed the rate', () => {
  const entering = fc.array(fc.record({ after: fc.nat(50), bytes: fc.nat(5000) }), { minLength: 1 })
  fc.assert(
    fc.property(entering, fc.integer({ min: 1, max: 100_000 }), (pieces, bytesPerSecond) => {
      const line = new Line(7, bytesPerSecond)
      let now = 0
      let last = 0
      let total = 0
      for (const { after, bytes } of pieces) {
        now += after
        total += bytes
        const at = line.enter(now, bytes)
        expect(at).toBeGreaterThanOrEqual(last)
        expect(at - 7).toBeGreaterThanOrEqual((total * 1000) / bytesPerSecond - 1e-6)
        last = at
      }
    }),
  )
})
