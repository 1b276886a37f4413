// The operations of the portable rung without a mount: layers of our own writer, read by path.
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { OpenLayer } from '../../src/layer/layer.ts'
import { type PortableLayer, PortableTree } from '../../src/mount/portable-tree.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { folder } from '../store/folder.ts'
import { lazyLayer, openCache } from './fixture.ts'

const ENOENT = 2
const EIO = 5
const EROFS = 30
const TIMEOUT_MS = 300_000

async function openTree(files: Record<string, string>, missTimeoutMs = TIMEOUT_MS) {
  const cache = await openCache(await folder())
  const { descriptor, blob } = await lazyLayer(files)
  const layer: OpenLayer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), 'registry.example.com')
  const image = await cache.store.openImage(layer.tree)
  if (image === undefined) throw new Error('the image is not kept')
  const bytes = await image.readFile()
  await image.close()
  return { tree: new PortableTree(bytes, [layer], missTimeoutMs), bytes, layer, cache }
}

/** An operation's answer. */
const ask = <T extends unknown[]>(call: (done: (...answer: [number, ...Partial<T>]) => void) => void) =>
  new Promise<[number, ...Partial<T>]>((resolve) => call((...answer) => resolve(answer)))

async function readText(tree: PortableTree, path: string, at = 0, length = 1000): Promise<string | number> {
  const [code, fd = 0] = await ask<[number]>((done) => tree.open(path, 0, done))
  if (code !== 0) return code
  const into = Buffer.alloc(length)
  const [count] = await ask((done) => tree.read(path, fd, into, length, at, done))
  return count < 0 ? count : into.toString('utf8', 0, count)
}

test('files are found by path and read by number', async () => {
  const { tree } = await openTree({ 'a/b/c': 'deep', top: 'x'.repeat(10_000) })
  expect(await readText(tree, '/a/b/c')).toBe('deep')
  expect(await readText(tree, '/a/b/c', 2, 1)).toBe('e')
  expect(await readText(tree, '/a/b/c', 4)).toBe('')
  expect(await readText(tree, '/top', 9_990)).toBe('x'.repeat(10))
  expect(await readText(tree, '/a/none')).toBe(-ENOENT)
  expect(await readText(tree, '/top/below')).toBeLessThan(0)
  const [, names, stats] = await ask<[string[], { ino: number }[]]>((done) => tree.readdir('/a/b', done))
  expect(names).toEqual(['.', '..', 'c'])
  const [, found] = await ask<[{ ino: number }]>((done) => tree.getattr('/a/b/c', done))
  expect(stats?.[2]?.ino).toBe(found?.ino)
  expect(tree.counters()).toMatchObject({ reads: 4n, missed: 2n, failed: 0n, served: 15n })
})

test('a path whose directory is no directory is an errno, not an exception', async () => {
  const { tree } = await openTree({ file: 'x' })
  for (const path of ['/file/x', '/file/x/y', '/../x', '//', '/file/']) {
    const [code] = await ask((done) => tree.getattr(path, done))
    expect([path, code <= 0]).toEqual([path, true])
  }
})

test('files are not opened for writing', async () => {
  const { tree } = await openTree({ file: 'x' })
  for (const flags of [1, 2]) expect((await ask((done) => tree.open('/file', flags, done)))[0]).toBe(-EROFS)
  expect((await ask((done) => tree.access('/file', 2, done)))[0]).toBe(-EROFS)
  expect((await ask((done) => tree.access('/file', 4, done)))[0]).toBe(0)
  expect((await ask((done) => tree.access('/none', 4, done)))[0]).toBe(-ENOENT)
})

/** A layer whose chunks never come. */
function stuck({ chunks, slots }: OpenLayer): PortableLayer {
  const fill = (_: unknown, __: unknown, signal?: AbortSignal) =>
    new Promise<void>((_, reject) => {
      signal?.addEventListener('abort', () => reject(Failure.aborted('gave up')))
    })
  return { chunks, slots, filler: { fill } as unknown as OpenLayer['filler'] }
}

test('a read that waits too long is EIO, and counted', async () => {
  const { bytes, layer } = await openTree({ file: 'x' })
  const tree = new PortableTree(bytes, [stuck(layer)], 50)
  expect(await readText(tree, '/file')).toBe(-EIO)
  expect(tree.counters()).toMatchObject({ expired: 1n, failed: 1n, served: 0n })
})

test('closing fails what waits, and what would from then on', async () => {
  const { bytes, layer } = await openTree({ file: 'x' })
  const tree = new PortableTree(bytes, [stuck(layer)], TIMEOUT_MS)
  const reading = readText(tree, '/file')
  await new Promise(setImmediate)
  tree.close()
  expect(await reading).toBe(-EIO)
  expect(await readText(tree, '/file')).toBe(-EIO)
  expect(tree.counters()).toMatchObject({ expired: 0n, failed: 2n })
})

test('an image is not served over the devices of another', async () => {
  const { bytes, layer } = await openTree({ file: 'x' })
  for (const layers of [[], [layer, layer]]) expect(() => new PortableTree(bytes, layers, 1)).toThrow('devices')
})

test('a damaged image gives errnos', async () => {
  const { bytes, layer } = await openTree({ 'dir/file': 'x'.repeat(5000) })
  for (let i = 1200; i < bytes.length; i += 7) {
    const damaged = Uint8Array.from(bytes)
    damaged[i] = (damaged[i] as number) ^ 0xff
    const tree = new PortableTree(damaged, [layer], TIMEOUT_MS)
    for (const path of ['/', '/dir', '/dir/file']) {
      expect((await ask((done) => tree.getattr(path, done)))[0]).toBeLessThanOrEqual(0)
      expect((await ask((done) => tree.readdir(path, done)))[0]).toBeLessThanOrEqual(0)
      expect((await ask((done) => tree.listxattr(path, done)))[0]).toBeLessThanOrEqual(0)
    }
  }
})
