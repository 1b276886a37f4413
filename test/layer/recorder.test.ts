import { expect, test, vi } from 'vitest'
import { digestOf } from '../../src/image/digest.ts'
import type { Profile } from '../../src/image/profile.ts'
import { parseReference } from '../../src/image/reference.ts'
import { Recorder, type WatchedLayer } from '../../src/layer/recorder.ts'
import type { FirstRead } from '../../src/store/device.ts'
import type { KeptProfile } from '../../src/store/profiles.ts'
import { type Chunk, GZIP } from '../../src/tree/chunk.ts'
import { ChunkTable, encodeChunks } from '../../src/tree/chunk-table.ts'
import type { ReadFile } from '../../src/tree/read-files.ts'

const digest = (of: string) => digestOf(new TextEncoder().encode(of))
const image = (of: string) => ({ reference: parseReference('registry.example.com/app:1'), digest: digest(of) })
const PAGE = 4096

/** Of a layer whose files are a chunk each. */
function tableOf(name: string): ChunkTable {
  const chunks = Array.from({ length: 10 }, (_, i): Chunk => {
    const at = i * PAGE
    const range = { start: 0, end: PAGE }
    const check = { of: 'decoded', range, digest: digest(`${name} ${i}`) } as const
    const stored = { start: 1000 + i * 100_000, end: 2000 + i * 100_000 }
    return { blob: 0, stored, size: PAGE, codec: GZIP, checks: [check], places: [{ from: 0, length: PAGE, at }] }
  })
  return new ChunkTable(encodeChunks([{ digest: digest(name), size: 2_000_000 }], chunks, 0, 10 * PAGE, []))
}

/** A layer whose files, a page each, are read by name. */
function layerOf(name: string) {
  const reads: FirstRead[] = []
  const noted = { on: false }
  const layer: WatchedLayer = {
    descriptor: { mediaType: '', digest: digest(name), size: 0, annotations: {} },
    tree: digest(`tree of ${name}`),
    chunks: tableOf(name),
    openImage: async () => ({ readFile: async () => new Uint8Array(), close: async () => {} }) as never,
    slots: {
      noteReads: () => {
        noted.on = true
      },
      takeReads: () => reads.splice(0),
      ignoreReads: () => {
        noted.on = false
      },
    },
  }
  const read = (file: number, ms: number) => reads.push({ at: file * PAGE, end: (file + 1) * PAGE, ms })
  return { layer, read, noted }
}

/** A recorder at a time of its own, and what it keeps. @param cached files that programs read; undefined: who reads is not asked */
function recorderOf(cached?: readonly string[], before?: Profile, from: KeptProfile['from'] = 'start') {
  const time = { now: 100_000 }
  const kept = new Map<string, Profile>()
  const logged: string[] = []
  const began = new Set<string>()
  const recorder = new Recorder({
    profiles: {
      keep: async ({ manifest }, _, profile) => void kept.set(manifest, profile),
      of: async () => before && ({ from, profile: before } as KeptProfile),
    },
    platform: 'linux/amd64',
    filesOf: async (_, reads) =>
      reads.map(({ at }, first): ReadFile => ({ path: `file-${at / PAGE}`, ranges: [], size: PAGE, first })),
    chunksOf: async (_, __, files) => files.map(({ path }) => Number(path.slice('file-'.length))),
    readParts: async (_, parts) => cached && parts.map(({ path }) => cached.includes(path)),
    began: ({ digest }) => void began.add(digest),
    log: (message) => void logged.push(message),
    now: () => time.now,
  })
  const paths = (of: string) => kept.get(digest(of))?.files.map(({ path }) => path)
  return { recorder, time, paths, kept, logged, began }
}

test('what was read until a quiet moment is kept, in its order, over all layers', async () => {
  const { recorder, time, kept } = recorderOf()
  const [low, high] = [layerOf('low'), layerOf('high')]
  recorder.watch(image('a'), low.layer)
  recorder.watch(image('a'), high.layer)
  low.read(7, 100_300)
  high.read(1, 100_200)
  low.read(2, 100_900)
  high.read(9, 120_000) // after the quiet moment
  time.now = 120_001
  recorder.poll()
  await recorder.end()
  const file = (layer: string, path: string) => ({ layer: digest(layer), path, ranges: [] })
  const stored = (...files: number[]) => files.map((i) => ({ start: 1000 + i * 100_000, end: 2000 + i * 100_000 }))
  expect(kept.get(digest('a'))).toEqual({
    files: [file('high', 'file-1'), file('low', 'file-7'), file('low', 'file-2')],
    stored: [
      { layer: digest('low'), ranges: stored(2, 7) },
      { layer: digest('high'), ranges: stored(1) },
    ],
  })
})

test('as long as something new is read, and as long as nothing is, it waits', async () => {
  const { recorder, time, paths } = recorderOf()
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  time.now = 200_000
  recorder.poll()
  read(1, 200_000)
  time.now = 205_000
  recorder.poll()
  expect(recorder.size).toBe(1)
  read(2, 205_000)
  time.now = 216_000
  recorder.poll()
  expect(recorder.size).toBe(0)
  await recorder.end()
  expect(paths('a')).toEqual(['file-1', 'file-2'])
})

test('a layer that was closed after the pull, and is opened again for the start, is noted anew', async () => {
  const { recorder, paths } = recorderOf()
  const [pulled, started] = [layerOf('one'), layerOf('one')]
  recorder.watch(image('a'), pulled.layer)
  recorder.watch(image('a'), started.layer)
  expect(started.noted.on).toBe(true)
  started.read(3, 100_000)
  await recorder.end()
  expect(paths('a')).toEqual(['file-3'])
  expect(started.noted.on).toBe(false)
})

test('the end of a mount is the end of a start', async () => {
  const { recorder, paths } = recorderOf()
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  read(3, 100_000)
  await recorder.end()
  expect(paths('a')).toEqual(['file-3'])
})

test('what the kernel read ahead, and no program read, is not kept', async () => {
  const { recorder, paths } = recorderOf(['file-1', 'file-3'])
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  for (const file of [1, 2, 3]) read(file, 100_000 + file)
  await recorder.end()
  expect(paths('a')).toEqual(['file-1', 'file-3'])
})

test('where nothing was read, nothing is kept', async () => {
  const { recorder, kept } = recorderOf([])
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  recorder.watch(image('b'), layerOf('other').layer)
  read(1, 100_000)
  await recorder.end()
  expect(kept.size).toBe(0)
})

test('a start of which most was in the cache adds to what is known, another replaces it', async () => {
  const known = (...files: number[]) => ({
    files: files.map((i) => ({ layer: digest('one'), path: `file-${i}`, ranges: [] })),
    stored: [],
  })
  const run = async (before: Profile, ...files: number[]) => {
    const { recorder, paths } = recorderOf(undefined, before)
    const { layer, read } = layerOf('one')
    recorder.watch(image('a'), layer)
    for (const [i, file] of files.entries()) read(file, 100_000 + i)
    await recorder.end()
    return paths('a')
  }
  expect(await run(known(1, 2, 3, 4, 5), 6, 2)).toEqual(['file-1', 'file-2', 'file-3', 'file-4', 'file-5', 'file-6'])
  expect(await run(known(1, 2, 3, 4), 6, 2)).toEqual(['file-6', 'file-2'])
})

test('what a registry said of an image does not become what was seen here', async () => {
  const files = [1, 2, 3, 4, 5].map((i) => ({ layer: digest('one'), path: `file-${i}`, ranges: [] }))
  const said = { files, stored: [] }
  const { recorder, paths } = recorderOf(undefined, said, 'registry')
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  read(6, 100_000)
  await recorder.end()
  expect(paths('a')).toEqual(['file-6'])
})

test('of a layer of two images, each is told what was read since it was opened; notes end with the last', async () => {
  const { recorder, time, paths } = recorderOf()
  const { layer, read, noted } = layerOf('shared')
  recorder.watch(image('a'), layer)
  read(1, 100_000)
  time.now = 101_000
  recorder.watch(image('b'), layer)
  read(2, 101_500)
  expect(noted.on).toBe(true)
  await recorder.end()
  expect(noted.on).toBe(false)
  expect([paths('a'), paths('b')]).toEqual([['file-1', 'file-2'], ['file-2']])
})

test('who wants to mount a tree anew waits for the starts that read it', async () => {
  const { recorder, time, paths } = recorderOf()
  const { layer, read } = layerOf('one')
  recorder.watch(image('a'), layer)
  await recorder.over(layer.tree) // nobody reads it yet
  read(1, 100_000)
  let over = false
  const waiting = recorder.over(layer.tree).then(() => {
    over = true
  })
  time.now = 105_000
  recorder.poll()
  await Promise.resolve()
  expect(over).toBe(false)
  time.now = 120_000
  recorder.poll()
  await waiting
  expect(paths('a')).toEqual(['file-1'])
})

test('images that nobody starts are watched for a day, and not more than 64', () => {
  vi.useFakeTimers()
  const { recorder, time } = recorderOf()
  for (let i = 0; i < 70; i++) recorder.watch(image(`${i}`), layerOf(`${i}`).layer)
  expect(recorder.size).toBe(64)
  expect(vi.getTimerCount()).toBe(1)
  time.now += 24 * 60 * 60 * 1000 + 1
  recorder.poll()
  expect(recorder.size).toBe(0)
  expect(vi.getTimerCount()).toBe(0)
  vi.useRealTimers()
})

test('what fails is logged, and fails nobody', async () => {
  const { recorder, logged } = recorderOf()
  const { layer, read } = layerOf('one')
  const broken = { ...layer, openImage: () => Promise.reject(new Error('damaged')) }
  recorder.watch(image('a'), broken)
  read(1, 100_000)
  await recorder.end()
  expect(logged).toEqual([expect.stringContaining('damaged')])
})

test('of an image that is read it is told at once, and not of one that is only watched', () => {
  const { recorder, time, began } = recorderOf()
  const [one, other] = [layerOf('one'), layerOf('other')]
  recorder.watch(image('a'), one.layer)
  recorder.watch(image('b'), other.layer)
  one.read(3, time.now)
  recorder.poll()
  expect([...began]).toEqual([digest('a')])
})
