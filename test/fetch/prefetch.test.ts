import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { prefetch } from '../../src/fetch/prefetch.ts'
import { READY_STORED } from '../../src/tree/ready.ts'
import { Layer, row, settle } from './layer.ts'

// the real limits, a thousandth of each
const SMALL = {
  limits: {
    demand: { gapMaxBytes: 64, runMaxBytes: 4000 },
    prefetch: { gapMaxBytes: 64, runMaxBytes: 8000 },
    background: { gapMaxBytes: 64, runMaxBytes: 8000 },
  },
  budget: {
    demand: { maxBytes: 32_000, maxRequests: 64 },
    prefetch: { maxBytes: 16_000, maxRequests: 4 },
    background: { maxBytes: 16_000, maxRequests: 4 },
  },
}
const never = new AbortController().signal
/** What its image wants first. */
const firstOf = ({ table }: Layer) => Array(table.first).keys()

test('it asks for the first chunks and no others, in few ranges', async () => {
  // as in the sample image: 5.87 MB in front, in chunks of 5 KB that are some tar headers apart
  const layer = new Layer({ chunks: row(2000, 5000, 200), first: 1130 })
  expect(await prefetch(layer.filler, firstOf(layer), never)).toEqual({ ready: 1130, failed: 0 })
  expect(layer.reads.map(({ range, priority }) => [range.start, range.end, priority])).toEqual([
    [0, 1130 * 5200 - 200, 'prefetch'],
  ])
})

test('an image that wants nothing first costs nothing', async () => {
  const layer = new Layer({ chunks: row(5, 100) })
  expect(await prefetch(layer.filler, firstOf(layer), never)).toEqual({ ready: 0, failed: 0 })
  expect(layer.reads).toEqual([])
})

test('ranges of the largest size, two at a time, in the order in which the image wants its files', async () => {
  const chunks = row(40, 1000)
  const layer = new Layer({ chunks: [...chunks.slice(20), ...chunks.slice(0, 20)], first: 40, hold: true, ...SMALL })
  const done = prefetch(layer.filler, firstOf(layer), never)
  await settle()
  expect(layer.reads.map(({ range }) => range.start / 1000)).toHaveLength(2)
  for (let left = 10; layer.open.length > 0 && left > 0; left--) {
    for (const read of layer.open) read.answer()
    await settle()
  }
  expect(await done).toEqual({ ready: 40, failed: 0 })
  expect(layer.reads.map(({ range }) => [range.start / 1000, range.end / 1000])).toEqual([
    [16, 24],
    [24, 32],
    [32, 40],
    [0, 8],
    [8, 16],
  ])
})

test('after a restart it checks what is there and fetches what is damaged', async () => {
  const layer = new Layer({ chunks: row(10, 100), first: 10 })
  layer.states.fill(READY_STORED)
  layer.rotten.add(7)
  expect(await prefetch(layer.filler, firstOf(layer), never)).toEqual({ ready: 10, failed: 0 })
  expect(layer.reads.map(({ range }) => [range.start, range.end])).toEqual([[700, 800]])
})

test('cancelled, it resolves at once with what was done', async () => {
  const layer = new Layer({ chunks: row(4, 6000), first: 4, hold: true, ...SMALL })
  const controller = new AbortController()
  const done = prefetch(layer.filler, firstOf(layer), controller.signal)
  await settle()
  layer.reads[0]?.answer()
  await settle()
  controller.abort()
  expect(await done).toEqual({ ready: 1, failed: 3 })
  await settle()
  expect(layer.open).toEqual([])
  expect(layer.budget.bytes('prefetch')).toBe(0)
  expect(await prefetch(layer.filler, firstOf(layer), controller.signal)).toEqual({ ready: 0, failed: 4 })
})

test('it tells of a registry that fails, and goes on', async () => {
  const layer = new Layer({ chunks: row(3, 8000), first: 3, ...SMALL })
  const error = Failure.unavailable('once')
  let reads = 0
  layer.failing = () => (reads++ === 0 ? error : undefined)
  const result = await prefetch(layer.filler, firstOf(layer), never)
  expect(result).toEqual({ ready: 2, failed: 1, error })
})

test('it stops when the disk is full', async () => {
  const layer = new Layer({ chunks: row(20, 8000), first: 20, ...SMALL })
  layer.failing = () => Failure.system('no space is left')
  const result = await prefetch(layer.filler, firstOf(layer), never)
  expect(result.ready).toBe(0)
  expect(result.failed).toBe(20)
  expect(layer.reads.length).toBeLessThanOrEqual(2)
})
