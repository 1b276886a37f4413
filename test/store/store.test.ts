import { createHash } from 'node:crypto'
import { chmod, mkdir, open as openFile, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { Slots } from '../../src/store/slots.ts'
import { Store } from '../../src/store/store.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { LAYER, RECORD, tree } from './layer.ts'

const bytes = (of: string) => new TextEncoder().encode(of)
const warnings: string[] = []
const open = (dir: string) => Store.open(dir, flock, (message) => warnings.push(message))
let umask: number

beforeEach(() => {
  warnings.length = 0
  umask = process.umask()
})
afterEach(() => process.umask(umask))

async function flip(path: string, at: number): Promise<void> {
  const found = await readFile(path)
  found[at] = (found[at] as number) ^ 1
  await writeFile(path, found)
}

/** Every file and folder below `dir`. */
async function below(dir: string): Promise<string[]> {
  return (await readdir(dir, { recursive: true })).sort()
}

test('what was kept is there after a restart', async () => {
  const dir = join(await folder(), 'deep', 'cache')
  const kept = tree()
  const object = bytes('{"schemaVersion":2}')
  const key = digestOf(bytes('key'))
  const image = bytes('merged image')
  const before = await open(dir)
  await before.putObject(digestOf(object), object)
  await before.keepLayer(LAYER, RECORD, kept)
  await before.keepMerged(key, image, { image: digestOf(image), trees: [kept.digest] })
  await before.keepReference('registry.example.com/a:b', 'linux/amd64', digestOf(object))
  await before.close()

  const after = await open(dir)
  expect(await after.getObject(digestOf(object))).toEqual(Buffer.from(object))
  const layer = await after.layer(LAYER)
  expect(layer?.record).toEqual(RECORD)
  expect(layer?.tree).toBe(kept.digest)
  expect(layer?.chunks.contentDigest()).toBe(kept.chunks.contentDigest())
  const handle = await after.openImage(kept.digest)
  expect(await handle?.readFile()).toEqual(Buffer.from(kept.image))
  await handle?.close()
  expect(await after.merged(key)).toEqual({ image: digestOf(image), trees: [kept.digest] })
  const merged = await after.openImage(digestOf(image))
  expect(merged).toBeDefined()
  await merged?.close()
  expect((await after.reference('registry.example.com/a:b', 'linux/amd64'))?.manifest).toBe(digestOf(object))
  expect(await after.reference('registry.example.com/a:b', 'linux/arm64')).toBeUndefined()
  expect(warnings).toEqual([])
  await after.close()
})

test('what was never kept is absent', async () => {
  const store = await open(await folder())
  expect(await store.getObject(LAYER)).toBeUndefined()
  expect(await store.layer(LAYER)).toBeUndefined()
  expect(await store.openImage(LAYER)).toBeUndefined()
  expect(await store.merged(LAYER)).toBeUndefined()
  expect(await store.reference('a', 'b')).toBeUndefined()
  expect(store.counters).toEqual({ corruptObjects: 0, corruptRecords: 0, corruptImages: 0, corruptDevices: 0 })
  await store.close()
})

test.each([0, 0o077, 0o777])('folders are 0700 and files 0600 with umask %o', async (mask) => {
  const dir = join(await folder(), 'cache')
  process.umask(mask)
  const store = await open(dir)
  const kept = tree()
  await store.putObject(digestOf(kept.image), kept.image)
  await store.keepLayer(LAYER, RECORD, kept)
  await store.keepReference('a', 'b', LAYER)
  await store.numbersOf(kept.digest)
  const slots = await store.openSlots(kept.digest, kept.chunks)
  await slots.close()
  process.umask(umask)
  const names = await below(dir)
  expect(names.length).toBeGreaterThan(15)
  for (const name of ['.', ...names]) {
    const found = await stat(join(dir, name))
    expect([name, (found.mode & 0o7777).toString(8)]).toEqual([name, found.isDirectory() ? '700' : '600'])
  }
  await store.close()
})

test('a cache folder that others may enter is closed to them', async () => {
  const dir = await folder()
  await chmod(dir, 0o755)
  await (await open(dir)).close()
  expect((await stat(dir)).mode & 0o7777).toBe(0o700)
})

test('bytes that are not those of their digest are not kept', async () => {
  const store = await open(await folder())
  await expect(store.putObject(LAYER, bytes('other'))).rejects.toMatchObject({ code: 'corrupt' })
  expect(await store.getObject(LAYER)).toBeUndefined()
  await store.close()
})

test('a flipped bit in an object, a record or a chunk table makes it absent, once and counted', async () => {
  const dir = await folder()
  const store = await open(dir)
  const kept = tree()
  const object = bytes('object')
  await store.putObject(digestOf(object), object)
  await flip(join(dir, 'objects', hex(digestOf(object))), 3)
  expect(await store.getObject(digestOf(object))).toBeUndefined()
  expect(store.counters.corruptObjects).toBe(1)
  expect(await store.getObject(digestOf(object))).toBeUndefined()
  expect(store.counters.corruptObjects).toBe(1)

  const chunks = join(dir, 'layers', hex(LAYER), 'chunks')
  const record = join(dir, 'layers', hex(LAYER), 'record.json')
  for (const [i, [path, at]] of [
    [record, 5],
    [record, 120],
    [record, 200],
    [chunks, 0],
    [chunks, 300],
    [chunks, kept.chunks.bytes.length - 1],
  ].entries() as Iterable<[number, [string, number]]>) {
    await store.keepLayer(LAYER, RECORD, kept)
    expect(await store.layer(LAYER)).toBeDefined()
    await flip(path, at)
    expect(await store.layer(LAYER)).toBeUndefined()
    expect(store.counters.corruptRecords).toBe(i + 1)
  }
  await store.keepLayer(LAYER, RECORD, kept)
  await writeFile(chunks, kept.chunks.bytes.subarray(0, 100))
  expect(await store.layer(LAYER)).toBeUndefined()
  await writeFile(record, new Uint8Array(2 << 20))
  expect(await store.layer(LAYER)).toBeUndefined()
  await store.close()
})

test('a chunk table left by another version of the layer is not taken for the record’s', async () => {
  const dir = await folder()
  const store = await open(dir)
  await store.keepLayer(LAYER, RECORD, tree(5, 'old'))
  await writeFile(join(dir, 'layers', hex(LAYER), 'chunks'), tree(5, 'new').chunks.bytes)
  expect(await store.layer(LAYER)).toBeUndefined()
  await store.close()
})

test('an image with a flipped bit is refused, set aside, counted, and can be kept again', async () => {
  const dir = await folder()
  const store = await open(dir)
  const kept = tree()
  await store.keepLayer(LAYER, RECORD, kept)
  const path = join(dir, 'trees', hex(kept.digest), 'image')
  for (let at = 0; at < kept.image.length; at += 7) {
    await flip(path, at)
    expect(await store.openImage(kept.digest)).toBeUndefined()
    await store.keepLayer(LAYER, RECORD, kept)
    const image = await store.openImage(kept.digest)
    expect(
      createHash('sha256')
        .update((await image?.readFile()) ?? '')
        .digest('hex'),
    ).toBe(hex(kept.digest))
    await image?.close()
  }
  expect(store.counters.corruptImages).toBe(Math.ceil(kept.image.length / 7))
  expect(await readdir(join(dir, 'trees', hex(kept.digest)))).toEqual(['image', 'image.corrupt'])
  expect(warnings[0]).toContain('is damaged')
  await store.close()
})

test('an image that exists is not written again', async () => {
  const dir = await folder()
  const store = await open(dir)
  const kept = tree()
  await store.keepLayer(LAYER, RECORD, kept)
  const before = await stat(join(dir, 'trees', hex(kept.digest), 'image'))
  await store.keepLayer(LAYER, RECORD, kept)
  expect((await stat(join(dir, 'trees', hex(kept.digest), 'image'))).ino).toBe(before.ino)
  await store.close()
})

test.each([
  ['another version', 'lazylayer cache 2\n'],
  ['an empty version', ''],
  ['a version too long', 'x'.repeat(1000)],
])('a cache with %s is set aside as a whole, with a warning', async (_, version) => {
  const dir = await folder()
  const store = await open(dir)
  await store.putObject(digestOf(bytes('a')), bytes('a'))
  await store.close()
  for (const n of [1, 2]) {
    await writeFile(join(dir, 'version'), version)
    warnings.length = 0
    const next = await open(dir)
    expect(await next.getObject(digestOf(bytes('a')))).toBeUndefined()
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain(`.aside-${n}`)
    expect(await readFile(join(dir, `.aside-${n}`, 'version'), 'utf8')).toBe(version)
    expect(await readFile(join(dir, 'version'), 'utf8')).toBe('lazylayer cache 2\n')
    await next.close()
  }
  expect(await readdir(join(dir, '.aside-1', 'objects'))).toEqual([hex(digestOf(bytes('a')))])
})

test('a cache of another version that is in use is left alone', async () => {
  const dir = await folder()
  const store = await open(dir)
  await writeFile(join(dir, 'version'), 'lazylayer cache 2\n')
  await expect(open(dir)).rejects.toMatchObject({ code: 'unsupported' })
  expect(await readdir(dir)).not.toContain('.aside-1')
  await store.close()
})

test('a folder that is no cache is refused and not touched', async () => {
  const dir = await folder()
  await mkdir(join(dir, 'photos'))
  await expect(open(dir)).rejects.toMatchObject({ code: 'usage' })
  expect(await readdir(dir)).toEqual(['photos'])
})

test('what a dead process left half written is removed by whoever is alone', async () => {
  const dir = await folder()
  const first = await open(dir)
  await writeFile(join(dir, 'tmp', 'half'), 'x')
  const second = await open(dir)
  expect(await readdir(join(dir, 'tmp'))).toEqual(['half'])
  await first.close()
  await second.close()
  const third = await open(dir)
  expect(await readdir(join(dir, 'tmp'))).toEqual([])
  await third.close()
})

test('several stores open at once begin one cache', async () => {
  const dir = join(await folder(), 'cache')
  const stores = await Promise.all(Array.from({ length: 4 }, () => open(dir)))
  expect(warnings).toEqual([])
  expect(await readdir(dir)).not.toContain('.aside-1')
  await Promise.all(stores.map((each) => each.close()))
})

test('a tree has numbers of its own under each name', async () => {
  const dir = await folder()
  const store = await open(dir)
  const kept = tree()
  await store.keepLayer(LAYER, RECORD, kept)
  const nids = Math.ceil(kept.image.length / 32)
  expect(await store.numbersOf(kept.digest)).toEqual({ slot: 1, inodeBase: 0 })
  expect(await store.numbersOf(kept.digest, 'here')).toEqual({ slot: 2, inodeBase: nids })
  expect(await store.numbersOf(kept.digest, 'there')).toEqual({ slot: 3, inodeBase: 2 * nids })
  await store.close()
  const later = await open(dir)
  expect(await later.numbersOf(kept.digest, 'there')).toEqual({ slot: 3, inodeBase: 2 * nids })
  await later.close()
})

test.each(['ENOSPC', 'EDQUOT'])(
  'a full disk (%s) is an error that says what to do, and leaves nothing half written',
  async (code) => {
    const dir = await folder()
    const store = await open(dir)
    const kept = tree()
    const shown = tree(7, 'shown')
    await store.keepLayer(digestOf(bytes('shown')), RECORD, shown)
    const probe = await openFile(dir)
    const full = vi.spyOn(Object.getPrototypeOf(probe), 'writeFile')
    await probe.close()
    const works: (() => Promise<unknown>)[] = [
      () => store.putObject(digestOf(bytes('a')), bytes('a')),
      () => store.keepLayer(LAYER, RECORD, kept),
      () => store.keepReference('a', 'b', LAYER),
      () => store.numbersOf(shown.digest),
      () => store.openSlots(kept.digest, kept.chunks),
    ]
    for (const work of works) {
      full.mockRejectedValueOnce(Object.assign(new Error(`${code}: write`), { code }))
      await expect(work()).rejects.toMatchObject({ code: 'system', fix: expect.stringContaining('--cache') })
      expect(await readdir(join(dir, 'tmp'))).toEqual([])
    }
    full.mockRestore()
    for (const work of works) {
      const made = await work()
      if (made instanceof Slots) await made.close()
    }
    expect(await store.layer(LAYER)).toBeDefined()
    expect(store.counters.corruptDevices).toBe(0)
    await store.close()
  },
)
