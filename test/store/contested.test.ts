// Names that layers lost, as they are kept for the next process.
import { mkdir, readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { type ContestedName, ContestedNames } from '../../src/store/contested.ts'
import { TEMPORARY } from '../../src/store/version.ts'
import { folder } from './folder.ts'

const digest = (text: string) => digestOf(new TextEncoder().encode(text))
/** As a store makes it. */
async function cacheFolder(): Promise<string> {
  const cache = await folder()
  await mkdir(join(cache, TEMPORARY))
  return cache
}

const name = (of: string): ContestedName => ({
  diffId: digest('tar'),
  blob: digest(of),
  index: digest(`index of ${of}`),
  tree: digest(`tree of ${of}`),
  together: false,
})

test('what is kept is there for the next process, until it is forgotten', async () => {
  const cache = await cacheFolder()
  const names = await ContestedNames.open(cache, () => {})
  const { index: _, ...alone } = name('b')
  const all = [name('a'), alone, { ...name('a'), together: true }]
  for (const each of [...all, name('a')]) await names.keep(each)
  const next = await ContestedNames.open(cache, () => {})
  expect(await next.all()).toHaveLength(3)
  expect(await next.all()).toEqual(expect.arrayContaining(all))
  await next.forget(alone)
  await next.forget(name('never kept'))
  expect(await names.all()).toHaveLength(2)
})

test('a record that is damaged, or of another name, is dropped with a warning; the others stay', async () => {
  const cache = await cacheFolder()
  const warnings: string[] = []
  const names = await ContestedNames.open(cache, (message) => void warnings.push(message))
  await names.keep(name('a'))
  await names.keep(name('b'))
  const dir = join(cache, 'contested')
  const [first, second] = (await readdir(dir)) as [string, string]
  for (const at of [dir, join(cache, 'twins/contested')]) {
    await writeFile(join(at, first), 'damaged')
    await writeFile(join(at, 'no record'), '')
  }
  expect(await names.all()).toHaveLength(1)
  expect(warnings).toEqual([expect.stringContaining(first)])
  expect(await readdir(dir)).toContain(second)
})
