import { writeSync } from 'node:fs'
import fs, { open as openFile, readdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, onTestFinished, test, vi } from 'vitest'
import { digestOf, hex } from '../../src/image/digest.ts'
import { MemoryFiles } from '../../src/store/memory-files.ts'
import { Store } from '../../src/store/store.ts'
import { READY_HEADER_BYTES, READY_MISSING, READY_STORED, READY_VERIFIED } from '../../src/tree/ready.ts'
import { CHUNK_BYTES, write } from './chunks.ts'
import { disk } from './disk.ts'
import { flock } from './flock.ts'
import { folder } from './folder.ts'
import { LAYER, RECORD, tree } from './layer.ts'

const LIMITS = { max: { bytes: 2 ** 30 }, minFree: { bytes: 0 } }
const bytes = (of: string) => new TextEncoder().encode(of)

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

async function open(dir: string) {
  const warnings: string[] = []
  const store = await Store.open(dir, flock, (message) => warnings.push(message), { disk: disk(), limits: LIMITS })
  onTestFinished(() => store.close())
  return { store, warnings }
}

/** From now on no new file gets contents, until the function is called. */
async function fill(dir: string): Promise<() => void> {
  const probe = await openFile(dir)
  const full = vi.spyOn(Object.getPrototypeOf(probe), 'writeFile')
  await probe.close()
  full.mockRejectedValue(Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' }))
  return () => full.mockRestore()
}

/** From now on nothing below `dir` is opened for writing. */
function writeProtect(dir: string): void {
  const real = fs.open
  vi.spyOn(fs, 'open').mockImplementation((path, flags, mode) =>
    String(path).startsWith(dir) && typeof flags === 'string' && /[wa+]/.test(flags)
      ? Promise.reject(Object.assign(new Error('EROFS: open'), { code: 'EROFS' }))
      : real(path, flags, mode),
  )
}

test('what a full disk does not take is kept in memory, is used as if it were on disk, and goes there when it is taken', async () => {
  const dir = await folder()
  const { store, warnings } = await open(dir)
  const kept = tree()
  const object = bytes('{"schemaVersion":2}')
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const empty = await fill(dir)
  await store.putObject(digestOf(object), object)
  await store.keepLayer(LAYER, RECORD, kept)
  await store.tags.keep('registry.example.com/a:b', 'linux/amd64', digestOf(object))
  expect(await store.getObject(digestOf(object))).toEqual(object)
  expect(await store.layer(LAYER)).toMatchObject({ record: RECORD, tree: kept.digest })
  const image = await store.openImage(kept.digest)
  expect(new Uint8Array((await image?.readFile()) ?? [])).toEqual(kept.image)
  await image?.close()
  const device = await store.openSlots(kept.digest, kept.chunks)
  await device.fill(1, write)
  expect([0, 1].map((chunk) => device.state(chunk))).toEqual([READY_MISSING, READY_VERIFIED])
  const read = new Uint8Array(CHUNK_BYTES)
  await device.read(read, CHUNK_BYTES, [1], () => Promise.reject(new Error('nothing is missing')))
  expect(new Set(read)).toEqual(new Set([2]))
  await device.close()
  expect(await readdir(join(dir, 'objects'))).toEqual([])
  expect(warnings.filter((each) => each.includes('takes no more'))).toHaveLength(1)

  empty()
  await vi.advanceTimersByTimeAsync(5_000)
  await expect.poll(() => readdir(join(dir, 'layers')).then((names) => names.length)).toBe(1)
  await expect.poll(() => readdir(join(dir, 'layers', hex(LAYER)))).toEqual(['chunks', 'record.json'])
  expect(await readdir(join(dir, 'objects'))).toEqual([hex(digestOf(object))])
  const later = await open(dir)
  expect(await later.store.layer(LAYER)).toMatchObject({ record: RECORD, tree: kept.digest })
  await (await later.store.openImage(kept.digest))?.close()
  expect(later.warnings).toEqual([])
})

test('numbers that a full disk does not take are given to one tree alone, stay, and are no others’ later', async () => {
  const dir = await folder()
  const { store } = await open(dir)
  const [one, other, third] = [tree(1, 'one'), tree(2, 'other'), tree(3, 'third')]
  for (const each of [one, other, third]) await store.keepLayer(each.digest, RECORD, each)
  const onDisk = await store.numbersOf(one.digest)
  const empty = await fill(dir)
  const inMemory = await store.numbersOf(other.digest)
  expect(await store.numbersOf(one.digest)).toEqual(onDisk)
  const nids = Math.ceil(other.image.length / 32)
  expect(await store.numbersOf(other.digest, 'there')).toEqual({
    slot: inMemory.slot - 1,
    inodeBase: inMemory.inodeBase + nids,
  })
  empty()
  expect(await store.numbersOf(other.digest)).toEqual(inMemory)
  expect(await store.numbersOf(third.digest)).toEqual({ slot: 2, inodeBase: Math.ceil(one.image.length / 32) })
})

test('a cache that cannot be written is started on, and what it has is verified and served; what comes goes to memory', async () => {
  const dir = await folder()
  const kept = tree(4)
  const before = await open(dir)
  await before.store.keepLayer(LAYER, RECORD, kept)
  const filled = await before.store.openSlots(kept.digest, kept.chunks)
  for (const chunk of [0, 1]) await filled.fill(chunk, write)
  await filled.close()
  await before.store.close()

  writeProtect(dir)
  const { store, warnings } = await open(dir)
  expect(await store.layer(LAYER)).toMatchObject({ tree: kept.digest })
  const device = await store.openSlots(kept.digest, kept.chunks)
  onTestFinished(() => device.close())
  const all = [0, 1, 2, 3]
  expect(device.statesOf(all)).toEqual([READY_STORED, READY_STORED, READY_MISSING, READY_MISSING])
  // as a worker does that has read the chunk back
  await device.check(0, async ({ readyFd, chunk }) =>
    writeSync(readyFd, Uint8Array.of(READY_VERIFIED), 0, 1, READY_HEADER_BYTES + chunk),
  )
  await device.fill(2, write)
  expect(device.statesOf(all)).toEqual([READY_VERIFIED, READY_STORED, READY_VERIFIED, READY_MISSING])
  for (const chunk of [0, 2]) {
    const read = new Uint8Array(CHUNK_BYTES)
    await device.read(read, chunk * CHUNK_BYTES, [chunk], () => Promise.reject(new Error('nothing is missing')))
    expect(new Set(read)).toEqual(new Set([chunk + 1]))
  }
  expect(await device.hold()).toBeUndefined() // the kernel's own mount could not be marked
  expect(warnings).toEqual([expect.stringContaining('the cache takes no more')])
})

test('where nothing can be made of a new cache, all is in memory, and the cache is made as soon as that is possible', async () => {
  const dir = join(await folder(), 'cache')
  const mkdir = vi.spyOn(fs, 'mkdir')
  mkdir.mockRejectedValue(Object.assign(new Error('ENOSPC: mkdir'), { code: 'ENOSPC' }))
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  const { store, warnings } = await open(dir)
  const kept = tree()
  await store.keepLayer(LAYER, RECORD, kept)
  expect(await store.layer(LAYER)).toMatchObject({ tree: kept.digest })
  const device = await store.openSlots(kept.digest, kept.chunks)
  await device.fill(1, write)
  expect(device.state(1)).toBe(READY_VERIFIED)
  await device.close()
  expect((await store.numbersOf(kept.digest)).slot).toBeGreaterThan(1000)
  expect(warnings).toEqual([expect.stringContaining('the cache takes no more')])

  mkdir.mockRestore()
  await vi.advanceTimersByTimeAsync(5_000)
  await expect.poll(() => readdir(dir)).toContain('version')
  await expect.poll(() => readdir(join(dir, 'layers', hex(LAYER))).catch(() => [])).toEqual(['chunks', 'record.json'])
  const again = await store.openSlots(kept.digest, kept.chunks)
  await again.close()
  expect(await readdir(join(dir, 'trees', hex(kept.digest)))).toEqual(['device', 'image', 'ready'])
})

test('folders that a full disk took, and no file, are an empty cache to the next start', async () => {
  const dir = join(await folder(), 'cache')
  const empty = await fill(tmpdir())
  const { store, warnings } = await open(dir)
  await store.keepLayer(LAYER, RECORD, tree())
  await store.close()
  expect(await readdir(dir)).toContain('trees')
  const again = await open(dir) // it is still full
  expect([warnings, again.warnings]).toEqual(Array(2).fill([expect.stringContaining('the cache takes no more')]))
  await again.store.close()
  empty()
  const later = await open(dir)
  expect(later.warnings).toEqual([])
  expect(await readdir(dir)).toContain('version')
})

test('a cache of another version that cannot be moved aside is no empty one', async () => {
  const dir = await folder()
  await writeFile(join(dir, 'version'), 'lazylayer cache 1\n')
  vi.spyOn(fs, 'mkdir').mockRejectedValue(Object.assign(new Error('EROFS: mkdir'), { code: 'EROFS' }))
  await expect(open(dir)).rejects.toMatchObject({ code: 'system' })
})

test('memory has a bound; beyond it, whoever keeps something hears of the disk', async () => {
  const files = new MemoryFiles(disk(), 10)
  onTestFinished(() => files.close())
  expect(files.keep('a', bytes('123456'))).toBe(true)
  expect(files.keep('b', bytes('12345'))).toBe(false)
  expect(files.keep('a', bytes('1234567'))).toBe(true) // in place of what was there
  expect([files.bytes, files.get('a'), files.get('b')]).toEqual([7, bytes('1234567'), undefined])
  const open = await files.open('a')
  files.forget('a')
  expect(files.bytes).toBe(0)
  expect(String(await open?.readFile())).toBe('1234567') // whoever has it open keeps it
  await open?.close()
})

test('without what memory needs, a full disk is an error', async () => {
  const dir = await folder()
  const store = await Store.open(dir, flock, () => {})
  onTestFinished(() => store.close())
  await fill(dir)
  await expect(store.keepLayer(LAYER, RECORD, tree())).rejects.toMatchObject({ code: 'system' })
})
