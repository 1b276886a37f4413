import { expect, test } from 'vitest'
import type { Slot } from '../../src/codec/job.ts'
import { CodecPool } from '../../src/codec/pool.ts'
import { type Batch, Queue, type Turn } from '../../src/codec/queue.ts'
import { Failure } from '../../src/errors.ts'
import type { Priority } from '../../src/image/blob.ts'
import { READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { chunkOf, Device, noise, store, text } from './fixture.ts'

const NOWHERE: Slot = { deviceFd: -1, readyFd: -1, chunk: 0 }
const PRIORITIES: Priority[] = ['demand', 'prefetch']

/** A queue whose jobs are known by numbers: the sizes of their chunks. */
function queue() {
  const clock = { ms: 0 }
  const it = new Queue(() => clock.ms)
  const rejected = new Map<number, string>()
  const add = (size: number, kind: 'decode' | 'verify', turn: Turn) => {
    const bytes = new Uint8Array(size)
    const job = {
      chunk: chunkOf('none', bytes, bytes),
      slot: NOWHERE,
      from: kind === 'decode' ? bytes : ('kept' as const),
    }
    it.add({ job, resolve: () => {}, reject: ({ code }) => void rejected.set(size, code) }, turn)
  }
  const sizes = (batch: Batch | undefined) => batch?.all.map(({ job }) => job.chunk.size)
  return { it, add, clock, rejected, sizes }
}

test('who waits goes first, then what is fetched ahead, then what an earlier life left, each in order', () => {
  const { it, add, sizes } = queue()
  add(1, 'verify', { priority: 'prefetch' })
  add(2, 'decode', { priority: 'prefetch' })
  add(3, 'verify', { priority: 'demand' })
  add(4, 'decode', { priority: 'prefetch' })
  add(5, 'decode', { priority: 'demand' })
  expect([1, 1, 1, 1].map((idle) => sizes(it.take(idle)))).toEqual([[3, 5], [2, 4], [1], undefined])
})

test('one worker at a time reads back what an earlier life left', () => {
  const { it, add, sizes } = queue()
  for (let size = 1; size <= 20; size++) add(size, 'verify', { priority: 'prefetch' })
  const first = it.take(4)
  expect(sizes(first)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
  expect(it.take(3)).toBe(undefined)
  add(30, 'decode', { priority: 'prefetch' })
  expect(sizes(it.take(3))).toEqual([30])
  it.ended(first as Batch)
  expect(sizes(it.take(3))).toEqual([9, 10, 11, 12, 13, 14, 15, 16])
})

test('large chunks travel alone, small ones together, and idle workers share them', () => {
  const { it, add, sizes } = queue()
  for (const size of [2_000_000, 300_000, 800_000, 10]) add(size, 'decode', { priority: 'demand' })
  expect(sizes(it.take(1))).toEqual([2_000_000])
  expect(sizes(it.take(2))).toEqual([300_000])
  expect(sizes(it.take(1))).toEqual([800_000, 10])
})

test('what is read back in the background is small work, however many workers are idle', () => {
  const { it, add, sizes } = queue()
  for (const size of [60_000, 60_001, 60_002, 500_000, 10]) add(size, 'verify', { priority: 'prefetch' })
  const next = () => {
    const batch = it.take(2) as Batch
    it.ended(batch)
    return sizes(batch)
  }
  expect([next(), next(), next(), next()]).toEqual([[60_000, 60_001], [60_002], [500_000], [10]])
})

test('the background rests three times as long as it works while somebody reads, and a while after', () => {
  const { it, add, clock } = queue()
  const urgent: (() => void)[] = []
  add(1, 'verify', { priority: 'prefetch' })
  const background = it.take(1) as Batch
  expect(it.restMs(background, 4)).toBe(0)
  add(2, 'decode', { priority: 'prefetch', onUrgent: (call) => void urgent.push(call) })
  expect(it.restMs(background, 4)).toBe(0)
  add(3, 'decode', { priority: 'demand' })
  const demand = it.take(1) as Batch
  clock.ms = 100
  expect([it.restMs(background, 4), it.restMs(background, 40), it.restMs(demand, 4)]).toEqual([12, 50, 0])
  clock.ms = 101
  expect(it.restMs(background, 4)).toBe(0)
  urgent[0]?.()
  expect(it.restMs(background, 4)).toBe(12)
})

test('one that becomes urgent goes behind those that already were; one that was taken or given up does not come back', () => {
  const { it, add, sizes } = queue()
  const urgent: (() => void)[] = []
  const turn = (signal?: AbortSignal): Turn => ({
    priority: 'prefetch',
    onUrgent: (call) => void urgent.push(call),
    ...(signal && { signal }),
  })
  const controller = new AbortController()
  add(1, 'decode', turn())
  add(2, 'verify', turn())
  add(3, 'verify', turn(controller.signal))
  add(4, 'verify', turn())
  add(5, 'decode', { priority: 'demand' })
  controller.abort()
  for (const call of urgent.slice(1)) call()
  expect(sizes(it.take(1))).toEqual([5, 2, 4])
  for (const call of urgent) call()
  expect(sizes(it.take(1))).toEqual([1])
  expect(it.take(1)).toBe(undefined)
})

test('one that is given up while it waits is told at once, once, and never taken', () => {
  const { it, add, rejected, sizes } = queue()
  const controller = new AbortController()
  const { signal } = controller
  add(1, 'decode', { priority: 'demand', signal })
  const begun = it.take(1)
  add(2, 'decode', { priority: 'prefetch', signal })
  add(3, 'verify', { priority: 'prefetch' })
  controller.abort()
  expect([...rejected]).toEqual([[2, 'aborted']])
  add(4, 'decode', { priority: 'demand', signal })
  expect(rejected.get(4)).toBe('aborted')
  expect([sizes(begun), sizes(it.take(1)), it.take(1)]).toEqual([[1], [3], undefined])
})

test('too much of one kind keeps nobody of another out', () => {
  const { it, add, rejected, sizes } = queue()
  for (let left = 65_536; left > 0; left--) add(1, 'verify', { priority: 'prefetch' })
  expect(rejected.size).toBe(0)
  add(2, 'verify', { priority: 'prefetch' })
  add(3, 'decode', { priority: 'prefetch' })
  add(4, 'verify', { priority: 'demand' })
  expect([...rejected]).toEqual([[2, 'limit']])
  expect(sizes(it.take(1))).toEqual([4])
  it.fail(Failure.aborted('closed'))
  expect(rejected.get(3)).toBe('aborted')
  expect(it.take(1)).toBe(undefined)
})

test.each([1, 2])(
  'demand never waits for prefetch: beside a full queue it ends next, on %i threads',
  async (threads) => {
    using device = new Device()
    const pool = new CodecPool({ threads })
    const ALL = 702
    const bytes = text(3000)
    const stored = store('gzip', bytes)
    const ended: string[] = []
    const at = (i: number) => ({ places: [{ from: 0, length: 3000, at: i * 4096 }] })
    const decode = async (i: number, priority: Priority) => {
      await pool.decode(chunkOf('gzip', bytes, stored, at(i)), stored, device.slot(i), { priority })
      ended.push(`${priority} decode`)
    }
    const verify = async (i: number, priority: Priority) => {
      await pool.verify(chunkOf('gzip', bytes, noise(10), at(i)), device.slot(i), { priority })
      ended.push(`${priority} verify`)
    }
    for (let i = 0; i < ALL; i++) {
      device.write(i * 4096, bytes)
      device.setReady(i < 201 ? READY_STORED : READY_MISSING, i)
    }
    // each thread has what it needs by now: the first jobs of one take long on a busy machine
    await Promise.all(Array.from({ length: ALL - 302 }, (_, i) => decode(302 + i, 'demand')))
    const load = Array.from({ length: 200 }, (_, i) => verify(i, 'prefetch'))
    await load[0]
    for (let i = 201; i < 301; i++) load.push(decode(i, 'prefetch'))
    const before = ended.length
    await Promise.all([decode(301, 'demand'), verify(200, 'demand')])
    // what the workers had begun comes first, and nothing else; but while a busy machine keeps one from it, another goes on with what is next
    const meanwhile = threads === 1 ? 0 : load.length / 2
    expect(ended.length - before).toBeLessThanOrEqual(2 + threads * 8 + meanwhile)
    await Promise.all(load)
    expect(ended.lastIndexOf('prefetch decode')).toBeLessThan(ended.lastIndexOf('prefetch verify'))
    expect(Array.from({ length: ALL }, (_, i) => device.ready(i)).every((state) => state === READY_VERIFIED)).toBe(true)
    await pool.close()
  },
)

test.each(PRIORITIES)('a chunk that is given up while it waits (%s) is not decoded', async (priority) => {
  using device = new Device()
  const pool = new CodecPool({ threads: 1 })
  const bytes = text(3000)
  const stored = store('zstd', bytes)
  const controller = new AbortController()
  const all = Array.from({ length: 40 }, (_, i) =>
    pool.decode(chunkOf('zstd', bytes, stored), stored, device.slot(i), { priority, signal: controller.signal }),
  )
  const settled = Promise.allSettled(all)
  await all[0]
  controller.abort()
  const codes = (await settled).map((each) => (each.status === 'fulfilled' ? 'done' : each.reason.code))
  expect(new Set(codes)).toEqual(new Set(['done', 'aborted']))
  expect(codes.map((_, i) => device.ready(i))).toEqual(
    codes.map((code) => (code === 'done' ? READY_VERIFIED : READY_MISSING)),
  )
  expect(pool.counters().decoded).toBe(codes.filter((code) => code === 'done').length)
  await pool.close()
})
