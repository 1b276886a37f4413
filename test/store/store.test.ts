import { createHash } from 'node:crypto'
import { chmod, mkdir, open as openFile, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { sizeOf } from '../../src/store/aside.ts'
import { Device } from '../../src/store/device.ts'
import { Store } from '../../src/store/store.ts'
import { CACHE_VERSION, versionOf } from '../../src/store/version.ts'
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
  await before.tags.keep('registry.example.com/a:b', 'linux/amd64', digestOf(object))
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
  expect((await after.tags.of('registry.example.com/a:b', 'linux/amd64'))?.manifest).toBe(digestOf(object))
  expect(await after.tags.of('registry.example.com/a:b', 'linux/arm64')).toBeUndefined()
  expect(warnings).toEqual([])
  await after.close()
})

test('what was never kept is absent', async () => {
  const store = await open(await folder())
  expect(await store.getObject(LAYER)).toBeUndefined()
  expect(await store.layer(LAYER)).toBeUndefined()
  expect(await store.openImage(LAYER)).toBeUndefined()
  expect(await store.merged(LAYER)).toBeUndefined()
  expect(await store.tags.of('a', 'b')).toBeUndefined()
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
  await store.tags.keep('a', 'b', LAYER)
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

test('a chunk table of an earlier version is no damage: its layer is built again, on the same device', async () => {
  const dir = await folder()
  const store = await open(dir)
  const kept = tree(5)
  const older = kept.chunks.bytes.slice()
  older.set(bytes('lazychk1'))
  older.set(createHash('sha256').update(older.subarray(0, -32)).digest(), older.length - 32)
  await store.keepLayer(LAYER, RECORD, { ...kept, chunks: { bytes: older } as typeof kept.chunks })
  expect(await store.layer(LAYER)).toBeUndefined()
  expect(warnings.at(-1)).toContain('another version')
  expect(store.counters.corruptRecords).toBe(0)
  await store.keepLayer(LAYER, RECORD, kept)
  expect(await store.layer(LAYER)).toMatchObject({ tree: kept.digest })
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

const sealed = (line: string) => `${line}${digestOf(bytes(line))}\n`

test.each([
  ['as old programs wrote it', 'lazylayer cache 1\n'],
  ['as it is written now', sealed('lazylayer cache 27\n')],
])(
  'a cache of another version (%s) is set aside as a whole, with a warning, and goes at the next start',
  async (_, version) => {
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
      expect(await readFile(join(dir, 'version'), 'utf8')).toBe(CACHE_VERSION)
      await next.close()
    }
    expect(await readdir(join(dir, '.aside-1', 'objects'))).toEqual([hex(digestOf(bytes('a')))])
    await (await open(dir)).close()
    expect((await readdir(dir)).filter((name) => name.startsWith('.'))).toEqual([])
  },
)

test('two versions that take turns keep two caches, not one more each time', async () => {
  const dir = await folder()
  for (let i = 0; i < 5; i++) {
    await (await open(dir)).close()
    await writeFile(join(dir, 'version'), 'lazylayer cache 1\n')
    await (await open(dir)).close()
    await writeFile(join(dir, 'version'), 'lazylayer cache 1\n')
  }
  const aside = (await readdir(dir)).filter((name) => name.startsWith('.aside'))
  expect(aside.length).toBeLessThanOrEqual(2)
})

test('what was set aside stays while another version uses it, or anybody the cache', async () => {
  const dir = await folder()
  await (await open(dir)).close()
  await writeFile(join(dir, 'version'), 'lazylayer cache 1\n')
  const first = await open(dir)
  const second = await open(dir)
  await second.close()
  expect(await readdir(dir)).toContain('.aside-1')
  await first.close()
  const user = await openFile(join(dir, '.aside-1', 'version'))
  expect(flock.tryLock(user.fd, false)).toBe(true)
  await (await open(dir)).close()
  expect(await readdir(dir)).toContain('.aside-1')
  await user.close()
  await (await open(dir)).close()
  expect(await readdir(dir)).not.toContain('.aside-1')
})

test('a version file that is damaged costs nothing of the cache', async () => {
  const dir = await folder()
  const store = await open(dir)
  await store.putObject(digestOf(bytes('a')), bytes('a'))
  await store.keepLayer(LAYER, RECORD, tree())
  const numbers = await store.numbersOf(tree().digest)
  await store.close()
  const path = join(dir, 'version')
  const right = await readFile(path)
  const flips = Array.from({ length: right.length * 8 }, (_, i) => {
    const flipped = Buffer.from(right)
    flipped[i >> 3] = (flipped[i >> 3] as number) ^ (1 << (i & 7))
    return flipped
  })
  const cuts = Array.from(right, (_, size) => right.subarray(0, size))
  for (const each of [...flips, ...cuts]) expect(['ours', 'damaged']).toContain(versionOf(each))
  const some = [...[3, 16 * 8 + 1, 16 * 8 + 4, 200].map((i) => flips[i]), cuts[0], cuts[17], cuts[18], cuts[40]]
  for (const damaged of [...some, Buffer.alloc(1000, 'x'), Buffer.alloc(right.length), 'folder', undefined]) {
    await rm(path)
    if (damaged === 'folder') await mkdir(path)
    else if (damaged !== undefined) await writeFile(path, damaged)
    const next = await open(dir)
    expect(await next.getObject(digestOf(bytes('a')))).toEqual(Buffer.from('a'))
    expect(await next.numbersOf(tree().digest)).toEqual(numbers)
    expect(await readFile(path)).toEqual(right)
    await next.close()
  }
  expect((await readdir(dir)).filter((name) => name.startsWith('.'))).toEqual([])
})

test('a damaged version file is mended in its place, where others hold their locks', async () => {
  const dir = await folder()
  const first = await open(dir)
  await writeFile(join(dir, 'tmp', 'half'), 'x')
  await flip(join(dir, 'version'), 16)
  const second = await open(dir)
  // it is not alone
  expect(await readdir(join(dir, 'tmp'))).toEqual(['half'])
  await first.close()
  await second.close()
})

test('damaged files that were set aside go at the next start', async () => {
  const dir = await folder()
  const kept = tree()
  const store = await open(dir)
  await store.keepLayer(LAYER, RECORD, kept)
  await flip(join(dir, 'trees', hex(kept.digest), 'image'), 3)
  expect(await store.openImage(kept.digest)).toBeUndefined()
  await store.close()
  expect(await below(join(dir, 'trees', hex(kept.digest)))).toEqual(['image.corrupt'])
  const size = await sizeOf(dir)
  expect(size.aside).toBeGreaterThan(0)
  expect(size.bytes).toBeGreaterThan(size.aside)
  await (await open(dir)).close()
  expect(await below(join(dir, 'trees', hex(kept.digest)))).toEqual([])
  expect((await sizeOf(dir)).aside).toBe(0)
})

test('an image that is damaged is replaced by what is built, however long it is and whatever else is damaged', async () => {
  const dir = await folder()
  const kept = tree()
  const path = join(dir, 'trees', hex(kept.digest), 'image')
  for (const also of ['record.json', 'chunks']) {
    const store = await open(dir)
    await store.keepLayer(LAYER, RECORD, kept)
    await flip(path, 3)
    await flip(join(dir, 'layers', hex(LAYER), also), 20)
    expect(await store.layer(LAYER)).toBeUndefined()
    await store.keepLayer(LAYER, RECORD, kept)
    const image = await store.openImage(kept.digest)
    expect(image).toBeDefined()
    await image?.close()
    await store.close()
  }
})

test('records that changed places say nothing', async () => {
  const dir = await folder()
  const other = digestOf(bytes('other layer'))
  const store = await open(dir)
  await store.keepLayer(LAYER, RECORD, tree(5))
  await store.keepLayer(other, RECORD, tree(6))
  const [one, two] = [LAYER, other].map((each) => join(dir, 'layers', hex(each))) as [string, string]
  await rename(one, `${one}.x`)
  await rename(two, one)
  await rename(`${one}.x`, two)
  expect(await store.layer(LAYER)).toBeUndefined()
  expect(await store.layer(other)).toBeUndefined()
  await store.tags.keep('a', 'linux/amd64', LAYER)
  await store.tags.keep('b', 'linux/amd64', other)
  for (const names of ['references', 'twins/references']) {
    const [first = '', second = ''] = (await readdir(join(dir, names))).map((each) => join(dir, names, each))
    await rename(first, `${first}.x`)
    await rename(second, first)
    await rename(`${first}.x`, second)
  }
  expect(await store.tags.of('a', 'linux/amd64')).toBeUndefined()
  expect(await store.tags.of('b', 'linux/amd64')).toBeUndefined()
  await store.close()
})

test('a folder in the place of a file, and a file in the place of a folder, are damage like any other', async () => {
  const dir = await folder()
  const kept = tree()
  const object = bytes('object')
  const store = await open(dir)
  const fill = async (of: Store) => {
    await of.putObject(digestOf(object), object)
    await of.keepLayer(LAYER, RECORD, kept)
    await of.tags.keep('a', 'b', LAYER)
    await of.numbersOf(kept.digest)
    await (await of.openSlots(kept.digest, kept.chunks)).close()
  }
  await fill(store)
  await store.close()
  const names = (await below(dir)).filter((name) => name !== 'version')
  for (const name of names) {
    const path = join(dir, name)
    const found = await stat(path).catch(() => undefined)
    await rm(path, { recursive: true, force: true })
    if (found?.isDirectory()) await writeFile(path, 'x')
    else if (found !== undefined) await mkdir(path)
    const next = await open(dir)
    await next.layer(LAYER)
    await next.getObject(digestOf(object))
    await next.tags.of('a', 'b')
    await (await next.openImage(kept.digest))?.close()
    await fill(next)
    expect(await next.layer(LAYER), name).toBeDefined()
    expect(await next.getObject(digestOf(object)), name).toEqual(Buffer.from(object))
    const image = await next.openImage(kept.digest)
    expect(image, name).toBeDefined()
    await image?.close()
    await next.close()
  }
})

test('a cache of another version that is in use is left alone', async () => {
  const dir = await folder()
  const store = await open(dir)
  await writeFile(join(dir, 'version'), 'lazylayer cache 1\n')
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
      () => store.tags.keep('a', 'b', LAYER),
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
      if (made instanceof Device) await made.close()
    }
    expect(await store.layer(LAYER)).toBeDefined()
    expect(store.counters.corruptDevices).toBe(0)
    await store.close()
  },
)
