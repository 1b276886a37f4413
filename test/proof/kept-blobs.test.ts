import type { FileHandle } from 'node:fs/promises'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf } from '../../src/image/digest.ts'
import { Copies } from '../../src/layer/candidates.ts'
import { DiskShare } from '../../src/proof/disk-share.ts'
import { KeptBlobs } from '../../src/proof/kept-blobs.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import { GatheredBlobs } from '../../src/store/gathered-blobs.ts'
import { WholeFiles } from '../../src/store/wholes.ts'
import { noise } from '../codec/fixture.ts'
import { openCache, openFiles } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

const BYTES = new TextEncoder().encode('all of a blob')

let registries = 0

/** A blob whose registry does as `stream` says; each has one of its own. */
function blobOf(stream: StoredBlob['stream'], bytes = BYTES): StoredBlob {
  return {
    digest: digestOf(bytes),
    size: bytes.length,
    origin: `registry${registries++}.example.com`,
    read: () => Promise.reject(new Error('all of it is wanted')),
    stream,
  }
}

const brings = () => blobOf((take) => take(BYTES))
const denies = () => blobOf(() => Promise.reject(Failure.denied('credentials expired')))
const lies = () => blobOf((take) => take(BYTES.toReversed()))
/** Begins, and stands still until it is stopped. */
function stalls(stopped: unknown[] = []) {
  const begun = Promise.withResolvers<void>()
  const blob = blobOf(async (_, options) => {
    begun.resolve()
    const { promise, reject } = Promise.withResolvers<void>()
    options?.signal?.addEventListener('abort', () => {
      stopped.push(blob)
      reject(options.signal?.reason)
    })
    await promise
  })
  return { blob, begun: begun.promise }
}

/** Added in this order. */
function copiesOf(first: StoredBlob, ...others: StoredBlob[]): Copies<StoredBlob> {
  const copies = new Copies(first, first.origin)
  for (const each of others) copies.add(each, each.origin)
  return copies
}

/** @param free bytes that the disk has left */
async function wholeBlobs(free = 2 ** 30) {
  const { store } = await openCache(await folder())
  const agent = new AbortController()
  const clean = async () => {
    expect(await readdir(join(store.dir, 'tmp'))).toEqual([])
    expect(await openFiles(store.dir).then((open) => open.filter((each) => each.includes('/wholes/')))).toEqual([])
  }
  return {
    blobs: new KeptBlobs(store.wholes, new DiskShare(async () => free, 2 ** 40), agent.signal),
    store,
    agent,
    clean,
  }
}

async function contents(file: Promise<FileHandle>): Promise<Uint8Array> {
  const opened = await file
  const bytes = await opened.readFile()
  await opened.close()
  return new Uint8Array(bytes)
}

test('a blob is fetched once from a source, whoever asks, and not at all when it is there', async () => {
  const { blobs, clean } = await wholeBlobs()
  let streams = 0
  const blob = blobOf((take) => {
    streams++
    return take(BYTES)
  })
  for (const each of await Promise.all([1, 2, 3].map(() => contents(blobs.of(blob))))) expect(each).toEqual(BYTES)
  expect(await contents(blobs.of(denies()))).toEqual(BYTES)
  expect(streams).toBe(1)
  await clean()
})

test('what is in memory of a blob counts while it is fetched, however that ends', async () => {
  const { store, agent } = await wholeBlobs()
  const counts: number[] = []
  const counted = (bytes: number) => {
    counts.push(bytes)
    return () => void counts.push(-bytes)
  }
  const room = new DiskShare(async () => 2 ** 30, 2 ** 40)
  const blobs = new KeptBlobs(store.wholes, room, agent.signal, { memory: { counted } })
  const during: number[] = []
  const come = blobOf(async (take) => {
    during.push(...counts)
    await take(BYTES)
  })
  expect(await contents(blobs.of(come))).toEqual(BYTES)
  expect([during.length, counts.length, counts.reduce((sum, each) => sum + each, 0)]).toEqual([1, 2, 0])
  const other = blobOf(() => Promise.reject(new Error('gone')), new Uint8Array(noise(10)))
  await expect(blobs.of(other)).rejects.toThrow('gone')
  expect([counts.length, counts.reduce((sum, each) => sum + each, 0)]).toEqual([4, 0])
})

/** With what was read of a blob before. */
async function gatheredBefore(blob: StoredBlob, ...pieces: [at: number, bytes: Uint8Array][]) {
  const { store, agent, clean } = await wholeBlobs()
  const gathered = new GatheredBlobs({
    begin: () => store.wholes.begin(),
    hasRoom: () => true,
    isWanted: async () => true,
  })
  for (const [at, bytes] of pieces) await gathered.add(blob, at, bytes)
  const room = new DiskShare(async () => 2 ** 30, 2 ** 40)
  return { blobs: new KeptBlobs(store.wholes, room, agent.signal, { gathered }), clean }
}

test('what was read of a blob before is not fetched again', async () => {
  const fetched: [number, number][] = []
  const bytes = new Uint8Array(noise(100_000))
  const blob: StoredBlob = {
    ...blobOf(() => Promise.reject(new Error('only what is missing is wanted')), bytes),
    async read({ start, end }, options) {
      expect(options?.priority).toBe('background')
      fetched.push([start, end])
      return bytes.slice(start, end)
    },
  }
  const before = [0, 40_000, 70_000].map((at): [number, Uint8Array] => [at, bytes.slice(at, at + 29_000)])
  const { blobs, clean } = await gatheredBefore(blob, ...before)
  expect(await contents(blobs.of(blob))).toEqual(bytes)
  expect(fetched).toEqual([
    [29_000, 40_000],
    [69_000, 70_000],
    [99_000, 100_000],
  ])
  await clean()
})

test('where what was read before is wrong, all of it is fetched', async () => {
  const blob = brings()
  const { blobs, clean } = await gatheredBefore(blob, [0, BYTES.toReversed()])
  expect(await contents(blobs.of(blob))).toEqual(BYTES)
  await clean()
})

test.each([
  ['refuses', denies, 'denied'],
  ['lies', lies, 'corrupt'],
] as const)('a registry that %s leaves nothing behind, and is asked again the next time', async (_, source, code) => {
  const { blobs, clean } = await wholeBlobs()
  const blob = source()
  for (let i = 0; i < 2; i++) await expect(blobs.of(blob)).rejects.toMatchObject({ code })
  await clean()
  expect(await contents(blobs.of(brings()))).toEqual(BYTES)
})

test('a blob that one registry has brought is not waited for elsewhere; another blob is', async () => {
  const { blobs, agent, clean } = await wholeBlobs()
  const stopped: unknown[] = []
  const slow = Array.from({ length: 15 }, () => stalls(stopped))
  const waiting = slow.map(({ blob }) => contents(blobs.of(blob)))
  await Promise.all(slow.map(({ begun }) => begun))
  expect(await contents(blobs.of(brings()))).toEqual(BYTES)
  for (const each of waiting) expect(await each).toEqual(BYTES)
  expect(stopped).toHaveLength(15)
  const another = stalls(stopped)
  const refused = expect(blobs.of({ ...another.blob, digest: digestOf(new Uint8Array()) })).rejects.toThrow('the end')
  await another.begun
  agent.abort(new Error('the end'))
  await refused
  await blobs.close()
  await clean()
})

test('a registry brings few blobs at once, and those of others do not wait for it', async () => {
  const { blobs, agent } = await wholeBlobs()
  const slow = Array.from({ length: 5 }, (_, i) => {
    const { blob, begun } = stalls()
    return { blob: { ...blob, digest: digestOf(Uint8Array.of(i)), origin: 'hangs.example.com' }, begun }
  })
  let begun = 0
  const waiting = slow.map((each) => {
    void each.begun.then(() => begun++)
    return expect(blobs.of(each.blob)).rejects.toThrow()
  })
  // whichever four: each looks on disk first
  await expect.poll(() => begun).toBe(4)
  expect(await contents(blobs.of(brings()))).toEqual(BYTES)
  expect(begun).toBe(4)
  agent.abort(new Error('the end'))
  await Promise.all(waiting)
})

test('a blob of which too little comes ends as a timeout; one that is stopped does not', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const { blobs, agent, clean } = await wholeBlobs()
  const slow = stalls()
  const late = expect(blobs.of(slow.blob)).rejects.toMatchObject({
    code: 'timeout',
    message: expect.stringContaining(slow.blob.digest),
    why: expect.stringContaining('900 s'),
  })
  await slow.begun
  await vi.advanceTimersByTimeAsync(900_000)
  await late
  const stopped = stalls()
  const ended = expect(blobs.of(stopped.blob)).rejects.toThrow('the end')
  await stopped.begun
  agent.abort(new Error('the end'))
  await ended
  expect(vi.getTimerCount()).toBe(0)
  await clean()
})

test('a blob that comes slowly may take as long as it needs', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const { blobs, clean } = await wholeBlobs()
  const part = new Uint8Array(32 << 20)
  const all = new Uint8Array(3 * part.length)
  const slow = blobOf(async (take) => {
    for (let i = 0; i < 3; i++) {
      await take(part)
      await vi.advanceTimersByTimeAsync(900_000)
    }
  }, all)
  const file = await blobs.of(slow)
  expect((await file.stat()).size).toBe(all.length)
  await file.close()
  await clean()
})

/** A blob of one registry under several names, each with credentials of its own; `asked` of them, and most of them at once. */
function slowRegistry(count: number) {
  const running: { end(): void; fail(error: Error): void }[] = []
  const seen = { asked: 0, atOnce: 0, most: 0 }
  const names = Array.from({ length: count }, () => ({
    ...blobOf(async (take) => {
      seen.asked++
      seen.most = Math.max(seen.most, ++seen.atOnce)
      const { promise, resolve, reject } = Promise.withResolvers<void>()
      running.push({ end: resolve, fail: reject })
      await promise.finally(() => seen.atOnce--)
      await take(BYTES)
    }),
    origin: 'slow.example.com',
  }))
  /** The one that is running, as soon as there is one. */
  const next = async () => {
    await expect.poll(() => running.length).toBeGreaterThan(0)
    return running.shift() as (typeof running)[0]
  }
  return { names, seen, next }
}

test('a blob that one slow registry has under four names is asked of it once', async () => {
  const { blobs, clean } = await wholeBlobs()
  const { names, seen, next } = slowRegistry(4)
  const waiting = names.map((blob) => contents(blobs.of(blob)))
  const one = await next()
  const [first, ...others] = names as [StoredBlob, ...StoredBlob[]]
  const copies = copiesOf(first, ...others)
  const any = contents(blobs.ofAny(copies))
  await expect.poll(() => seen.asked).toBe(1)
  one.end()
  for (const each of [...waiting, any]) expect(await each).toEqual(BYTES)
  expect(seen).toEqual({ asked: 1, atOnce: 0, most: 1 })
  await clean()
})

test('where one name of it fails the next is asked, one at a time', async () => {
  const { blobs, clean } = await wholeBlobs()
  const { names, seen, next } = slowRegistry(3)
  const [first, ...others] = names as [StoredBlob, ...StoredBlob[]]
  const waiting = contents(blobs.ofAny(copiesOf(first, ...others)))
  for (const _ of [1, 2]) (await next()).fail(Failure.denied('credentials expired'))
  ;(await next()).end()
  expect(await waiting).toEqual(BYTES)
  expect(seen).toMatchObject({ asked: 3, most: 1 })
  await clean()
})

test('what was brought while a fetch waited for its turn is not fetched again', async () => {
  const { store, clean } = await wholeBlobs()
  const asked = Promise.withResolvers<void>()
  const files: ConstructorParameters<typeof KeptBlobs>[0] = {
    async find(digest) {
      const found = await store.wholes.find(digest)
      if (digest === digestOf(BYTES) && found === undefined) asked.resolve()
      return found
    },
    begin: () => store.wholes.begin(),
    keep: (digest, path) => store.wholes.keep(digest, path),
    hash: (file) => store.wholes.hash(file),
  }
  const blobs = new KeptBlobs(files, new DiskShare(async () => 2 ** 30, 2 ** 40), new AbortController().signal)
  const slow = Array.from({ length: 4 }, (_, i) => {
    const [begun, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const bytes = Uint8Array.of(i)
    const blob = blobOf(async (take) => {
      begun.resolve()
      await end.promise
      await take(bytes)
    }, bytes)
    return { blob: { ...blob, origin: 'busy.example.com' }, begun: begun.promise, end: end.resolve }
  })
  const waiting = slow.map(({ blob }) => contents(blobs.of(blob)))
  await Promise.all(slow.map(({ begun }) => begun)) // every turn is taken
  let streams = 0
  const late = blobOf((take) => {
    streams++
    return take(BYTES)
  })
  const last = contents(blobs.of({ ...late, origin: 'busy.example.com' }))
  await asked.promise
  // another process keeps it
  const { file, path } = await store.wholes.begin()
  await file.writeFile(BYTES)
  await file.close()
  await store.wholes.keep(late.digest, path)
  for (const { end } of slow) end()
  expect(await last).toEqual(BYTES)
  expect(streams).toBe(0)
  await Promise.all(waiting)
  await clean()
})

test('a blob that would take more than half of what the disk has left is not fetched; those under way count', async () => {
  const { blobs, clean } = await wholeBlobs(4 * BYTES.length)
  const large = blobOf((take) => take(new Uint8Array(1)), new Uint8Array(2 * BYTES.length + 1))
  await expect(blobs.of(large)).rejects.toMatchObject({ code: 'limit', message: expect.stringContaining(large.digest) })
  const slow = stalls()
  const waiting = contents(blobs.of(slow.blob))
  await slow.begun
  const half = Math.floor((3 * BYTES.length) / 2)
  const other = new Uint8Array(half + 1)
  const refused = blobOf((take) => take(other), other)
  await expect(blobs.of(refused)).rejects.toMatchObject({ code: 'limit', why: expect.stringContaining(` ${half} `) })
  expect(await contents(blobs.of(brings()))).toEqual(BYTES)
  expect(await waiting).toEqual(BYTES)
  expect(await contents(blobs.of(refused))).toEqual(other)
  await clean()
})

test('of copies the one that has it brings it, whichever fails or lies; all that fail tell what the newest said', async () => {
  const { blobs, clean } = await wholeBlobs()
  const failing = copiesOf(lies(), denies())
  await expect(blobs.ofAny(failing)).rejects.toMatchObject({ code: 'denied' })
  const copies = copiesOf(brings(), lies(), denies())
  expect(await contents(blobs.ofAny(copies))).toEqual(BYTES)
  await clean()
})

test('a blob that is brought and cannot be read back is the disk’s failure', async () => {
  const { store } = await wholeBlobs()
  const files = await WholeFiles.open(store.dir, () => {})
  onTestFinished(() => files.close())
  const lost = {
    find: async () => undefined,
    begin: () => files.begin(),
    keep: async () => {},
    hash: files.hash.bind(files),
  }
  const blobs = new KeptBlobs(lost, new DiskShare(async () => 2 ** 30, 2 ** 40), new AbortController().signal)
  await expect(blobs.of(brings())).rejects.toMatchObject({ code: 'system', fix: expect.stringContaining('space') })
})
