import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Listening } from '../../src/build/registry.ts'
import type { ReadOptions } from '../../src/image/blob.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const SIZE = 8 << 20
const BYTES = pattern(SIZE)
const EACH = 1000

let settings: Settings
let registry: FakeRegistry
let layer: Descriptor
let shelf: MemoryShelf
const others: Listening[] = []

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
  for (const each of others.splice(0)) await each.close()
})

function unknown(): StoredBlob {
  return settings
    .registries()
    .source(parseReference(`${registry.host}/a/b:v1`))
    .blob(layer)
}

/** A blob of which something was read already, as an index is. */
async function known(): Promise<StoredBlob> {
  const blob = unknown()
  await blob.read({ start: SIZE - 10, end: SIZE })
  registry.seen.length = 0
  return blob
}

const starts = (count: number) => Array.from({ length: count }, (_, i) => i * 50_000)

/** Reads chunks that lie apart, all at once, and finds them right. */
async function readApart(blob: StoredBlob, count: number, options: ReadOptions = { priority: 'prefetch' }) {
  const read = await Promise.all(starts(count).map((start) => blob.read({ start, end: start + EACH }, options)))
  for (const [i, start] of starts(count).entries()) {
    expect(Buffer.compare(read[i] as Uint8Array, BYTES.subarray(start, start + EACH))).toBe(0)
  }
}

const ranges = () => registry.seen.map(({ range }) => range?.split(',').length)

test('small reads that nobody waits for are one request', async () => {
  const blob = await known()
  await readApart(blob, 20)
  expect(ranges()).toEqual([20])
  await readApart(blob, 3, { priority: 'background' })
  expect(ranges()).toEqual([20, 3])
})

test('a request has no more ranges than servers take', async () => {
  await readApart(await known(), 100)
  expect(ranges()).toEqual([64, 36])
})

test('of a registry of which nothing came yet the first answer tells whether the others come together', async () => {
  await readApart(unknown(), 20)
  expect(ranges()).toEqual([1, 19])
})

test('a few are asked of it at once', async () => {
  await readApart(unknown(), 4)
  expect(ranges()).toEqual([1, 1, 1, 1])
})

test('where the first one fails each is asked for alone, and told', async () => {
  registry.faults = [{ match: /blobs/, status: 404 }]
  const blob = unknown()
  const reads = starts(6).map((start) => blob.read({ start, end: start + EACH }, { priority: 'prefetch' }))
  for (const read of await Promise.allSettled(reads)) expect(read).toMatchObject({ reason: { code: 'missing' } })
  expect(ranges().filter((count) => count !== undefined)).toEqual([1, 1, 1, 1, 1, 1])
})

test('who waits asks alone, and so does who wants much', async () => {
  const blob = await known()
  await readApart(blob, 3, {})
  const large = { start: 1 << 20, end: 2 << 20 }
  await Promise.all([blob.read(large, { priority: 'prefetch' }), readApart(blob, 2)])
  expect(ranges().toSorted()).toEqual([1, 1, 1, 1, 2])
})

test('parts are handed on as they arrive, and the giver before them', async () => {
  const blob = await known()
  const seen: string[] = []
  const options = (name: string): ReadOptions => ({
    priority: 'prefetch',
    onGiver: async ({ repository }) => void seen.push(`${name} of ${repository}`),
    onPart: (part, at) => void seen.push(`${name} ${at} ${part.length}`),
  })
  await Promise.all(['a', 'b'].map((name, i) => blob.read({ start: i * 9000, end: i * 9000 + 10 }, options(name))))
  expect(seen).toEqual([`a of ${registry.host}/a/b`, `b of ${registry.host}/a/b`, 'a 0 10', 'b 0 10'])
})

test('ranges that have bytes in common are no one request', async () => {
  const blob = await known()
  const read = await Promise.all(
    [0, 500].map((start) => blob.read({ start, end: start + EACH }, { priority: 'prefetch' })),
  )
  expect(read).toEqual([BYTES.subarray(0, EACH), BYTES.subarray(500, 500 + EACH)])
  expect(ranges()).toEqual([1, 1])
})

test('one that is not wanted any more is nothing to the others; without any the request ends', async () => {
  const blob = await known()
  const leaving = new AbortController()
  const left = blob.read({ start: 7_000_000, end: 7_000_010 }, { priority: 'prefetch', signal: leaving.signal })
  const stayed = readApart(blob, 3)
  leaving.abort()
  await expect(left).rejects.toMatchObject({ code: 'aborted' })
  await stayed
  registry.faults = [{ match: /blobs/, held: new Promise(() => {}) }]
  const all = new AbortController()
  const reading = readApart(blob, 3, { priority: 'prefetch', signal: all.signal })
  const over = expect(reading).rejects.toMatchObject({ code: 'aborted' })
  await expect.poll(() => registry.seen.length).toBe(2)
  all.abort()
  await over
  expect(ranges()).toEqual([3, 3])
})

test('what an answer did not bring is asked for alone', async () => {
  const blob = await known()
  registry.faults = [{ match: /blobs/, nth: 1, cutAfter: 3 * EACH }]
  await readApart(blob, 5)
  expect(ranges()[0]).toBe(5)
  expect(
    ranges()
      .slice(1)
      .every((count) => count === 1),
  ).toBe(true)
  expect(ranges().length).toBeGreaterThan(2)
  expect(ranges().length).toBeLessThan(6)
})

test('whoever gives the whole blob for several ranges is asked for them one by one from then on', async () => {
  const blob = await known()
  registry.faults = [{ match: /blobs/, nth: 1, ignoreRange: true }]
  await readApart(blob, 4)
  expect(ranges()).toEqual([4, 1, 1, 1, 1])
  await readApart(blob, 4)
  expect(ranges()).toHaveLength(9)
})

test('a storage that a registry leads to is asked for one range at a time', async () => {
  const storage = await startRegistry({ shelf })
  others.push(storage)
  await settings.trust(storage.host, storage.cert)
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/a/b/blobs/${layer.digest}` }]
  const blob = await known()
  storage.seen.length = 0
  await readApart(blob, 3)
  expect(storage.seen.map(({ range }) => range?.split(',').length)).toEqual([1, 1, 1])
})
