// A host that can do only so much at once.
import { expect, test } from 'vitest'
import type { Fault } from '../fake/faults.ts'
import { BYTES, blobs, makeScene, PROTOCOLS } from './scene.ts'

test.each(Object.entries(PROTOCOLS))(
  'over %s a host that refuses what is too much is asked for less at once, and gives all',
  async (_, options) => {
    const { start, answering, open } = await makeScene()
    const registry = await start(options)
    const { blob, registries } = open(await answering(registry), {
      connections: 24,
      attempts: 30,
      pauseMs: 1,
      pauseMaxMs: 2,
    })
    await blob.read({ start: 0, end: 1 })
    const waiting = () => registry.seen.filter(({ status }) => status === 0).length
    const most: number[] = []
    const refusing = {
      ...blobs({ delayMs: 5 }),
      get status() {
        most.push(waiting())
        return waiting() > 4 ? 429 : undefined
      },
    }
    registry.faults = [refusing as Fault]
    const reads = Array.from({ length: 200 }, (_, i) => blob.read({ start: i * 100, end: i * 100 + 100 }))
    for (const [i, bytes] of (await Promise.all(reads)).entries()) {
      expect(Buffer.compare(bytes, BYTES.subarray(i * 100, i * 100 + 100))).toBe(0)
    }
    // it can do 4; at first it is asked for as many as its protocol carries
    expect(Math.max(...most.slice(-100))).toBeLessThan(10)
    expect(registries.counters().retries).toBeLessThan(200)
  },
)

test('a pause that a host asks for, as seconds or a date, is kept by all that nobody waits for', async () => {
  for (const after of [() => '1', (now: Date) => new Date(now.getTime() + 1500).toUTCString()]) {
    const { start, answering, open } = await makeScene()
    const registry = await start()
    const { blob } = open(await answering(registry))
    await blob.read({ start: 0, end: 1 })
    const now = new Date()
    now.setMilliseconds(0)
    registry.faults = [blobs({ nth: 1, status: 503, headers: { 'retry-after': after(now), date: now.toUTCString() } })]
    const order: string[] = []
    const read = (priority: 'demand' | 'prefetch' | 'background', name: string) =>
      blob.read({ start: 100_000, end: 300_000 }, { priority }).then(() => order.push(name))
    const refused = read('prefetch', 'refused')
    await expect.poll(() => registry.seen.at(-1)?.status).toBe(503)
    const before = registry.seen.length
    await new Promise((done) => setImmediate(done))
    const others = [read('prefetch', 'prefetch'), read('background', 'background')]
    await read('demand', 'demand')
    expect(order).toEqual(['demand'])
    expect(registry.seen).toHaveLength(before + 1)
    await Promise.all([refused, ...others])
    expect(order).toHaveLength(4)
  }
})
