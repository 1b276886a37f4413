import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { layoutOrder, shuffled } from '../../bench/layout-order.ts'
import { buildTree } from '../../src/tree/build.ts'
import { dir, file, layer, symlink } from '../tree/layer.ts'

let cache = ''
beforeEach(async () => {
  cache = await mkdtemp(join(tmpdir(), 'lazylayer-order-'))
  await mkdir(join(cache, 'merged'))
})
afterEach(() => rm(cache, { recursive: true, force: true }))

async function keep(name: string, image: Uint8Array): Promise<void> {
  const record = { version: 1, record: { image: `sha256:${name}`, trees: [] } }
  await writeFile(join(cache, 'merged', `${name}.json`), JSON.stringify(record))
  await mkdir(join(cache, 'trees', name), { recursive: true })
  await writeFile(join(cache, 'trees', name, 'image'), image)
}

test('files come in the order in which they lie on the device, with their paths, and nothing else does', async () => {
  const specs = [
    dir('b'),
    file('b/first', 'x'),
    file('b/empty'),
    symlink('link', 'b'),
    file('a', 'y'),
    file('z/last', 'z'),
  ]
  await keep('one', buildTree(layer(specs)).image)
  const files = await layoutOrder(cache)
  expect(files.map(({ path }) => path)).toEqual(['b/first', 'a', 'z/last'])
  expect(files.map(({ device, size }) => [device, size])).toEqual([
    [1, 1],
    [1, 1],
    [1, 1],
  ])
  expect(files.map(({ offset }) => offset)).toEqual([0, 4096, 8192])
})

test('a cache of no image, or of two, has no order', async () => {
  await expect(layoutOrder(cache)).rejects.toThrow('not of one image')
  for (const name of ['one', 'two']) await keep(name, buildTree(layer([file('a', 'x')])).image)
  await expect(layoutOrder(cache)).rejects.toThrow('not of one image')
})

test('shuffling loses nothing, is the same each time, and leaves few where they were', () => {
  const of = Array.from({ length: 1000 }, (_, i) => i)
  const all = shuffled(of)
  expect(all.toSorted((a, b) => a - b)).toEqual(of)
  expect(shuffled(of)).toEqual(all)
  expect(all.filter((each, i) => each === i).length).toBeLessThan(10)
})
