import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { type Listing, ListingRecords } from '../../src/store/listings.ts'
import { folder } from './folder.ts'

const listing = (name: string): Listing => ({
  reference: `example.com/app:${name}`,
  manifest: `sha256:${'a'.repeat(64)}`,
  by: ['index'],
})

async function cache() {
  const dir = await folder()
  await mkdir(join(dir, 'tmp'))
  const warnings: string[] = []
  const open = (root = '/store') => ListingRecords.open(dir, root, (each) => void warnings.push(each))
  return { dir, open, warnings }
}

test('what is kept is there for the next process, in the order in which it came, once', async () => {
  const { dir, open } = await cache()
  const first = await open()
  const all = Array.from({ length: 20 }, (_, i) => listing(`${i}`))
  for (const each of all) await first.keep(each)
  const second = await open()
  expect(await second.all()).toEqual(all)
  await second.keep(listing('3'))
  await second.keep(listing('new'))
  expect(await (await open()).all()).toEqual([...all, listing('new')])
  expect(await readdir(join(dir, 'listed'))).toHaveLength(21)
  expect(await readdir(join(dir, 'tmp'))).toEqual([])
})

test('stores with other roots, other manifests and other identities are other records', async () => {
  const { open } = await cache()
  const here = await open()
  const others: Listing[] = [
    listing('1'),
    { ...listing('1'), by: ['index', 'diffid'] },
    { ...listing('1'), manifest: `sha256:${'b'.repeat(64)}` },
  ]
  for (const each of others) await here.keep(each)
  const there = await open('/other')
  await there.keep(listing('2'))
  expect(await here.all()).toEqual(others)
  expect(await (await open('/other')).all()).toEqual([listing('2')])
})

test('a damaged record is dropped with a warning, and can be kept again', async () => {
  const { dir, open, warnings } = await cache()
  await (await open()).keep(listing('1'))
  const [name = ''] = await readdir(join(dir, 'listed'))
  const path = join(dir, 'listed', name)
  const text = await readFile(path, 'utf8')
  for (const damaged of ['', '{', text.replace('app:1', 'app:2'), 'x'.repeat(20_000)]) {
    await writeFile(path, damaged)
    expect(await (await open()).all()).toEqual([])
    expect(warnings.splice(0)).toEqual([expect.stringContaining(`${path} is dropped`)])
  }
  await writeFile(join(dir, 'listed', 'unrelated'), 'x')
  const again = await open()
  await again.keep(listing('1'))
  expect(await (await open()).all()).toEqual([listing('1')])
})

test('what cannot be kept is an error, and is tried again', async () => {
  const { dir, open } = await cache()
  const records = await open()
  await rmdir(join(dir, 'tmp'))
  await expect(records.keep(listing('1'))).rejects.toMatchObject({ code: 'system' })
  await mkdir(join(dir, 'tmp'))
  await records.keep(listing('1'))
  expect(await (await open()).all()).toEqual([listing('1')])
})

test('what is forgotten is not there for the next process, and can be kept again', async () => {
  const { open } = await cache()
  const records = await open()
  await records.keep(listing('1'))
  await records.keep(listing('2'))
  await records.forget(listing('1'))
  await records.forget(listing('never kept'))
  expect(await (await open()).all()).toEqual([listing('2')])
  await records.keep(listing('1'))
  expect(await (await open()).all()).toEqual([listing('2'), listing('1')])
})
