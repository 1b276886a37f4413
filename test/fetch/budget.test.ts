import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Budget, LANES_MAX } from '../../src/fetch/budget.ts'

const LANE = { maxBytes: 100, maxRequests: 3 }
const never = new AbortController().signal

test('demand does not wait for prefetch', async () => {
  const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
  await budget.acquire('a', 100, 'prefetch', never)
  void budget.acquire('a', 100, 'prefetch', never) // waits for ever
  const release = await budget.acquire('a', 100, 'demand', never)
  release()
  expect([budget.bytes('demand'), budget.bytes('prefetch')]).toEqual([0, 100])
})

test.each(['demand', 'prefetch'] as const)(
  '%s of one origin does not wait for another’s, which stands still',
  async (priority) => {
    const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
    const stop = new AbortController()
    await budget.acquire('hangs', 100, priority, never)
    const stuck = Array.from({ length: 50 }, () => budget.acquire('hangs', 100, priority, stop.signal))
    const release = await budget.acquire('b', 100, priority, never)
    expect(budget.bytes(priority)).toBe(200)
    release()
    stop.abort(new Error('gave up'))
    for (const each of stuck) await expect(each).rejects.toThrow('gave up')
    expect(budget.bytes(priority)).toBe(100)
  },
)

test('all origins together have eight lanes, and what waits for those is given up like any other', async () => {
  const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
  const releases = await Promise.all(
    Array.from({ length: LANES_MAX }, (_, i) => budget.acquire(`${i}`, 1000, 'demand', never)),
  )
  expect(budget.bytes('demand')).toBe(800)
  const stop = new AbortController()
  const givenUp = budget.acquire('late', 100, 'demand', stop.signal)
  const late = budget.acquire('late', 100, 'demand', never)
  await turn()
  stop.abort(new Error('gave up'))
  await expect(givenUp).rejects.toThrow('gave up')
  let got = false
  void late.then(() => {
    got = true
  })
  await turn()
  expect(got).toBe(false)
  releases[3]?.()
  const release = await late
  expect(budget.bytes('demand')).toBe(800)
  for (const each of [...releases, release]) each()
  expect(budget.bytes('demand')).toBe(0)
})

test('a request larger than the lane has it for itself', async () => {
  const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
  const small = await budget.acquire('a', 1, 'demand', never)
  let got = false
  const large = budget.acquire('a', 1000, 'demand', never).then((release) => {
    got = true
    return release
  })
  await Promise.resolve()
  expect(got).toBe(false)
  small()
  const release = await large
  expect(budget.bytes('demand')).toBe(100)
  release()
  release()
  expect(budget.bytes('demand')).toBe(0)
})

test('giving up a place lets those behind go', async () => {
  const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
  await budget.acquire('a', 60, 'demand', never)
  const controller = new AbortController()
  const large = budget.acquire('a', 90, 'demand', controller.signal)
  const small = budget.acquire('a', 10, 'demand', never)
  controller.abort(new Error('gave up'))
  await expect(large).rejects.toThrow('gave up')
  await small
  expect(budget.bytes('demand')).toBe(70)
  await expect(budget.acquire('a', 1, 'demand', controller.signal)).rejects.toThrow('gave up')
})

test('no order of requests exceeds the limits, and all are served in order', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 150 }), fc.nat(5)), { maxLength: 30 }),
      async (requests) => {
        const budget = new Budget({ demand: LANE, prefetch: LANE, background: LANE })
        const order: number[] = []
        let open = 0
        await Promise.all(
          requests.map(async ([bytes, turns], i) => {
            const release = await budget.acquire('a', bytes, 'demand', never)
            order.push(i)
            open++
            expect(open).toBeLessThanOrEqual(LANE.maxRequests)
            expect(budget.bytes('demand')).toBeLessThanOrEqual(LANE.maxBytes)
            for (let left = turns; left > 0; left--) await Promise.resolve()
            open--
            release()
          }),
        )
        expect(order).toEqual(requests.map((_, i) => i))
        expect(budget.bytes('demand')).toBe(0)
      },
    ),
  )
})
