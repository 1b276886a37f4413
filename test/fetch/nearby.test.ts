// What comes along with misses, and what becomes of it.
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { READY_VERIFIED } from '../../src/tree/ready.ts'
import { Layer, type LayerOptions, row, settle } from './layer.ts'

const KIB = 1 << 10
/** 40 ms at 100 Mbit/s. */
const ROUND_TRIP = 500 * KIB
/** So far apart that nothing that comes along with one of them reaches the next. */
const FAR = [100, 300, 500, 700, 900, 1100]

/** 2,000 chunks of 10 KiB in a row. */
const layerOf = (options: Partial<LayerOptions> = {}) =>
  new Layer({ chunks: row(2000, 10 * KIB), roundTripBytes: ROUND_TRIP, ...options })
const along = (layer: Layer) => layer.reads.filter(({ priority }) => priority === 'prefetch')

async function miss(layer: Layer, chunks: readonly number[]): Promise<void> {
  for (const chunk of chunks) {
    await layer.filler.fill([chunk], 'demand')
    await settle()
  }
}

/** A layer after misses enough, whose registry holds back what came along with the last of them. */
async function missed(): Promise<Layer> {
  const layer = layerOf({ hold: true })
  for (const chunk of FAR.slice(0, 4)) {
    const filled = layer.filler.fill([chunk], 'demand')
    await settle()
    layer.open.find(({ priority }) => priority === 'demand')?.answer()
    await filled
  }
  return layer
}

test('a few misses get nothing more', async () => {
  const layer = layerOf()
  await miss(layer, FAR.slice(0, 3))
  expect(layer.reads).toHaveLength(3)
  expect(layer.filler.counters.nearbyBytes).toBe(0)
})

test('as long as no round trip was measured nothing comes along', async () => {
  const layer = layerOf({ roundTripBytes: 0 })
  await miss(layer, FAR)
  expect(along(layer)).toEqual([])
})

test('whoever misses again and again gets the neighbourhood in a request of its own, of half a round trip at most', async () => {
  const layer = layerOf()
  await miss(layer, FAR.slice(0, 4))
  const [beside, ...more] = along(layer)
  expect(more).toEqual([])
  const { start = 0, end = 0 } = beside?.range ?? {}
  expect(start).toBeLessThan(700 * 10 * KIB)
  expect(end).toBeGreaterThan(701 * 10 * KIB)
  expect(end - start).toBeLessThanOrEqual(ROUND_TRIP / 2)
})

test('what came along is decoded when it is asked for and not before, without another request for it', async () => {
  const layer = layerOf()
  await miss(layer, FAR.slice(0, 4))
  expect(layer.decoded).toEqual(FAR.slice(0, 4))
  const before = layer.reads.length
  await layer.filler.fill([702], 'demand')
  expect(layer.decoded.at(-1)).toBe(702)
  expect(layer.states[702]).toBe(READY_VERIFIED)
  expect(layer.states[703]).not.toBe(READY_VERIFIED)
  expect(layer.filler.counters.nearbyHits).toBe(1)
  expect(layer.reads.slice(before).filter(({ priority }) => priority === 'demand')).toEqual([])
})

test('misses that find nothing cost a loan and an eighth of what they wait, no more', async () => {
  const layer = new Layer({ chunks: row(40_000, 10 * KIB), roundTripBytes: ROUND_TRIP })
  const misses = 60
  await miss(
    layer,
    Array.from({ length: misses }, (_, i) => i * 500),
  )
  const { nearbyBytes } = layer.filler.counters
  expect(nearbyBytes).toBeGreaterThan(0)
  expect(nearbyBytes).toBeLessThanOrEqual(512 * KIB + (misses * ROUND_TRIP) / 8)
})

test('hits pay for more: a reader who goes forward in steps meets what was fetched before', async () => {
  const layer = layerOf()
  await miss(
    layer,
    Array.from({ length: 100 }, (_, i) => i * 13),
  )
  expect(layer.filler.counters.nearbyHits).toBeGreaterThan(80)
  expect(layer.most.prefetch).toBeLessThanOrEqual(2 * ROUND_TRIP)
})

test('who reads on in order from what came along is read ahead of, and nothing is asked for twice', async () => {
  const layer = layerOf()
  await miss(layer, FAR.slice(0, 4))
  const before = layer.reads.length
  await miss(
    layer,
    Array.from({ length: 1000 }, (_, i) => 701 + i),
  )
  const reads = layer.reads.slice(before)
  // by what comes along alone they were 255: as much as is left of half a round trip, each time
  expect(reads.length).toBeLessThan(15)
  const bytes = layer.reads.reduce((sum, { range }) => sum + range.end - range.start, 0)
  const distinct = new Set(
    layer.reads.flatMap(({ range: { start, end } }) =>
      Array.from({ length: (end - start) / (10 * KIB) }, (_, i) => start + i * 10 * KIB),
    ),
  )
  // a miss in a piece that comes along with it is transferred again
  expect(bytes - distinct.size * 10 * KIB).toBeLessThanOrEqual(4 * 10 * KIB)
})

test('demand joins what is coming, and does not fail with it', async () => {
  const layer = await missed()
  const [beside] = along(layer)
  const joined = layer.filler.fill([702], 'demand')
  await settle()
  expect(layer.open.filter(({ priority }) => priority === 'demand')).toEqual([])
  beside?.fail(Failure.unavailable('no registry'))
  await settle()
  const again = layer.open.filter(({ priority }) => priority === 'demand')
  expect(again.map(({ range }) => range.start)).toEqual([702 * 10 * KIB])
  again[0]?.answer()
  await joined
})

test('what came along and is wrong is fetched again on its own', async () => {
  const layer = layerOf()
  await miss(layer, FAR.slice(0, 4))
  layer.corrupt.set(702, 1)
  await layer.filler.fill([702], 'demand')
  expect(layer.filler.counters).toMatchObject({ corrupt: 1, healed: 1 })
  expect(layer.reads.some(({ range, priority }) => priority === 'demand' && range.start === 702 * 10 * KIB)).toBe(true)
})

test('whoever withdraws from what is coming does not have it decoded', async () => {
  const layer = await missed()
  const stop = new AbortController()
  const wanted = layer.filler.fill([702], 'demand', stop.signal)
  await settle()
  stop.abort()
  await expect(wanted).rejects.toMatchObject({ code: 'aborted' })
  for (const read of layer.open) read.answer()
  await settle()
  expect(layer.decoded).not.toContain(702)
})

test('a filler that is closed keeps nothing, and ends what is coming', async () => {
  const layer = await missed()
  const [beside] = along(layer)
  await layer.filler.close()
  expect(beside?.aborted).toBe(true)
  const other = layerOf()
  await miss(other, FAR.slice(0, 4))
  expect(other.budget.shelf.bytes).toBeGreaterThan(0)
  await other.filler.close()
  expect(other.budget.shelf.bytes).toBe(0)
})
