import { mkdir, readdir, readFile, rename, rm, rmdir, truncate, writeFile } from 'node:fs/promises'
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

test('when an image was asked for last is kept with it, but not written each time', async () => {
  const { dir, open } = await cache()
  const records = await open()
  const at = Date.UTC(2026, 0, 1)
  const path = join(dir, 'listed')
  const written = async () =>
    (await readdir(path)).length && (await readFile(join(path, (await readdir(path))[0] ?? '')))
  await records.keep({ ...listing('1'), askedAt: at })
  const first = await written()
  await records.keep({ ...listing('1'), askedAt: at + 3_599_999 })
  expect(await written()).toEqual(first)
  await records.keep({ ...listing('1'), askedAt: at + 3_600_000 })
  const next = await open()
  expect(await next.all()).toEqual([{ ...listing('1'), askedAt: at + 3_600_000 }])
  // also what is written for another reason
  await next.keep({ ...listing('1'), proven: [true] })
  expect(await (await open()).all()).toEqual([{ ...listing('1'), askedAt: at + 3_600_000, proven: [true] }])
})

test('a record of which nothing is left is dropped with a warning, and can be kept again', async () => {
  const { dir, open, warnings } = await cache()
  await (await open()).keep(listing('1'))
  const [name = ''] = await readdir(join(dir, 'listed'))
  const path = join(dir, 'listed', name)
  const twin = join(dir, 'twins', 'listed', name)
  const text = await readFile(path, 'utf8')
  for (const damaged of ['', '{', text.replaceAll('app:1', 'app:2'), 'x'.repeat(300_000)]) {
    for (const each of [path, twin]) await writeFile(each, damaged)
    expect(await (await open()).all()).toEqual([])
    expect(warnings.splice(0)).toEqual([expect.stringContaining(`${path} is dropped`)])
  }
  await writeFile(join(dir, 'listed', 'unrelated'), 'x')
  const again = await open()
  await again.keep(listing('1'))
  expect(await (await open()).all()).toEqual([listing('1')])
})

test('of a listing that lost a file, a folder, or half of everything, nothing is lost', async () => {
  const { dir, open, warnings } = await cache()
  const before = await open()
  const all = [listing('1'), { ...listing('2'), by: ['diffid', 'index'] as const, proven: [true, false] }]
  for (const each of all) await before.keep(each)
  const files = (await readdir(join(dir, 'listed'))).flatMap((name) => [`listed/${name}`, `twins/listed/${name}`])
  const right = await Promise.all(files.map((each) => readFile(join(dir, each))))
  const check = async (message: string) => {
    expect(await (await open()).all(), message).toEqual(all)
    expect(warnings.splice(0), message).toContainEqual(expect.stringContaining('restored'))
    // restored as it was, which the next one finds
    const found = await Promise.all(files.map((each) => readFile(join(dir, each))))
    expect(found, message).toEqual(right)
    await open()
    expect(warnings, message).toEqual([])
  }
  for (const each of ['listed', 'twins/listed', 'twins', ...files]) {
    await rm(join(dir, each), { recursive: true })
    await check(`${each} is gone`)
  }
  for (const [i, each] of files.entries()) {
    for (const size of [0, 1, 100, Math.floor((right[i] as Buffer).length / 2)]) {
      await truncate(join(dir, each), size)
      await check(`${each} has ${size} bytes`)
    }
  }
  // in every file at once
  for (const at of [0, 0.3, 0.4999, 0.5, 0.75, 0.9999]) {
    for (const [i, each] of files.entries()) {
      const bytes = Buffer.from(right[i] as Buffer)
      const place = Math.floor(bytes.length * at)
      bytes[place] = (bytes[place] as number) ^ 4
      await writeFile(join(dir, each), bytes)
    }
    await check(`a bit at ${at}`)
  }
  const [one = '', , other = ''] = files
  await rename(join(dir, one), join(dir, 'tmp', 'x'))
  await rename(join(dir, other), join(dir, one))
  await rename(join(dir, 'tmp', 'x'), join(dir, other))
  await check('two records were swapped')
})

test('what was proven since is added to what is kept, in its place', async () => {
  const { open } = await cache()
  const records = await open()
  const both = { ...listing('1'), by: ['diffid', 'diffid'] as const }
  await records.keep(both)
  await records.keep(listing('2'))
  await records.keep({ ...both, proven: [true, false] })
  await records.keep({ ...both, proven: [false, true] })
  await records.keep(both)
  const next = await open()
  expect(await next.all()).toEqual([{ ...both, proven: [true, true] }, listing('2')])
  await next.keep({ ...both, proven: [false, false] })
  expect(await (await open()).all()).toEqual([{ ...both, proven: [true, true] }, listing('2')])
  await next.forget(both)
  expect(await (await open()).all()).toEqual([listing('2')])
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
