import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { BUDGET, Budget } from '../../src/fetch/budget.ts'
import { Wires } from '../../src/fetch/wire.ts'
import type { Priority } from '../../src/image/blob.ts'

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

test('all that is in memory has one bound, whatever it is and whoever is asked; demand goes first, and files wait for nobody', async () => {
  const budget = new Budget(BUDGET, new Wires(), { demand: 100, prefetch: 60, background: 40 })
  const order: string[] = []
  const backs = new Map<string, () => void>()
  const want = (name: string, bytes: number, priority: Priority, signal = never) =>
    budget.acquire(name, bytes, priority, signal).then((back) => {
      order.push(name)
      backs.set(name, back)
    })
  await want('background', 40, 'background')
  await want('prefetch', 20, 'prefetch')
  await want('demand', 20, 'demand')
  expect([budget.taken, budget.tryTake(1, 'prefetch')]).toEqual([80, undefined])
  budget.count(15) // in place of the disk
  void want('more background', 1, 'background')
  void want('more prefetch', 1, 'prefetch')
  const stop = new AbortController()
  const givenUp = want('given up', 30, 'demand', stop.signal)
  void want('more demand', 30, 'demand')
  await turn()
  expect(order).toHaveLength(3)
  const file = await budget.ofFiles().acquire('files', 50, 'prefetch', never)
  expect(budget.taken).toBe(145)
  file()
  stop.abort(new Error('gave up'))
  await expect(givenUp).rejects.toThrow('gave up')
  backs.get('background')?.()
  await turn()
  expect([order.slice(3), budget.taken]).toEqual([['more demand'], 85])
  backs.get('demand')?.()
  backs.get('more demand')?.()
  await turn()
  expect(order.slice(4)).toEqual(['more prefetch', 'more background'])
  for (const back of backs.values()) back()
  budget.count(-15)
  expect([budget.taken, budget.bytes('demand'), budget.bytes('prefetch'), budget.bytes('background')]).toEqual([
    0, 0, 0, 0,
  ])
})

test('what came along goes when a program waits for memory', async () => {
  const budget = new Budget(BUDGET, new Wires(), { demand: 100, prefetch: 60, background: 40 })
  const dropped: string[] = []
  for (const name of ['a', 'b']) {
    budget.shelf.put({ bytes: new Uint8Array(30), dropped: () => void dropped.push(name) })
  }
  const held = await budget.acquire('a', 30, 'demand', never)
  const more = await budget.acquire('b', 30, 'demand', never)
  expect([dropped, budget.taken]).toEqual([['a'], 90])
  held()
  more()
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
