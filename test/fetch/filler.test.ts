import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Wires } from '../../src/fetch/wire.ts'
import { READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { Layer, row, settle } from './layer.ts'

const KIB = 1 << 10
const ranges = (layer: Layer) => layer.reads.map(({ range }) => [range.start, range.end])

test('two readers of one chunk cost one request', async () => {
  const layer = new Layer({ chunks: row(4, 100) })
  await Promise.all([layer.filler.fill([1], 'demand'), layer.filler.fill([1], 'demand')])
  expect(ranges(layer)).toEqual([[100, 200]])
  expect(layer.decoded).toEqual([1])
  expect(layer.filler.counters).toMatchObject({
    joined: 1,
    filled: 1,
    filledBytes: 100,
    fetchedBytes: 100,
    requests: 1,
  })
})

test('what is verified is not asked for, and what is asked for in one turn is joined', async () => {
  const layer = new Layer({ chunks: row(6, 100) })
  layer.states[2] = READY_VERIFIED
  await Promise.all([0, 1, 2, 3].map((chunk) => layer.filler.fill([chunk], 'demand')))
  expect(ranges(layer)).toEqual([[0, 400]])
  expect(layer.decoded).toEqual([0, 1, 3])
  await layer.filler.fill([0, 1, 2, 3], 'demand')
  await layer.filler.fill([], 'demand')
  expect(layer.reads).toHaveLength(1)
})

test('what is elsewhere is copied, once, and what cannot be copied is fetched', async () => {
  const layer = new Layer({ chunks: row(4, 100) })
  layer.elsewhere.set(0, undefined).set(1, Failure.missing('it went')).set(3, undefined)
  layer.states[3] = READY_STORED // of an earlier life: that is looked at first
  await Promise.all([layer.filler.fill([0, 1, 2, 3], 'demand'), layer.filler.fill([0], 'demand')])
  expect(ranges(layer)).toEqual([[100, 300]])
  expect(layer.decoded.sort()).toEqual([1, 2])
  expect(layer.filler.counters).toMatchObject({ copied: 1, filled: 2, reverified: 1, corrupt: 0 })
})

test('who begins to wait for a chunk that waits to be copied passes the others', async () => {
  const layer = new Layer({ chunks: row(120, 100) })
  const all = [...Array(120).keys()]
  for (const chunk of all) layer.elsewhere.set(chunk, undefined)
  const order: number[] = []
  layer.filler.fillEach(all, 'prefetch', (chunk) => order.push(chunk))
  await layer.filler.fill([119], 'demand')
  expect(order.indexOf(119)).toBeLessThan(64)
  expect(layer.turns.get(119)).toMatchObject({ priority: 'demand' })
})

test('fillEach tells of each chunk once', async () => {
  const layer = new Layer({ chunks: row(3, 100) })
  layer.states[0] = READY_VERIFIED
  layer.corrupt.set(2, 2)
  const told: unknown[] = []
  layer.filler.fillEach([0, 1, 2, 1], 'demand', (chunk, error) => told.push([chunk, error instanceof Failure]))
  await settle()
  expect(told).toEqual([
    [0, false],
    [1, false],
    [2, true],
  ])
})

test('fillEach tells which chunks it brought, and not those that were here or that somebody else brought', async () => {
  const layer = new Layer({ chunks: row(6, 100), hold: true, budget: LANES, limits: LIMITS })
  layer.states[0] = READY_VERIFIED
  layer.states[1] = READY_STORED
  const told = new Map<number, unknown>()
  layer.filler.fillEach([0, 1, 2, 3, 4, 5], 'prefetch', (chunk, error, brought) => {
    told.set(chunk, error ?? brought ?? false)
  })
  await settle()
  expect(ranges(layer)).toEqual([[200, 400]])
  layer.states[4] = READY_VERIFIED // while it waits for its turn
  layer.open[0]?.answer()
  await settle()
  layer.open[0]?.answer()
  await settle()
  expect(told).toEqual(
    new Map([
      [0, false],
      [1, false],
      [2, true],
      [3, true],
      [4, false],
      [5, true],
    ]),
  )
})

test('a chunk whose state the disk does not give back fails alone', async () => {
  const layer = new Layer({ chunks: row(3, 100) })
  layer.unreadable.add(1)
  const told: unknown[] = []
  layer.filler.fillEach([0, 1, 2], 'demand', (chunk, error) => told.push([chunk, error instanceof Failure]))
  await settle()
  expect(told).toEqual([
    [1, true],
    [0, false],
    [2, false],
  ])
})

test('what an earlier life stored is verified in place; only what is damaged is fetched, and counted as healed', async () => {
  const layer = new Layer({ chunks: row(3, 100) })
  layer.states.fill(READY_STORED)
  layer.rotten.add(1)
  await layer.filler.fill([0, 1, 2], 'demand')
  expect(ranges(layer)).toEqual([[100, 200]])
  expect(layer.filler.counters).toMatchObject({ reverified: 2, damaged: 1, healed: 1 })
})

test.each(['limit', 'system', 'timeout', 'aborted'] as const)(
  'a stored chunk that cannot be checked (%s) fails whoever reads it, and is neither damaged nor fetched',
  async (code) => {
    const layer = new Layer({ chunks: row(3, 100) })
    layer.states.fill(READY_STORED)
    layer.uncheckable.set(1, new Failure(code, 'not now'))
    await expect(layer.filler.fill([0, 1, 2], 'prefetch')).rejects.toMatchObject({ code })
    expect(layer.filler.counters).toMatchObject({ requests: 0, reverified: 2, damaged: 0 })
    layer.uncheckable.clear()
    await layer.filler.fill([1], 'demand')
    expect(layer.filler.counters).toMatchObject({ requests: 0, reverified: 3, damaged: 0 })
  },
)

test('a stored chunk whose checks cannot be repeated is fetched, and was not damaged', async () => {
  const layer = new Layer({ chunks: row(3, 100) })
  layer.states.fill(READY_STORED)
  layer.unrepeatable.add(1)
  await layer.filler.fill([0, 1, 2], 'demand')
  expect(ranges(layer)).toEqual([[100, 200]])
  expect(layer.filler.counters).toMatchObject({ reverified: 2, damaged: 0, healed: 0 })
})

test('the states of what is wanted are read at once', async () => {
  const layer = new Layer({ chunks: row(500, 10) })
  layer.states.fill(READY_VERIFIED, 0, 499)
  await layer.filler.fill(Array(500).keys(), 'prefetch')
  expect(layer.stateReads).toBeLessThanOrEqual(2) // for the wish, and when the request begins
  expect(layer.decoded).toEqual([499])
})

test('whoever decodes or checks is told for whom, and when somebody begins to wait', async () => {
  const layer = new Layer({ chunks: row(4, 100), delay: () => 5 })
  layer.states[0] = READY_STORED
  layer.states[1] = READY_STORED
  const ahead = layer.filler.fill([0, 2], 'prefetch')
  const wanted = layer.filler.fill([1, 3], 'demand')
  const late: Promise<void>[] = []
  for (const [prefetched, demanded] of [
    [0, 1], // checked
    [2, 3], // decoded
  ] as const) {
    const told = () => [prefetched, demanded].map((chunk) => layer.turns.get(chunk))
    while (told().includes(undefined)) await new Promise(setImmediate)
    expect(told()).toMatchObject([
      { priority: 'prefetch', urgent: false },
      { priority: 'demand', urgent: false },
    ])
    late.push(layer.filler.fill([prefetched], 'demand'))
    expect(told()).toMatchObject([{ urgent: true }, { urgent: false }])
  }
  await Promise.all([ahead, wanted, ...late])
})

test('what nobody waits for any more need not be decoded; whoever wants it then gets it', async () => {
  const layer = new Layer({ chunks: row(3, 100), delay: () => 5 })
  layer.heedsSignal = true
  const controller = new AbortController()
  const ahead = layer.filler.fill([0, 1, 2], 'prefetch', controller.signal)
  ahead.catch(() => {}) // looked at below
  while (layer.decoding.size < 3) await new Promise(setImmediate)
  controller.abort()
  const wanted = layer.filler.fill([1], 'demand')
  await expect(ahead).rejects.toMatchObject({ code: 'aborted' })
  await wanted
  expect(layer.decoded).toEqual([1])
})

test('a chunk that is corrupt once is fetched again on its own, and the others do not notice', async () => {
  const layer = new Layer({ chunks: row(5, 100) })
  layer.corrupt.set(2, 1)
  await layer.filler.fill([0, 1, 2, 3, 4], 'demand')
  expect(ranges(layer)).toEqual([
    [0, 500],
    [200, 300],
  ])
  expect(layer.decoded).toEqual([0, 1, 3, 4, 2])
  expect(layer.filler.counters).toMatchObject({ corrupt: 1, healed: 1 })
})

test('a chunk that is corrupt twice fails alone, and the next fill tries again', async () => {
  const layer = new Layer({ chunks: row(5, 100) })
  layer.corrupt.set(2, 2)
  await expect(layer.filler.fill([0, 1, 2, 3, 4], 'demand')).rejects.toMatchObject({ code: 'corrupt' })
  expect([...layer.states]).toEqual([1, 1, 0, 1, 1])
  expect(layer.reads).toHaveLength(2)
  await layer.filler.fill([2], 'demand')
  expect(layer.states[2]).toBe(READY_VERIFIED)
})

test('a blob that is wrong altogether is not asked for chunk by chunk', async () => {
  const layer = new Layer({ chunks: row(100, 100) })
  for (let i = 0; i < 100; i++) layer.corrupt.set(i, 5)
  await expect(layer.filler.fill(Array(100).keys(), 'demand')).rejects.toMatchObject({ code: 'corrupt' })
  expect(layer.reads).toHaveLength(1 + 8)
})

test('a failed read fails its chunks and is not remembered', async () => {
  const layer = new Layer({ chunks: row(2, 100) })
  layer.failing = () => Failure.unavailable('no registry')
  await expect(layer.filler.fill([0, 1], 'demand')).rejects.toMatchObject({ code: 'unavailable' })
  layer.failing = undefined
  await layer.filler.fill([0, 1], 'demand')
  expect(layer.reads).toHaveLength(2)
})

test('a read that fails without a reason is no success', async () => {
  const layer = new Layer({ chunks: row(2, 100), hold: true })
  const told: unknown[] = []
  layer.filler.fillEach([0, 1], 'demand', (chunk, error) => told.push([chunk, error instanceof Failure]))
  await settle()
  layer.open[0]?.fail(undefined)
  await settle()
  expect(told).toEqual([
    [0, true],
    [1, true],
  ])
})

const LANES = {
  demand: { maxBytes: 1000, maxRequests: 10 },
  prefetch: { maxBytes: 200, maxRequests: 1 },
  background: { maxBytes: 200, maxRequests: 1 },
}
const LIMITS = {
  demand: { gapMaxBytes: 10, runMaxBytes: 200 },
  prefetch: { gapMaxBytes: 10, runMaxBytes: 200 },
  background: { gapMaxBytes: 10, runMaxBytes: 200 },
}

test('demand passes prefetch: what is queued is taken out and fetched at once', async () => {
  const layer = new Layer({ chunks: row(10, 100), hold: true, budget: LANES, limits: LIMITS })
  const ahead = layer.filler.fill(Array(10).keys(), 'prefetch')
  await settle()
  expect(ranges(layer)).toEqual([[0, 200]])
  const wanted = layer.filler.fill([5], 'demand')
  await settle()
  expect(layer.reads.map(({ range, priority }) => [range.start, range.end, priority])).toEqual([
    [0, 200, 'prefetch'],
    [500, 600, 'demand'],
  ])
  layer.reads[1]?.answer()
  await wanted
  expect(layer.open).toHaveLength(1)
  for (let left = 5; layer.open.length > 0 && left > 0; left--) {
    for (const read of layer.open) read.answer()
    await settle()
  }
  await ahead
  expect(layer.decoded.toSorted((a, b) => a - b)).toEqual([...Array(10).keys()])
  expect(ranges(layer).filter(([start]) => start === 500)).toHaveLength(1)
})

test('a chunk whose state the disk does not give back while it waits for its turn fails alone', async () => {
  const layer = new Layer({ chunks: row(4, 100), hold: true, budget: LANES, limits: LIMITS })
  const told: unknown[] = []
  layer.filler.fillEach([0, 1, 2, 3], 'prefetch', (chunk, error) => told.push([chunk, error instanceof Failure]))
  await settle()
  expect(ranges(layer)).toEqual([[0, 200]])
  layer.unreadable.add(2)
  layer.open[0]?.answer()
  await settle()
  layer.open[0]?.answer()
  await settle()
  expect(ranges(layer)).toEqual([
    [0, 200],
    [300, 400],
  ])
  expect(told).toEqual([
    [0, false],
    [1, false],
    [2, true],
    [3, false],
  ])
})

test('demand joins a prefetch request that runs, and does not fail with it', async () => {
  const layer = new Layer({ chunks: row(4, 100), hold: true })
  const ahead = layer.filler.fill([0, 1, 2], 'prefetch')
  ahead.catch(() => {}) // looked at below
  await settle()
  const wanted = layer.filler.fill([1], 'demand')
  await settle()
  expect(layer.reads).toHaveLength(1)
  layer.reads[0]?.fail(Failure.unavailable('too slow'))
  await settle()
  expect(layer.reads[1]).toMatchObject({ range: { start: 100, end: 200 }, priority: 'demand' })
  layer.reads[1]?.answer()
  await wanted
  await expect(ahead).rejects.toMatchObject({ code: 'unavailable' })
})

test('who reads on through large chunks that come in the background waits for each, and nothing comes twice', async () => {
  const MIB = 1 << 20
  const layer = new Layer({ chunks: row(4, MIB), hold: true })
  const rest = layer.filler.fill(Array(4).keys(), 'background')
  await settle()
  const read = layer.filler.fill([1], 'demand')
  await settle()
  expect(layer.reads).toHaveLength(1)
  layer.reads[0]?.answer()
  await Promise.all([rest, read])
})

test('whoever needs a chunk that comes soon in the background waits for it; what is far behind is asked for alone', async () => {
  const layer = new Layer({ chunks: row(10, 200 * KIB), hold: true })
  const rest = layer.filler.fill(Array(10).keys(), 'background')
  await settle()
  const soon = layer.filler.fill([1], 'demand')
  const far = layer.filler.fill([8], 'demand')
  await settle()
  expect(layer.reads.map(({ range, priority }) => [range.start, range.end, priority])).toEqual([
    [0, 2000 * KIB, 'background'],
    [1600 * KIB, 1800 * KIB, 'demand'],
  ])
  layer.reads[1]?.answer()
  await far
  layer.reads[0]?.come(400 * KIB)
  await soon
  layer.reads[0]?.answer()
  await rest
  expect(layer.decoded.toSorted((a, b) => a - b)).toEqual([...Array(10).keys()])
})

test('who reads on through small chunks that come in the background waits for all of them, and nothing comes twice', async () => {
  const layer = new Layer({ chunks: row(250, 8 * KIB), hold: true })
  const rest = layer.filler.fill(Array(250).keys(), 'background')
  await settle()
  // as the kernel reads ahead: more than comes in a round trip, but from what comes next on
  const read = layer.filler.fill(
    Array.from({ length: 60 }, (_, i) => 10 + i),
    'demand',
  )
  await settle()
  expect(layer.reads).toHaveLength(1)
  layer.reads[0]?.answer()
  await Promise.all([rest, read])
})

test('ranges that the background asks for in one turn stay requests of their own, also where one begins at another’s end', async () => {
  const layer = new Layer({ chunks: row(6, 100) })
  await Promise.all([layer.filler.fill([0, 1, 2], 'background'), layer.filler.fill([3, 4], 'background')])
  expect(ranges(layer)).toEqual([
    [0, 300],
    [300, 500],
  ])
})

test('what is read far ahead of the background ends its request there, and nothing comes twice', async () => {
  const layer = new Layer({ chunks: row(10, 200 * KIB), hold: true })
  const rest = layer.filler.fill(Array(10).keys(), 'background')
  await settle()
  layer.reads[0]?.come(100 * KIB)
  const far = layer.filler.fill([5, 6, 7, 8, 9], 'demand')
  await settle()
  expect(layer.reads.map(({ range, priority }) => [range.start, range.end, priority])).toEqual([
    [0, 2000 * KIB, 'background'],
    [1000 * KIB, 2000 * KIB, 'demand'],
  ])
  layer.reads[0]?.come(999 * KIB)
  await settle()
  expect(layer.reads[0]?.aborted).toBe(false)
  layer.reads[0]?.come(1000 * KIB)
  await settle()
  expect(layer.reads[0]?.aborted).toBe(true)
  layer.reads[1]?.answer()
  await Promise.all([rest, far])
  expect(layer.decoded.toSorted((a, b) => a - b)).toEqual([...Array(10).keys()])
  expect(layer.filler.counters).toMatchObject({ filled: 10, corrupt: 0, requests: 2 })
})

test('of a prefetch request that has arrived, what is wanted now is decoded first', async () => {
  const layer = new Layer({ chunks: row(200, 10), hold: true, delay: () => 0 })
  const ahead = layer.filler.fill(Array(200).keys(), 'prefetch')
  await settle()
  const wanted = layer.filler.fill([199], 'demand')
  layer.reads[0]?.answer()
  await wanted
  expect(layer.decoded.length).toBeLessThanOrEqual(32)
  await ahead
  expect(layer.mostDecoding).toBeLessThanOrEqual(32)
})

test('a chunk is there when its own bytes have come, whatever is still to come behind it', async () => {
  const layer = new Layer({ chunks: row(4, 100), hold: true })
  const ahead = layer.filler.fill([0, 1, 2, 3], 'prefetch')
  await settle()
  const wanted = layer.filler.fill([1], 'demand')
  layer.reads[0]?.come(199)
  await settle()
  expect(layer.decoded).toEqual([0])
  layer.reads[0]?.come(200)
  await wanted
  expect(layer.decoded).toEqual([0, 1])
  layer.reads[0]?.answer()
  await ahead
  expect(layer.decoded).toEqual([0, 1, 2, 3])
  expect(layer.reads).toHaveLength(1)
})

test('where a transfer breaks, what has come stays, and the rest alone fails', async () => {
  const layer = new Layer({ chunks: row(4, 100), hold: true })
  const told = new Map<number, unknown>()
  layer.filler.fillEach([0, 1, 2, 3], 'demand', (chunk, error) => told.set(chunk, error))
  await settle()
  layer.reads[0]?.come(250)
  layer.reads[0]?.fail(Failure.unavailable('broken'))
  await settle()
  const gone = expect.objectContaining({ code: 'unavailable' })
  expect(told).toEqual(new Map([0, 1, 2, 3].map((chunk) => [chunk, chunk < 2 ? undefined : gone])))
  expect(layer.decoded).toEqual([0, 1])
})

test('a transfer that begins anew on other memory decodes each chunk once, with its own bytes', async () => {
  const layer = new Layer({ chunks: row(3, 100), hold: true })
  const filled = layer.filler.fill([0, 1, 2], 'demand')
  await settle()
  layer.reads[0]?.come(150)
  layer.reads[0]?.anew()
  layer.reads[0]?.come(50)
  await settle()
  layer.reads[0]?.come(200)
  layer.reads[0]?.answer()
  await filled
  expect(layer.decoded).toEqual([0, 1, 2])
})

test('checks for prefetch are few at a time, and demand does not wait for them', async () => {
  const layer = new Layer({ chunks: row(100, 10), delay: () => 3 })
  layer.states.fill(READY_STORED)
  const ahead = layer.filler.fill(Array(100).keys(), 'prefetch')
  await layer.filler.fill([99], 'demand')
  expect(layer.states.filter((each) => each === READY_VERIFIED).length).toBeLessThanOrEqual(9)
  await ahead
  expect(layer.mostChecking).toBeLessThanOrEqual(9)
  expect(layer.reads).toEqual([])
})

test('a prefetch that is cancelled leaves no flight and no request', async () => {
  const layer = new Layer({ chunks: row(10, 100), hold: true, budget: LANES, limits: LIMITS })
  const controller = new AbortController()
  const ahead = layer.filler.fill(Array(10).keys(), 'prefetch', controller.signal)
  await settle()
  controller.abort()
  await expect(ahead).rejects.toMatchObject({ code: 'aborted' })
  await settle()
  expect(layer.reads.map((each) => each.aborted)).toEqual([true])
  expect(layer.budget.bytes('prefetch')).toBe(0)
  const again = layer.filler.fill([0], 'demand', controller.signal)
  await expect(again).rejects.toMatchObject({ code: 'aborted' })
  const wanted = layer.filler.fill([0], 'demand')
  await settle()
  expect(layer.filler.counters.joined).toBe(0)
  layer.reads[1]?.answer()
  await wanted
})

test('cancelling does not take from those who joined', async () => {
  const layer = new Layer({ chunks: row(2, 100), hold: true })
  const controller = new AbortController()
  const ahead = layer.filler.fill([0, 1], 'prefetch', controller.signal)
  await settle()
  const wanted = layer.filler.fill([1], 'demand')
  controller.abort()
  await expect(ahead).rejects.toMatchObject({ code: 'aborted' })
  expect(layer.reads[0]?.aborted).toBe(false)
  layer.reads[0]?.answer()
  await wanted
  expect(layer.reads).toHaveLength(1)
})

test('a request in waiting leaves out what another process filled meanwhile', async () => {
  const layer = new Layer({
    chunks: row(6, 100),
    hold: true,
    budget: LANES,
    limits: { ...LIMITS, prefetch: { gapMaxBytes: 10, runMaxBytes: 300 } },
  })
  const ahead = layer.filler.fill(Array(6).keys(), 'prefetch')
  await settle()
  layer.states[4] = READY_VERIFIED
  for (let left = 4; left > 0; left--) {
    for (const read of layer.open) read.answer()
    await settle()
  }
  await ahead
  expect(ranges(layer)).toEqual([
    [0, 300],
    [300, 400],
    [500, 600],
  ])
})

test('closing fails what is wanted, stops requests and waits for the last decode', async () => {
  const layer = new Layer({ chunks: row(8, 100), hold: true, delay: () => 20, limits: LIMITS })
  const wanted = layer.filler.fill([0, 1, 6], 'demand')
  wanted.catch(() => {})
  await settle()
  layer.reads[0]?.answer()
  while (layer.decoding.size === 0) await new Promise(setImmediate)
  await layer.filler.close()
  expect(layer.decoding.size).toBe(0)
  await expect(wanted).rejects.toMatchObject({ code: 'aborted' })
  expect(layer.reads.map((each) => each.aborted)).toContain(true)
  await expect(layer.filler.fill([2], 'demand')).rejects.toMatchObject({ code: 'aborted' })
  expect(layer.budget.bytes('demand')).toBe(0)
})

test('a reader that goes through small files costs few requests, and a single small file only itself', async () => {
  const layer = new Layer({ chunks: row(400, 10 * KIB) })
  await layer.filler.fill([200], 'demand')
  expect(layer.filler.counters.fetchedBytes).toBe(10 * KIB)
  for (let i = 0; i < 200; i++) await layer.filler.fill([i], 'demand')
  expect(layer.reads.length).toBeLessThan(10)
  // as much again as was read, at most
  expect(layer.filler.counters.fetchedBytes).toBeLessThanOrEqual(402 * 10 * KIB)
})

test('a reader who goes through a large file has several requests under way, and does not stop for the next', async () => {
  const MIB = 1 << 20
  const layer = new Layer({ chunks: row(40, MIB), hold: true })
  let begun = 0
  const answerAll = async () => {
    await settle()
    for (; begun < layer.reads.length; begun++) layer.reads[begun]?.answer()
  }
  for (const chunk of [0, 1, 2]) {
    const filled = layer.filler.fill([chunk], 'demand')
    await answerAll()
    await filled
  }
  const waiting = layer.filler.fill([4], 'demand')
  await settle()
  const asked = () => layer.reads.slice(begun).map(({ range }) => range.end / MIB)
  expect(asked()).toEqual([5, 7])
  const next = layer.filler.fill([6], 'demand') // is under way
  await settle()
  expect(asked()).toEqual([5, 7, 11])
  await answerAll()
  await Promise.all([waiting, next])
})

test('whoever is told may cancel and ask again at once', async () => {
  const layer = new Layer({ chunks: row(3, 100) })
  layer.failing = () => Failure.unavailable('once')
  const controller = new AbortController()
  const told: string[] = []
  const again = Promise.withResolvers<void>()
  layer.filler.fillEach(
    [0, 1, 2],
    'demand',
    (chunk, error) => {
      told.push(`${chunk} ${error instanceof Failure ? error.code : 'ready'}`)
      if (told.length > 1) return
      controller.abort()
      layer.failing = undefined
      layer.filler.fill([0, 1, 2], 'demand').then(again.resolve, again.reject)
    },
    controller.signal,
  )
  await again.promise
  expect(told).toEqual(['0 unavailable', '1 aborted', '2 aborted'])
  expect(layer.states.every((state) => state === READY_VERIFIED)).toBe(true)
})

test('the background that is held back to its rate ends at once when it is stopped', async () => {
  const wires = new Wires({ standsAside: false, maxBytesPerSecond: 1 })
  const layer = new Layer({ chunks: row(4, 100), hold: true, wires })
  const rest = layer.filler.fill(Array(4).keys(), 'background')
  rest.catch(() => {}) // it is stopped
  await settle()
  const [read] = layer.reads
  let goesOn = 0
  const come = (to: number) => {
    read?.come(to)
    void Promise.resolve(read?.held).then(() => goesOn++)
  }
  come(100)
  await settle()
  expect(goesOn).toBe(0)
  await layer.filler.close()
  come(200)
  await settle()
  expect(goesOn).toBe(2)
})
