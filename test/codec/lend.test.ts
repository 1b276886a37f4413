import { afterAll, expect, test } from 'vitest'
import { CodecPool } from '../../src/codec/pool.ts'
import { READY_VERIFIED } from '../../src/tree/ready.ts'
import { chunkOf, Device, store, text } from './fixture.ts'

const WORKER = new URL('./lent-worker.ts', import.meta.url)
const bytes = text(3000)
const stored = store('zstd', bytes)
const pool = new CodecPool({ threads: 1, worker: WORKER })
afterAll(() => pool.close())

const never = async () => {
  throw new Error('a thread is free')
}
const decode = (device: Device) =>
  pool.decode(chunkOf('zstd', bytes, stored), stored, device.slot(), { priority: 'demand' })

test('a thread that has nothing to do is lent, and decodes afterwards', async () => {
  using device = new Device()
  await decode(device)
  expect(await pool.lend([1, 2], { name: 'sum' }, never)).toBe(3)
  await expect(pool.lend([1], { name: 'fail' }, never)).rejects.toThrow('1 is too few')
  await decode(device)
  expect(device.ready()).toBe(READY_VERIFIED)
})

test('what no thread comes free for is done otherwise, and a chunk waits until the thread is back', async () => {
  using device = new Device()
  const gate = new Int32Array(new SharedArrayBuffer(4))
  const held = pool.lend([gate], { name: 'hold' }, never)
  await new Promise(setImmediate) // a chunk that came with it would go first
  const ended: string[] = []
  const decoded = decode(device).then(() => ended.push('chunk'))
  expect(await pool.lend([1, 2], { name: 'sum' }, async () => 'elsewhere')).toBe('elsewhere')
  ended.push('elsewhere')
  Atomics.store(gate, 0, 1)
  Atomics.notify(gate, 0)
  await Promise.all([held, decoded])
  expect(ended).toEqual(['elsewhere', 'chunk'])
})

test('a thread that was ended is replaced', async () => {
  using device = new Device()
  const gate = new Int32Array(new SharedArrayBuffer(4))
  const controller = new AbortController()
  const held = pool.lend([gate], { name: 'hold', signal: controller.signal }, never)
  await new Promise(setImmediate)
  controller.abort()
  await expect(held).rejects.toThrow()
  await decode(device)
  expect(device.ready()).toBe(READY_VERIFIED)
})

test('a thread that gave back what it keeps to be quick decodes as before', async () => {
  using device = new Device()
  await decode(device)
  await pool.lend([], { name: 'rest' }, never)
  using other = new Device()
  await decode(other)
  expect(other.ready()).toBe(READY_VERIFIED)
})
