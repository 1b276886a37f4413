import fs from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import { GatheredBlobs } from '../../src/store/gathered-blobs.ts'
import { folder } from './folder.ts'

const BYTES = Uint8Array.from({ length: 1000 }, (_, i) => i % 251)
const BLOB = { digest: digestOf(BYTES), size: BYTES.length, origin: 'registry.example.com' }

async function gathering({ isWanted = true, hasRoom = (): boolean => true } = {}) {
  const dir = await folder()
  let files = 0
  const gathered = new GatheredBlobs({
    async begin() {
      const path = join(dir, String(files++))
      return { path, file: await fs.open(path, 'wx+') }
    },
    hasRoom,
    isWanted: async () => isWanted,
  })
  const add = (start: number, end: number, of = BLOB) => gathered.add(of, start, BYTES.slice(start, end))
  return { gathered, add, left: () => fs.readdir(dir) }
}

test('what was read in whatever order is given away, with what is missing', async () => {
  const { gathered, add, left } = await gathering()
  await Promise.all([add(600, 700), add(100, 200), add(200, 300), add(650, 800), add(120, 130)])
  expect(gathered.missing(BLOB)).toBe(600)
  const taken = await gathered.take(BLOB)
  expect(taken?.missing).toEqual([
    { start: 0, end: 100 },
    { start: 300, end: 600 },
    { start: 800, end: 1000 },
  ])
  const bytes = new Uint8Array(200)
  await taken?.file.read(bytes, 0, 200, 100)
  expect(bytes).toEqual(BYTES.slice(100, 300))
  await add(0, 100) // what is fetched for whoever took it
  expect(await gathered.take(BLOB)).toBeUndefined()
  taken?.end()
  await taken?.file.close()
  await add(0, 100)
  expect(gathered.missing(BLOB)).toBe(900)
  await gathered.close()
  expect(await left()).toEqual(['0']) // whoever took that one removes it
})

test('the last bytes that came count: a piece that was wrong is fetched again', async () => {
  const { gathered, add } = await gathering()
  await gathered.add(BLOB, 0, new Uint8Array(100))
  await add(0, 1000)
  const taken = await gathered.take(BLOB)
  expect(taken?.missing).toEqual([])
  expect(new Uint8Array(await (taken?.file.readFile() ?? []))).toEqual(BYTES)
  await taken?.file.close()
})

test('what one origin says of a blob is not what another one says', async () => {
  const { gathered, add } = await gathering()
  await add(0, 1000, { ...BLOB, origin: 'liar.example.com' })
  expect(gathered.missing(BLOB)).toBe(1000)
  expect(await gathered.take(BLOB)).toBeUndefined()
  await gathered.close()
})

test('nothing is kept of what is proven, nor where there is no room for it', async () => {
  const proven = await gathering({ isWanted: false })
  await proven.add(0, 1000)
  expect(proven.gathered.missing(BLOB)).toBe(1000)
  let room = true
  const full = await gathering({ hasRoom: () => room })
  await full.add(0, 500)
  room = false
  await full.add(500, 600)
  room = true
  await full.add(600, 1000)
  expect(full.gathered.missing(BLOB)).toBe(1000)
  expect(await full.gathered.take(BLOB)).toBeUndefined()
  expect(await full.left()).toEqual([])
})

test('of many blobs the one that nothing was read of for longest goes', async () => {
  const { gathered, left } = await gathering()
  const blob = (i: number) => ({ ...BLOB, origin: `${i}.example.com` })
  for (let i = 0; i < 129; i++) await gathered.add(blob(i), 0, BYTES.slice(0, 10))
  expect(gathered.missing(blob(0))).toBe(1000)
  expect(gathered.missing(blob(1))).toBe(990)
  await gathered.close()
  expect(await left()).toEqual([])
})

test('however many blobs are read, few have files', async () => {
  const { gathered, add, left } = await gathering()
  for (let i = 0; i < 200; i++) await add(0, 10, { ...BLOB, origin: `${i}.example.com` })
  await expect.poll(async () => (await left()).length).toBeLessThanOrEqual(128)
  await add(0, 1000, { ...BLOB, origin: '0.example.com' }) // it was given up, and stays so
  expect(gathered.missing({ ...BLOB, origin: '0.example.com' })).toBe(1000)
  expect(gathered.missing({ ...BLOB, origin: '199.example.com' })).toBe(990)
  await gathered.close()
  expect(await left()).toEqual([])
})

test('where the cache has no more room, what was gathered of any blob goes', async () => {
  let room = true
  const { gathered, add, left } = await gathering({ hasRoom: () => room })
  const other = { ...BLOB, origin: 'other.example.com' }
  await add(0, 500, other)
  await add(0, 500)
  room = false
  await add(500, 600)
  expect(await left()).toEqual([])
  expect([gathered.missing(BLOB), gathered.missing(other)]).toEqual([1000, 1000])
})
