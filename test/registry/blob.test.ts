import { mkdtemp, open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { memoryContent } from '../../src/build/registry.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { Limits } from '../../src/registry/limits.ts'
import { fetchWhole } from '../../src/registry/source.ts'
import type { Fault } from '../fake/faults.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const SIZE = 8 << 20
const BYTES = pattern(SIZE)

let settings: Settings
let registry: FakeRegistry
let layer: Descriptor
let shelf: MemoryShelf

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  layer = shelf.addBlob(BYTES)
  registry = await startRegistry({ shelf })
  await settings.trust(registry.host, registry.cert)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await registry.close()
})

function source(limits: Partial<Limits> = {}) {
  const registries = settings.registries({ limits })
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  const read = (start: number, end: number, signal?: AbortSignal) => blob.read({ start, end }, signal ? { signal } : {})
  return { registries, blob, read, counters: () => registries.counters() }
}

/** One read of [1000, 5000) under a fault; without a code it must bring the right bytes. */
async function check(
  fault: Omit<Fault, 'match'>,
  code?: string,
  requests = 1,
  limits: Partial<Limits> = {},
): Promise<void> {
  registry.faults = [{ match: /blobs/, ...fault }]
  registry.seen.length = 0
  const reading = source(limits).read(1000, 5000)
  if (code === undefined) expect(await reading).toEqual(BYTES.subarray(1000, 5000))
  else await expect(reading, JSON.stringify(fault)).rejects.toMatchObject({ name: 'Failure', code })
  expect(registry.seen, JSON.stringify(fault)).toHaveLength(requests)
}

test('a read is one request for exactly its range, into shared memory', async () => {
  const { read, counters } = source()
  const bytes = await read(100, 200)
  expect(bytes).toEqual(BYTES.subarray(100, 200))
  expect(bytes.buffer).toBeInstanceOf(SharedArrayBuffer)
  expect(bytes.byteLength).toBe(bytes.buffer.byteLength)
  expect(registry.seen).toMatchObject([{ range: 'bytes=100-199', status: 206 }])
  expect(registry.seen[0]?.header('accept-encoding')).toBe('identity')
  expect(counters()).toMatchObject({ requests: 1, fetched: 100, retries: 0 })
  expect(await read(SIZE - 1, SIZE)).toEqual(BYTES.subarray(SIZE - 1))
  expect(await read(5, 5)).toHaveLength(0)
  expect(registry.seen).toHaveLength(2)
})

test('all of a blob is one request without a range', async () => {
  expect(Buffer.compare(await source().read(0, SIZE), BYTES)).toBe(0)
  expect(registry.seen).toMatchObject([{ range: undefined, status: 200 }])
})

test('ranges that do not lie within the blob are refused before anything is asked', async () => {
  const { read } = source()
  for (const [start, end] of [
    [-1, 5],
    [5, 4],
    [0, SIZE + 1],
    [SIZE, SIZE + 1],
    [0.5, 2],
    [0, Number.NaN],
    [2 ** 53, 2 ** 53 + 2],
  ] as const) {
    await expect(read(start, end), `${start}-${end}`).rejects.toMatchObject({ code: 'corrupt' })
  }
  expect(registry.seen).toEqual([])
})

test('answers that contradict the request are refused and not asked for again', async () => {
  for (const range of [
    '',
    'bytes 1000-4999/*',
    `bytes 1000-4999/${SIZE + 1}`,
    `bytes 1001-5000/${SIZE}`,
    `bytes 1000-4998/${SIZE}`,
    `bytes 0-4999/${SIZE}`,
    `bytes 01000-4999/${SIZE}`,
    'bytes */8388608',
    `items 1000-4999/${SIZE}`,
  ]) {
    await check({ headers: { 'content-range': range } }, 'corrupt')
  }
  await check({ headers: { 'content-range': '', 'content-type': 'multipart/byteranges; boundary=x' } }, 'corrupt')
  await check({ headers: { 'content-encoding': 'gzip' } }, 'corrupt')
  await check({ headers: { 'content-length': '5000' } }, 'corrupt')
  await check({ extra: 1 }, 'corrupt')
  await check({ status: 416 }, 'corrupt')
  await check({ status: 404 }, 'missing')
  await check({ status: 410 }, 'missing')
  await check({ status: 400 }, 'unavailable')
  await check({ status: 201 }, 'unavailable')
  await check({ ignoreRange: true, headers: { 'content-length': `${SIZE + 5}` } }, 'corrupt')
})

test('servers that stumble are tried again, a few times', async () => {
  for (const status of [408, 429, 500, 502, 503, 504]) await check({ status, until: 2 }, undefined, 3)
  await check({ status: 503 }, 'unavailable', 4)
  await check({ status: 503 }, 'unavailable', 2, { attempts: 2 })
  await check({ reset: true, until: 2 }, undefined, 3)
  await check({ reset: true }, 'unavailable', 4)
  await check({ status: 503, headers: { 'retry-after': '3600' } }, 'unavailable', 1)
})

test('a transfer that breaks is taken up where it broke', async () => {
  await check({ cutAfter: 1500, nth: 1 }, undefined, 2)
  expect(registry.seen.map((each) => each.range)).toEqual(['bytes=1000-4999', 'bytes=2500-4999'])
  await check({ endAfter: 0, nth: 1 }, undefined, 2)
  expect(registry.seen[1]?.range).toBe('bytes=1000-4999')
  await check({ endAfter: 100 }, 'unavailable', 4)
})

test('a wrong byte passes: only digests of decoded chunks can tell', async () => {
  registry.faults = [{ match: /blobs/, flipAt: 7 }]
  const bytes = await source().read(1000, 5000)
  expect(bytes[7]).toBe((BYTES[1007] ?? 0) ^ 0xff)
})

test('a server that ignores ranges is read to the end of a range near the start, and no further', async () => {
  registry.faults = [{ match: /blobs/, ignoreRange: true }]
  const { read, counters } = source()
  expect(await read(1000, 5000)).toEqual(BYTES.subarray(1000, 5000))
  expect(await read(900_000, 1_000_000)).toEqual(BYTES.subarray(900_000, 1_000_000))
  // what was in flight when the stream was reset is not held against it
  expect(counters().fetched).toBeLessThan(1_005_000 + (1 << 20))
})

test('a server that ignores ranges is named when the range is far in, at once and from then on without asking', async () => {
  registry.faults = [{ match: /blobs/, ignoreRange: true }]
  const { read, counters } = source()
  const refused = { code: 'unsupported', message: `${registry.host} does not support ranges` }
  await expect(read(5 << 20, 6 << 20)).rejects.toMatchObject(refused)
  expect(counters().fetched).toBe(0)
  await expect(read(5 << 20, 6 << 20)).rejects.toMatchObject(refused)
  expect(registry.seen).toHaveLength(1)
  expect(await read(0, 10)).toEqual(BYTES.subarray(0, 10))
})

test('a stalled transfer ends at its deadline, an abort at once', async () => {
  await check({ stallAfter: 1 }, 'timeout', 2, { windowMs: 500, attempts: 2 })
  await check({ stallAfter: 2000, nth: 1 }, undefined, 2, { windowMs: 2_000 })
  await check({ delayMs: 2_000 }, 'timeout', 2, { headersMs: 500, attempts: 2 })
  await check({ delayMs: 2_000 }, 'timeout', 1, { totalMs: 500, attempts: 1 })
  registry.faults = [{ match: /blobs/, stallAfter: 10 }]
  const stop = new AbortController()
  const reading = source().read(0, 1000, stop.signal)
  await expect.poll(() => registry.seen.at(-1)?.sent).toBe(10)
  stop.abort()
  await expect(reading).rejects.toMatchObject({ code: 'aborted' }) // at its deadline it would be a timeout
})

test('a trickle is no transfer', async () => {
  const limits = { windowMs: 1_000, windowBytes: 10_000, attempts: 2 }
  await check({ bytesPerSecond: 2_000 }, 'timeout', 2, limits)
  await check({ bytesPerSecond: 200_000 }, undefined, 1, limits)
})

test('a whole blob goes to a file in bounded memory, one request, and is verified', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer-blob-'))
  const file = await open(join(dir, 'blob'), 'w')
  const whole = async () => {
    await file.truncate()
    await fetchWhole(source().blob, file)
    return await readFile(join(dir, 'blob'))
  }
  try {
    expect(Buffer.compare(await whole(), BYTES)).toBe(0)
    expect(registry.seen).toHaveLength(1)
    registry.faults = [{ match: /blobs/, cutAfter: 3_000_000, nth: 1 }]
    expect(Buffer.compare(await whole(), BYTES)).toBe(0)
    expect(registry.seen.at(-1)?.range).toMatch(/^bytes=\d{7}-/)
    registry.faults = [{ match: /blobs/, flipAt: 5_000_000 }]
    await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
    registry.faults = []
    shelf.blobs.set(layer.digest, memoryContent(pattern(SIZE, 2)))
    await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
  } finally {
    await file.close()
    await rm(dir, { recursive: true })
  }
})
