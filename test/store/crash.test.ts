// Power cuts: the cache's folder is copied after every single step that changes it, once as it is (a kill) and once with every file
// that was not synced yet cut to nothing (a machine that lost its page cache). Every copy must be a usable cache.
import { cpSync, fstatSync, readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Locks } from '../../src/store/locks.ts'
import { Store } from '../../src/store/store.ts'
import { versionOf } from '../../src/store/version.ts'
import { READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { folder } from './folder.ts'
import { LAYER, RECORD, tree } from './layer.ts'

/** A copy is opened by one process only. */
const alone: Locks = { tryLock: () => true }
const bytes = (of: string) => new TextEncoder().encode(of)
const OBJECT = bytes('a manifest')
const MERGED = bytes('a merged image')
const KEY = digestOf(bytes('key'))
const ONE = tree(3, 'one')
const TWO = tree(4, 'two')

/** The prototype of file handles: its sync is replaced, since a copy needs none and a disk takes its time for each. */
let handles: Handles
let sync: Handles['sync']
const unsynced = new Set<number>()
interface Handles {
  sync(this: { fd: number }): Promise<void>
}
const restores: (() => void)[] = []

beforeEach(async () => {
  const probe = await fs.open('/')
  handles = Object.getPrototypeOf(probe)
  await probe.close()
  sync = handles.sync
  handles.sync = async function () {
    unsynced.delete(fstatSync(this.fd).ino)
  }
})
afterEach(() => {
  for (const restore of restores.splice(0)) restore()
  handles.sync = sync
})

type Calls = Record<string, (...args: never[]) => Promise<unknown>>

/** Calls `after` when a call of `of[name]` has ended. */
function watch(of: object, name: string, after: (self: { fd: number }, args: unknown[]) => void): void {
  const calls = of as Calls
  const original = calls[name] as (...args: never[]) => Promise<unknown>
  calls[name] = async function (this: { fd: number }, ...args) {
    const result = await original.apply(this, args)
    after(this, args)
    return result
  }
  restores.push(() => {
    calls[name] = original
  })
}

interface Copy {
  dir: string
  /** What had been promised when it was made: calls that had returned. */
  promised: ReadonlySet<string>
}

async function copies(work: (dir: string, promise: (what: string) => void) => Promise<void>): Promise<Copy[]> {
  const root = await folder()
  const dir = join(root, 'cache')
  unsynced.clear()
  const promised = new Set<string>()
  const made: Copy[] = []
  const snapshot = () => {
    if (!readdirSync(root).includes('cache')) return
    const paths = readdirSync(dir, { recursive: true, encoding: 'utf8' })
    const cut = paths.filter((path) => unsynced.has(statSync(join(dir, path)).ino))
    for (const lost of cut.length > 0 ? [[], cut] : [[]]) {
      const copy: Copy = { dir: join(root, `copy-${made.length}`), promised: new Set(promised) }
      cpSync(dir, copy.dir, { recursive: true })
      for (const path of lost) truncateSync(join(copy.dir, path), 0)
      made.push(copy)
    }
  }
  for (const name of ['mkdir', 'rename', 'link', 'rm', 'unlink']) watch(fs, name, snapshot)
  watch(fs, 'open', (_, [, flags]) => {
    if (String(flags).startsWith('w')) snapshot()
  })
  for (const name of ['write', 'writeFile', 'truncate']) {
    watch(handles, name, (self) => {
      unsynced.add(fstatSync(self.fd).ino)
      snapshot()
    })
  }
  await work(dir, (what) => promised.add(what))
  for (const restore of restores.splice(0)) restore()
  return made
}

async function fill(store: Store, promise: (what: string) => void): Promise<void> {
  await store.putObject(digestOf(OBJECT), OBJECT)
  promise('object')
  await store.keepLayer(LAYER, RECORD, ONE)
  promise('layer')
  await store.tags.keep('a', 'b', digestOf(OBJECT))
  promise('reference')
  await store.keepMerged(KEY, MERGED, { image: digestOf(MERGED), trees: [ONE.digest] })
  promise('merged')
  const numbers = await store.numbersOf(ONE.digest)
  promise(`slot ${numbers.slot}`)
  const slots = await store.openSlots(ONE.digest, ONE.chunks)
  promise('slots')
  await slots.close()
}

/** Whatever the store gives is right; what was promised is there. */
async function check(copy: Copy): Promise<void> {
  const warnings: string[] = []
  const store = await Store.open(copy.dir, alone, (message) => warnings.push(message))
  const object = await store.getObject(digestOf(OBJECT))
  expect(object ?? Buffer.from(OBJECT)).toEqual(Buffer.from(OBJECT))
  expect(object !== undefined || !copy.promised.has('object')).toBe(true)
  const layer = await store.layer(LAYER)
  if (layer !== undefined) {
    const kept = layer.tree === ONE.digest ? ONE : TWO
    expect(layer.tree).toBe(kept.digest)
    expect(layer.chunks.contentDigest()).toBe(kept.chunks.contentDigest())
    const image = await store.openImage(layer.tree)
    expect(await image?.readFile()).toEqual(Buffer.from(kept.image))
    await image?.close()
  }
  expect(layer !== undefined || !copy.promised.has('layer')).toBe(true)
  expect((await store.tags.of('a', 'b'))?.manifest ?? !copy.promised.has('reference')).toBeTruthy()
  const merged = await store.merged(KEY)
  if (merged !== undefined) {
    const image = await store.openImage(merged.image)
    expect(image).toBeDefined()
    await image?.close()
  }
  expect(merged !== undefined || !copy.promised.has('merged')).toBe(true)
  for (const each of [ONE, TWO]) await store.keepLayer(digestOf(bytes(each.digest)), RECORD, each)
  const one = await store.numbersOf(ONE.digest)
  if (copy.promised.has('slot 1')) expect(one).toEqual({ slot: 1, inodeBase: 0 })
  const two = await store.numbersOf(TWO.digest)
  expect(two.slot).not.toBe(one.slot)
  expect(Math.abs(two.inodeBase - one.inodeBase)).toBeGreaterThanOrEqual(ONE.image.length / 32)
  const slots = await store.openSlots(ONE.digest, ONE.chunks)
  for (let i = 0; i < slots.chunks; i++) expect(slots.state(i)).not.toBe(READY_VERIFIED)
  await slots.close()
  // and it goes on
  await fill(store, () => {})
  expect((await store.layer(LAYER))?.tree).toBe(ONE.digest)
  expect(store.counters).toMatchObject({ corruptObjects: 0, corruptImages: 0 })
  await store.close()
}

test('after any step of a first use a cut leaves a usable cache, and what was promised', async () => {
  const made = await copies(async (dir, promise) => {
    const store = await Store.open(dir, alone, () => {})
    await fill(store, promise)
    await store.close()
  })
  expect(made.length).toBeGreaterThan(60)
  for (const copy of made) await check(copy)
})

test('after any step of replacing a layer a cut leaves the old one, the new one or none', async () => {
  const made = await copies(async (dir) => {
    const store = await Store.open(dir, alone, () => {})
    await store.keepLayer(LAYER, RECORD, ONE)
    await store.keepLayer(LAYER, RECORD, TWO)
    await store.close()
  })
  for (const copy of made) await check(copy)
})

test('after any step of setting another version aside a cut leaves a usable cache and loses nothing of the old', async () => {
  const made = await copies(async (dir) => {
    const store = await Store.open(dir, alone, () => {})
    await fill(store, () => {})
    await store.close()
    await fs.rename(join(dir, 'version'), join(dir, 'tmp', 'old'))
    await fs.writeFile(join(dir, 'version'), 'lazylayer cache 0\n')
    await (await Store.open(dir, alone, () => {})).close()
  })
  const moved = made.filter(({ dir }) => readdirSync(dir).some((name) => name.startsWith('.aside')))
  expect(moved.length).toBeGreaterThan(10)
  for (const copy of moved) {
    const before = readdirSync(copy.dir, { recursive: true, encoding: 'utf8' }).filter((path) =>
      path.includes('objects/'),
    )
    // whoever finds the new cache begun removes the old one, as after any start
    if (versionOf(readFileSync(join(copy.dir, 'version'), { flag: 'a+' })) === 'ours') continue
    await check(copy)
    const after = readdirSync(copy.dir, { recursive: true, encoding: 'utf8' }).filter((path) =>
      /aside-\d\/objects\//.test(path),
    )
    expect(before).toHaveLength(1)
    expect(after).toHaveLength(1)
  }
})

test('after any step of opening a device again no byte of the earlier life is verified', async () => {
  const made = await copies(async (dir) => {
    const store = await Store.open(dir, alone, () => {})
    const first = await store.openSlots(ONE.digest, ONE.chunks)
    const handle = await fs.open(join(dir, 'trees', hex(ONE.digest), 'ready'), 'r+')
    await handle.write(new Uint8Array(3).fill(READY_VERIFIED), 0, 3, 64)
    await handle.close()
    await first.close()
    const second = await store.openSlots(ONE.digest, ONE.chunks)
    expect([0, 1, 2].map((i) => second.state(i))).toEqual(Array(3).fill(READY_STORED))
    await second.close()
    await store.close()
  })
  for (const copy of made) await check(copy)
})
