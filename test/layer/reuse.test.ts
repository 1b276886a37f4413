// What images get of one another: whose chunks are copied for whom, and that a copy is checked as anything that is fetched.
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Source } from '../../src/format/format.ts'
import type { Blob, Giver, Range } from '../../src/image/blob.ts'
import { hex } from '../../src/image/digest.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { contents, lazyLayer, type MadeLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

const HOST = 'registry.example.com'
const TEAM = `${HOST}/team/app`
const OTHER = `${HOST}/other/app`

type Cache = Awaited<ReturnType<typeof openCache>>

/** As a registry gives it, to whoever asks or to us. */
function given({ blob }: MadeLayer, giver: Giver): Blob {
  const { digest, size } = blob
  return {
    digest,
    size,
    async read(range, options) {
      await options?.onGiver?.(giver)
      return await blob.read(range)
    },
  }
}

function from(made: MadeLayer, repository: string, anonymous = false): Source {
  return { ...sourceOf(given(made, { repository, anonymous })), repository }
}

function open({ layers }: Cache, made: MadeLayer, repository: string, anonymous = false): Promise<LayerLease> {
  return layers.open(unitOf(made.descriptor), from(made, repository, anonymous), HOST)
}

/** Bytes that say which they are, so that no two of a name are alike. */
const file = (of: string) => `${of}\n`.repeat(400)

/** An image's layer before and after one file of it changed, and the ranges of the new one that hold its files. */
async function versions(): Promise<{ old: MadeLayer; next: MadeLayer; fetched: () => Range[] }> {
  const old = await lazyLayer({ 'bin/app': file('app 1'), 'lib/one': file('one'), 'lib/two': file('two') })
  const next = await lazyLayer({ 'bin/app': file('app 2'), 'lib/one': file('one'), 'lib/two': file('two') })
  // the index lies behind all files
  const indexAt = Math.min(...next.blob.ranges.map(({ start }) => start), next.blob.size)
  return { old, next, fetched: () => next.blob.ranges.filter(({ end }) => end < indexAt) }
}

/** All chunks of a layer, fetched or copied. */
async function readAll(layer: LayerLease): Promise<void> {
  await layer.filler.fill([...Array(layer.chunks.length).keys()], 'demand')
}

/** Reads all of `old` for one repository, and of `next` for another. @returns bytes that were copied for the second */
async function copiedFor(cache: Cache, old: [MadeLayer, string, boolean?], next: [MadeLayer, string, boolean?]) {
  await readAll(await open(cache, ...old))
  const before = cache.done().copied
  const layer = await open(cache, ...next)
  await readAll(layer)
  expect(await contents(layer, 'bin/app')).toBe(file('app 2'))
  expect(await contents(layer, 'lib/one')).toBe(file('one'))
  return cache.done().copied - before
}

/** The format's own mark that nothing is wanted first, which is a file, too. */
const MARK_BYTES = 1
const SHARED_BYTES = file('one').length + file('two').length + MARK_BYTES

test('of a new version of an image only the chunks that changed are fetched', async () => {
  const { old, next } = await versions()
  const cache = await openCache(await folder())
  expect(await copiedFor(cache, [old, TEAM], [next, TEAM])).toBe(SHARED_BYTES)
  // one for the index, one for the file that changed
  expect(next.blob.ranges).toHaveLength(2)
  expect(cache.done()).toMatchObject({ corrupt: 0 })
})

test('so it is after a restart, for what an earlier life stored', async () => {
  const dir = await folder()
  const { old, next } = await versions()
  const before = await openCache(dir)
  await readAll(await open(before, old, TEAM))
  await before.close()
  const after = await openCache(dir)
  await readAll(await open(after, next, TEAM))
  expect(after.done().copied).toBe(SHARED_BYTES)
})

test('an image that lists the digests of another repository’s files does not get them', async () => {
  const { old, next } = await versions()
  const dir = await folder()
  const cache = await openCache(dir)
  expect(await copiedFor(cache, [old, TEAM], [next, OTHER])).toBe(0)
  await cache.close()
  // nor after a restart, nor anonymously
  const later = await lazyLayer({ 'bin/app': file('app 3'), 'lib/one': file('one') })
  const after = await openCache(dir)
  await readAll(await open(after, later, `${HOST}/third/app`, true))
  expect(after.done().copied).toBe(0)
})

test('what was fetched without credentials is everybody’s', async () => {
  const { old, next } = await versions()
  const cache = await openCache(await folder())
  expect(await copiedFor(cache, [old, TEAM, true], [next, OTHER])).toBe(SHARED_BYTES)
})

test('what was copied from a private image stays private, though the copy’s own repository gives to everybody', async () => {
  const { old, next } = await versions()
  const third = await lazyLayer({ 'bin/app': file('app 3'), 'lib/one': file('one'), 'lib/two': file('two') })
  const cache = await openCache(await folder())
  expect(await copiedFor(cache, [old, TEAM], [next, TEAM, true])).toBe(SHARED_BYTES)
  await readAll(await open(cache, third, OTHER))
  expect(cache.done().copied).toBe(SHARED_BYTES)
})

test('a tree that has bytes of a second, private repository is neither the first one’s nor everybody’s', async () => {
  const { old, next } = await versions()
  const again = await lazyLayer({ 'bin/app': file('app 1'), 'lib/one': file('one'), 'lib/two': file('two') })
  const cache = await openCache(await folder())
  const first = await open(cache, old, TEAM, true)
  await first.filler.fill([0], 'demand')
  const second = await cache.layers.open(
    unitOf(again.descriptor),
    from(again, 'other.example.com/app'),
    'other.example.com',
  )
  expect(second.slots).toBe(first.slots)
  const failing: Blob['read'] = () => Promise.reject(new Error('away'))
  old.blob.read = failing as typeof old.blob.read
  await second.filler.fill([1], 'demand')
  await readAll(await open(cache, next, TEAM))
  expect(cache.done().copied).toBe(0)
})

test.each([
  ['gone', (path: string) => rm(path)],
  ['damaged', (path: string) => writeFile(path, '{"private": []}')],
])('a tree of which nobody knows where it is from gives nothing to anybody: its record is %s', async (_, spoil) => {
  const dir = await folder()
  const { old, next } = await versions()
  const before = await openCache(dir)
  const layer = await open(before, old, TEAM)
  await readAll(layer)
  await before.close()
  await spoil(join(dir, 'trees', hex(layer.tree), 'from.json'))
  const after = await openCache(dir)
  await readAll(await open(after, next, TEAM))
  expect(after.done().copied).toBe(0)
})

test('what is damaged where it is copied from is fetched, and no damage is taken over', async () => {
  const { old, next } = await versions()
  const dir = await folder()
  const cache = await openCache(dir)
  const layer = await open(cache, old, TEAM)
  await readAll(layer)
  const path = join(dir, 'trees', hex(layer.tree), 'device')
  const device = await readFile(path)
  const at = device.indexOf(file('one'))
  device[at] = (device[at] as number) ^ 1
  await writeFile(path, device)
  const later = await open(cache, next, TEAM)
  await readAll(later)
  expect(await contents(later, 'lib/one')).toBe(file('one'))
  expect(cache.done()).toMatchObject({ copied: file('two').length + MARK_BYTES, corrupt: 0 })
})

test('what went since it was found is fetched', async () => {
  const { old, next } = await versions()
  const dir = await folder()
  const cache = await openCache(dir)
  const layer = await open(cache, old, TEAM)
  await readAll(layer)
  const later = await open(cache, next, TEAM)
  await later.filler.fill([0], 'demand')
  await rm(join(dir, 'trees', hex(layer.tree), 'device'))
  await readAll(later)
  expect(await contents(later, 'lib/two')).toBe(file('two'))
})

test('what is first in a new version is not asked for ahead of its tree, since most of it is here', async () => {
  const files = { first: 'f'.repeat(9000), second: 's'.repeat(9000), rest: 'r'.repeat(300_000) }
  const old = await lazyLayer({ ...files, last: '1' }, { prioritized: ['first', 'second'], level: 0 })
  const next = await lazyLayer({ ...files, last: '2' }, { prioritized: ['first', 'second'], level: 0 })
  const cache = await openCache(await folder())
  const start = (made: MadeLayer) =>
    cache.layers
      .open(unitOf(made.descriptor), from(made, TEAM), HOST, { early: async () => [] })
      .then((layer) => layer.prefetch())
  await start(old)
  expect(old.blob.ranges).toHaveLength(2)
  await start(next)
  expect(next.blob.ranges).toHaveLength(1)
})

test('what an image has not of another is not kept waiting for', async () => {
  const made = await lazyLayer({ a: file('a') })
  const cache = await openCache(await folder())
  const layer = await open(cache, made, TEAM)
  expect(await contents(layer, 'a')).toBe(file('a'))
  expect(cache.done()).toMatchObject({ copied: 0, decoded: 1 })
})
