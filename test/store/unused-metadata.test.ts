import { readdir, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { Store } from '../../src/store/store.ts'
import type { Tree } from '../../src/tree/tree.ts'
import { write } from './chunks.ts'
import { disk } from './disk.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { RECORD, tree } from './layer.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const ALL = Number.MAX_SAFE_INTEGER

async function open(dir: string): Promise<Store> {
  const limits = { max: { bytes: 2 ** 30 }, minFree: { bytes: 0 } }
  const store = await Store.open(dir, flock, () => {}, { disk: disk(), limits })
  onTestFinished(() => store.close())
  return store
}

const keyOf = (name: string) => digestOf(new TextEncoder().encode(name))
const imageOf = (dir: string, digest: Digest) => join(dir, 'trees', hex(digest), 'image')

/** Keeps a layer that was used so many days ago, if it was not opened since. */
async function kept(store: Store, name: string, days: number): Promise<Tree> {
  const made = tree(3, name)
  await store.keepLayer(keyOf(name), RECORD, made)
  await age(store, made.digest, days)
  return made
}

async function age({ dir }: Store, digest: Digest, days: number): Promise<void> {
  const at = (Date.now() - days * DAY_MS) / 1000
  await utimes(imageOf(dir, digest), at, at)
}

test('metadata that was not used for a month goes when room is made, with what is kept of its layers; numbers stay', async () => {
  const store = await open(await folder())
  const [old, recent] = [await kept(store, 'old', 32), await kept(store, 'recent', 30)]
  await store.keepLayer(keyOf('another layer of the tree'), RECORD, old)
  await age(store, old.digest, 32)
  const numbers = await store.numbersOf(old.digest)
  expect(await store.room.makeFree(ALL)).toBeGreaterThan(0)
  expect(await readdir(join(store.dir, 'trees'))).toEqual([hex(recent.digest)])
  expect(await readdir(join(store.dir, 'layers'))).toEqual([hex(keyOf('recent'))])
  expect(await store.layer(keyOf('old'))).toBeUndefined()
  expect(await store.layer(keyOf('recent'))).toBeDefined()

  await store.keepLayer(keyOf('old'), RECORD, old)
  expect(await store.numbersOf(old.digest)).toEqual(numbers)
  const later = await open(store.dir)
  expect(await later.numbersOf(old.digest)).toEqual(numbers)
})

test('what is pinned stays, and what somebody uses, and what has contents until these have gone', async () => {
  const store = await open(await folder())
  const [pinned, used] = [await kept(store, 'pinned', 100), await kept(store, 'used', 100)]
  await store.pins.add({ reference: 'registry.example.com/a:b', trees: [pinned.digest] })
  const device = await store.openSlots(used.digest, used.chunks)
  await store.room.makeFree(ALL)
  expect((await readdir(join(store.dir, 'trees'))).sort()).toEqual([hex(pinned.digest), hex(used.digest)].sort())
  await device.close()
  const other = await open(store.dir)
  await other.room.makeFree(ALL) // the contents
  expect(await readdir(join(store.dir, 'trees', hex(used.digest)))).toEqual(['image'])
  await other.room.makeFree(ALL)
  expect(await readdir(join(store.dir, 'trees'))).toEqual([hex(pinned.digest)])
})

test('contents that were used within the month before go first', async () => {
  const store = await open(await folder())
  const [old, filled] = [await kept(store, 'old', 32), tree(3, 'filled')]
  await store.keepLayer(keyOf('filled'), RECORD, filled)
  const device = await store.openSlots(filled.digest, filled.chunks)
  await device.fill(0, write)
  await device.close()
  const at = (Date.now() - 20 * DAY_MS) / 1000
  for (const name of ['device', 'used']) await utimes(join(store.dir, 'trees', hex(filled.digest), name), at, at)
  const other = await open(store.dir)
  await other.room.makeFree(1)
  expect(await readdir(join(store.dir, 'trees', hex(filled.digest)))).toEqual(['image'])
  expect(await readdir(join(store.dir, 'trees', hex(old.digest)))).toEqual(['image'])
})

test('a tree is used when its image is opened, or built again', async () => {
  const store = await open(await folder())
  const made = await kept(store, 'old', 40)
  const usedAt = async () => (await stat(imageOf(store.dir, made.digest))).mtimeMs
  await (await store.openImage(made.digest))?.close()
  expect(Date.now() - (await usedAt())).toBeLessThan(DAY_MS)
  await age(store, made.digest, 40)
  await store.keepLayer(keyOf('again'), RECORD, made)
  expect(Date.now() - (await usedAt())).toBeLessThan(DAY_MS)
})
