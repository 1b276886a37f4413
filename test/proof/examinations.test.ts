import type { StatsFs } from 'node:fs'
import fs, { open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setImmediate as turn } from 'node:timers/promises'
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, onTestFinished, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import type { Blob } from '../../src/image/blob.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { Copies } from '../../src/layer/candidates.ts'
import type { OpenLayer } from '../../src/layer/layer.ts'
import { Examinations } from '../../src/proof/examinations.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import type { Claim } from '../../src/store/proofs.ts'
import { READY_VERIFIED } from '../../src/tree/ready.ts'
import { MemoryBlob, sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { contents, lazyLayer, openCache, openFiles } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { type Toc, withToc } from './liar.ts'

/** Of what comes about by itself; not a duration that matters. */
const WAIT_MS = 120_000

const FILES = { 'bin/good': 'good', 'bin/evil': 'evil', large: 'x'.repeat(100_000) }
const ORIGIN = 'example.com'

interface Whole {
  blob: StoredBlob
  /** How often all of it was read. */
  streams: number
}

/** A blob that can be read whole, as a registry's can. */
function wholeOf(bytes: Uint8Array, origin = ORIGIN): Whole {
  const whole: Whole = {
    streams: 0,
    blob: {
      digest: digestOf(bytes),
      size: bytes.length,
      origin,
      read: async ({ start, end }) => new Uint8Array(bytes.subarray(start, end)),
      stream: async (take) => {
        whole.streams++
        for (let at = 0; at < bytes.length; at += 10_000) await take(bytes.subarray(at, at + 10_000))
      },
    },
  }
  return whole
}

async function made(change?: (toc: Toc) => void) {
  const honest = await lazyLayer(FILES)
  const old = Uint8Array.from(await honest.blob.read({ start: 0, end: honest.descriptor.size }))
  const { descriptor, bytes } =
    change === undefined ? { ...honest, bytes: old } : withToc(honest.descriptor, old, change)
  return { descriptor, blob: new MemoryBlob(bytes), bytes, whole: wholeOf(bytes), tar: gunzipSync(bytes) }
}

/** A registry that stands still. */
function untilAborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, fail) => signal?.addEventListener('abort', () => fail(signal.reason)))
}

/** The same tar without an index. */
function plain(tar: Uint8Array, how: 'gzip' | 'zstd' | 'none' = 'gzip') {
  const bytes = how === 'none' ? tar : how === 'zstd' ? zstdCompressSync(tar) : gzipSync(tar)
  const mediaType = `application/vnd.oci.image.layer.v1.tar${how === 'none' ? '' : `+${how}`}`
  const descriptor: Descriptor = { mediaType, digest: digestOf(bytes), size: bytes.length, annotations: {} }
  return { descriptor, whole: wholeOf(bytes) }
}

/** A layer without an index, read whole. */
async function served() {
  const dir = await folder()
  const { tar } = await made()
  const { descriptor, whole } = plain(tar)
  const cache = await openCache(dir)
  const layer = (await cache.layers.openWhole(descriptor, whole.blob, true)) as OpenLayer
  await cache.layers.prove(layer, whole.blob)
  return { dir, cache, descriptor, whole, layer }
}

async function isComplete(layer: OpenLayer): Promise<boolean> {
  return (await layer.slots.states()).every((each) => each === READY_VERIFIED)
}

test('a layer is proven once, over restarts, and is complete then', async () => {
  const dir = await folder()
  const { descriptor, blob, whole, tar } = await made()
  const cache = await openCache(dir)
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  expect(await layer.verdict()).toBeUndefined()
  const proofs = await Promise.all([1, 2, 3].map(() => cache.layers.prove(layer, whole.blob)))
  for (const each of proofs) {
    expect(each).toMatchObject({ verdict: 'proven', diffId: digestOf(tar), tarSize: tar.length })
  }
  expect(whole.streams).toBe(1)
  expect(await isComplete(layer)).toBe(true)
  blob.ranges.length = 0
  expect(await contents(layer, 'bin/good')).toBe('good')
  expect(blob.ranges).toEqual([])
  await cache.close()
  const next = await openCache(dir)
  const again = await next.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  expect(await again.verdict()).toEqual(proofs[0])
  expect(await next.layers.everProven(descriptor.digest)).toBe(true)
  await next.layers.prove(again, whole.blob)
  expect(whole.streams).toBe(1)
  expect(cache.warnings).toEqual([])
})

test('what is proven is filled from its blob, which is here, and from no registry that has the same tree', async () => {
  const { descriptor, blob, whole } = await made()
  const other = await made()
  const cache = await openCache(await folder())
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  await cache.layers.open(unitOf(other.descriptor), sourceOf(other.blob), 'other.example.com')
  blob.ranges.length = 0
  other.blob.ranges.length = 0
  await cache.layers.prove(layer, whole.blob)
  expect(await isComplete(layer)).toBe(true)
  expect([blob.ranges, other.blob.ranges]).toEqual([[], []])
})

test('what is proven is filled from its blob, also when others made room for themselves meanwhile', async () => {
  const { descriptor, blob, whole } = await made()
  const cache = await openCache(await folder())
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const keep = cache.store.proofs.keep.bind(cache.store.proofs)
  vi.spyOn(cache.store.proofs, 'keep').mockImplementation(async (claim, verdict) => {
    await keep(claim, verdict)
    await rm(join(cache.store.dir, 'wholes', hex(descriptor.digest)))
  })
  const find = vi.spyOn(cache.store.wholes, 'find')
  expect(await cache.layers.prove(layer, whole.blob)).toMatchObject({ verdict: 'proven' })
  expect(await isComplete(layer)).toBe(true)
  expect(whole.streams).toBe(1)
  expect(find).toHaveBeenCalledTimes(3) // whether it is here, again in its turn, and when it is
})

test('what was proven, and is complete, needs no blob; what is incomplete is filled', async () => {
  const dir = await folder()
  const { descriptor, blob, whole } = await made()
  const cache = await openCache(dir)
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  await cache.examinations.verdict(layer, whole.blob)
  expect(await isComplete(layer)).toBe(false)
  await cache.layers.prove(layer, whole.blob)
  expect(await isComplete(layer)).toBe(true)
  const find = vi.spyOn(cache.store.wholes, 'find')
  await cache.layers.prove(layer, whole.blob)
  expect(find).not.toHaveBeenCalled()
})

const entry = (toc: Toc, name: string) => toc.entries.find((each) => each.name === name) as Record<string, unknown>

test.each<[string, (toc: Toc) => void, RegExp]>([
  [
    'another file’s contents',
    (toc) => {
      const [good, evil] = [entry(toc, 'bin/good'), entry(toc, 'bin/evil')]
      const { chunkDigest, offset, innerOffset = 0 } = evil
      Object.assign(good, { chunkDigest, offset, innerOffset })
    },
    /bin\/good/,
  ],
  ['a set-user-ID bit', (toc) => void Object.assign(entry(toc, 'bin/good'), { mode: 0o4755 }), /bin\/good/],
  [
    'a file that is not there',
    (toc) => void toc.entries.push({ name: 'bin/su', type: 'symlink', linkName: 'evil', mode: 0o777 }),
    /bin\/su/,
  ],
  ['a file less', (toc) => void toc.entries.splice(toc.entries.indexOf(entry(toc, 'bin/good')), 1), /bin\/good/],
])(
  'an index that shows %s is refuted: its layer is quarantined under every name, for ever, loudly',
  async (_, change, path) => {
    const dir = await folder()
    const { descriptor, blob, whole } = await made(change)
    const cache = await openCache(dir)
    const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
    const told: Claim[] = []
    cache.examinations.quarantine.watch((claim) => {
      expect(cache.examinations.quarantine.of(layer)?.why).toMatch(path)
      told.push(claim)
    })
    expect(await cache.layers.prove(layer, whole.blob)).toMatchObject({
      verdict: 'refuted',
      why: expect.stringMatching(path),
    })
    expect(cache.warnings).toEqual([expect.stringMatching(/is quarantined/)])
    expect(told).toEqual([{ blob: descriptor.digest, tree: layer.tree }])
    expect(cache.examinations.quarantine.size).toBe(1)
    await cache.layers.prove(layer, whole.blob)
    expect(told).toHaveLength(1)
    const quarantined = { code: 'corrupt', message: expect.stringContaining('is quarantined') }
    await expect(cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)).rejects.toMatchObject(quarantined)
    await expect(cache.layers.open(unitOf(descriptor), sourceOf(blob), 'elsewhere')).rejects.toMatchObject(quarantined)
    await expect(cache.examinations.split(layer, whole.blob)).rejects.toMatchObject(quarantined)
    expect(await cache.layers.everProven(descriptor.digest)).toBe(false)
    await cache.close()
    const next = await openCache(dir)
    await expect(next.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)).rejects.toMatchObject(quarantined)
  },
)

test('a liar is quarantined though the verdict cannot be kept', async () => {
  const cache = await openCache(await folder())
  const { descriptor, blob, whole } = await made((toc) => void Object.assign(entry(toc, 'bin/good'), { mode: 0o4755 }))
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const file = await open(cache.store.dir)
  const full = vi.spyOn(Object.getPrototypeOf(file), 'writeFile')
  await file.close()
  onTestFinished(() => full.mockRestore())
  // between the verdict and its record
  cache.examinations.quarantine.watch(() => {
    full.mockRejectedValueOnce(Object.assign(new Error('ENOSPC: write'), { code: 'ENOSPC' }))
  })
  await expect(cache.layers.prove(layer, whole.blob)).rejects.toMatchObject({ code: 'system' })
  expect(cache.examinations.quarantine.of(layer)).toMatchObject({ verdict: 'refuted' })
})

test('bytes that are not the blob’s prove nothing', async () => {
  const cache = await openCache(await folder())
  const { descriptor, blob, bytes } = await made()
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const flipped = Uint8Array.from(bytes)
  flipped[100] = (flipped[100] as number) ^ 1
  const other = { ...wholeOf(flipped).blob, digest: descriptor.digest }
  await expect(cache.layers.prove(layer, other)).rejects.toMatchObject({ code: 'corrupt' })
  expect(await layer.verdict()).toBeUndefined()
  expect(await readdir(join(cache.store.dir, 'wholes'))).toEqual([])
  expect(await readdir(join(cache.store.dir, 'tmp'))).toEqual([])
})

test.each(['gzip', 'zstd', 'none'] as const)(
  'a layer without an index (%s) is served from its tar, without a request after a restart',
  async (how) => {
    const dir = await folder()
    const { tar } = await made()
    const { descriptor, whole } = plain(tar, how)
    const cache = await openCache(dir)
    expect(await cache.layers.openWhole(descriptor, whole.blob, false)).toBeUndefined()
    expect(whole.streams).toBe(0)
    const layer = (await cache.layers.openWhole(descriptor, whole.blob, true)) as OpenLayer
    expect(await cache.layers.prove(layer, whole.blob)).toMatchObject({ verdict: 'proven', diffId: digestOf(tar) })
    expect(layer.indexDigest).toBeUndefined()
    expect(await isComplete(layer)).toBe(true)
    for (const [path, text] of Object.entries(FILES)) expect(await contents(layer, path)).toBe(text)
    await cache.close()
    const next = await openCache(dir)
    const again = (await next.layers.openWhole(descriptor, whole.blob, false)) as OpenLayer
    expect(await again.verdict()).toMatchObject({ diffId: digestOf(tar) })
    for (const [path, text] of Object.entries(FILES)) expect(await contents(again, path)).toBe(text)
    expect(whole.streams).toBe(1)
    expect(cache.warnings).toEqual([])
  },
)

test('what was damaged of it on disk comes out of the tar again, which is decompressed again', async () => {
  const { dir, cache, descriptor, whole, layer } = await served()
  const device = join(dir, 'trees', hex(layer.tree), 'device')
  await cache.close()
  const damaged = await readFile(device)
  await writeFile(
    device,
    damaged.map((each) => each ^ 1),
  )
  const next = await openCache(dir)
  const again = (await next.layers.openWhole(descriptor, whole.blob, false)) as OpenLayer
  for (const [path, text] of Object.entries(FILES)) expect(await contents(again, path)).toBe(text)
  expect(whole.streams).toBe(1) // the blob is still there
})

test.each(['first', 'last'])(
  'a tar that is gone comes from another registry when the one asked %s fails',
  async (failing) => {
    const { dir, cache, descriptor, whole, layer } = await served()
    const device = join(dir, 'trees', hex(layer.tree), 'device')
    await cache.close()
    await writeFile(device, Buffer.alloc((await readFile(device)).length, 1))
    await rm(join(dir, 'wholes', hex(descriptor.digest)))
    const expired: StoredBlob = { ...whole.blob, stream: () => Promise.reject(Failure.denied('credentials expired')) }
    const next = await openCache(dir)
    const sources = failing === 'first' ? [whole.blob, expired] : [expired, whole.blob]
    const open = (each: StoredBlob) => next.layers.openWhole(descriptor, each, false)
    const layers = await Promise.all(sources.map(open))
    for (const [path, text] of Object.entries(FILES)) expect(await contents(layers[0] as OpenLayer, path)).toBe(text)
    expect(whole.streams).toBe(2)
  },
)

test('a tar that nobody reads is let go of after a while', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    const { dir } = await served()
    const open = async () => (await openFiles(join(dir, 'tmp'))).length
    expect(await open()).toBe(1)
    await vi.advanceTimersByTimeAsync(61_000)
    await vi.waitFor(async () => expect(await open()).toBe(0), WAIT_MS)
  } finally {
    vi.useRealTimers()
  }
})

test('the exact blob and the tar-split of a layer are made once, and again when they are gone', async () => {
  const dir = await folder()
  const { descriptor, blob, bytes, whole } = await made()
  const cache = await openCache(dir)
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const read = async (file: { fd: number; close(): Promise<void> }) => {
    const found = await readFile(`/proc/self/fd/${file.fd}`)
    await file.close()
    return found
  }
  const wholes = cache.examinations
  const blobs = await Promise.all([1, 2].map(async () => await read(await wholes.blob(whole.blob))))
  for (const each of blobs) expect(each.equals(bytes)).toBe(true)
  const split = await read(await wholes.split(layer, whole.blob))
  const lines = gunzipSync(split).toString().trimEnd().split('\n')
  expect(lines.map((line) => JSON.parse(line).position)).toEqual(lines.keys().toArray())
  expect(whole.streams).toBe(1)
  for (const name of await readdir(join(dir, 'wholes'))) await writeFile(join(dir, 'wholes', name), 'damaged')
  expect(gunzipSync(await read(await wholes.split(layer, whole.blob)))).toEqual(gunzipSync(split))
  expect(whole.streams).toBe(2)
})

test('what was fetched whole is not fetched again in ranges, nor after a restart; what is damaged of it is', async () => {
  const dir = await folder()
  const { descriptor, blob, whole } = await made()
  const cache = await openCache(dir)
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  await (await cache.examinations.blob(whole.blob)).close() // as an engine's `save` has it
  blob.ranges.length = 0
  expect(await contents(layer, 'large')).toBe('x'.repeat(100_000))
  expect([whole.streams, blob.ranges]).toEqual([1, []])
  await cache.close()
  await rm(join(dir, 'trees'), { recursive: true }) // the device, too
  const next = await openCache(dir)
  const again = await next.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  blob.ranges.length = 0
  expect(await contents(again, 'bin/good')).toBe('good')
  expect(blob.ranges).toEqual([])
  const path = join(dir, 'wholes', hex(descriptor.digest))
  await writeFile(path, Buffer.alloc(descriptor.size))
  expect(await contents(again, 'bin/evil')).toBe('evil')
  expect(blob.ranges).not.toEqual([])
  await rm(path)
  expect(await contents(again, 'large')).toBe('x'.repeat(100_000))
})

test('a tar that can be read in two ways is left to the engine', async () => {
  const cache = await openCache(await folder())
  const { descriptor, whole } = plain(new TextEncoder().encode('no tar at all'.repeat(100)))
  await expect(cache.layers.openWhole(descriptor, whole.blob, true)).rejects.toMatchObject({ code: 'corrupt' })
  expect(await readdir(join(cache.store.dir, 'tmp'))).toEqual([])
})

test('a registry that stands still, or lies, keeps nobody from another’s copy of the same layer', async () => {
  const { tar } = await made()
  const { descriptor, whole } = plain(tar)
  const stalls: StoredBlob = {
    ...whole.blob,
    origin: 'stalls.example.com',
    stream: (_, options) => untilAborted(options?.signal),
  }
  const cache = await openCache(await folder())
  const waiting = cache.layers.openWhole(descriptor, stalls, true)
  const lies: StoredBlob = { ...whole.blob, stream: (take) => take(new Uint8Array(descriptor.size)) }
  await expect(cache.layers.openWhole(descriptor, lies, true)).rejects.toMatchObject({ code: 'corrupt' })
  const layer = await cache.layers.openWhole(descriptor, whole.blob, true)
  expect(await contents(layer as OpenLayer, 'bin/good')).toBe('good')
  expect((await waiting)?.slots).toBe(layer?.slots) // the blob is here: its own registry need not bring it
  expect(await readdir(join(cache.store.dir, 'tmp'))).toEqual([])
})

test('of two who prove a layer from two registries the second finds the verdict, also when its blob comes just after', async () => {
  const { descriptor, blob, bytes, whole } = await made()
  const cache = await openCache(await folder())
  const examine = vi.spyOn(cache.builder, 'examine')
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const released = Promise.withResolvers<void>()
  const other = wholeOf(bytes, 'other.example.com')
  const slow: StoredBlob = {
    ...other.blob,
    stream: async (take) => {
      await released.promise
      await other.blob.stream(take)
    },
  }
  const second = cache.examinations.verdict(layer, slow)
  const first = await cache.examinations.verdict(layer, whole.blob)
  released.resolve()
  expect(await second).toEqual(first)
  expect([whole.streams, other.streams]).toEqual([1, 1])
  expect(examine).toHaveBeenCalledTimes(1)
})

test('a layer’s tar is read once for its tree and the proof of an index', async () => {
  const { descriptor, blob, whole } = await made()
  const cache = await openCache(await folder())
  const { builder } = cache
  const examined = builder.examine.bind(builder)
  const both = Promise.withResolvers<void>()
  const examine = vi.spyOn(builder, 'examine').mockImplementation(async (...of) => {
    await both.promise
    return await examined(...of)
  })
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const file = await cache.examinations.blob(whole.blob)
  await file.close()
  const verdict = cache.examinations.verdict(layer, whole.blob)
  await vi.waitFor(() => expect(examine).toHaveBeenCalled(), WAIT_MS)
  const find = vi.spyOn(cache.store.wholes, 'find')
  const opening = cache.layers.openWhole({ ...descriptor, annotations: {} }, whole.blob, true)
  await vi.waitFor(() => expect(find).toHaveBeenCalled(), WAIT_MS)
  await Promise.all(find.mock.results.map(({ value }) => value))
  await turn() // it has the blob, and waits
  both.resolve()
  const plainly = (await opening) as OpenLayer
  expect(await verdict).toMatchObject({ verdict: 'proven' })
  expect(await plainly.verdict()).toMatchObject({ verdict: 'proven' })
  for (const [path, text] of Object.entries(FILES)) expect(await contents(plainly, path)).toBe(text)
  expect(examine).toHaveBeenCalledTimes(1)
})

test('a layer without an index whose proof is lost is read once for its tree and its verdict', async () => {
  const { dir, cache, descriptor, whole, layer } = await served()
  const verdict = await layer.verdict()
  await cache.close()
  for (const each of ['proofs', 'twins/proofs']) await rm(join(dir, each), { recursive: true })
  const next = await openCache(dir)
  const examine = vi.spyOn(next.builder, 'examine')
  const again = (await next.layers.openWhole(descriptor, whole.blob, false)) as OpenLayer
  expect(await again.verdict()).toBeUndefined()
  const { examinations: wholes } = next
  const asked = [
    wholes.tree(descriptor, new Copies(whole.blob, ORIGIN)),
    wholes.verdict(again, whole.blob),
    wholes.verdict(again, wholeOf(await readFile(join(dir, 'wholes', hex(descriptor.digest)))).blob),
  ] as const
  expect((await asked[0]).digest).toBe(again.tree)
  expect(await Promise.all(asked.slice(1))).toEqual([verdict, verdict])
  expect(examine).toHaveBeenCalledTimes(1)
})

test('a tree does not fail with the proof of an index that it waited for', async () => {
  const { descriptor, blob, whole } = await made()
  const cache = await openCache(await folder())
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const failed = Promise.withResolvers<never>()
  const examine = vi.spyOn(cache.builder, 'examine').mockImplementationOnce(() => failed.promise)
  const { examinations: wholes } = cache
  const verdict = expect(wholes.verdict(layer, whole.blob)).rejects.toMatchObject({ code: 'limit' })
  await vi.waitFor(() => expect(examine).toHaveBeenCalled(), WAIT_MS)
  const find = vi.spyOn(cache.store.wholes, 'find')
  const tree = wholes.tree(descriptor, new Copies(whole.blob, ORIGIN))
  await Promise.all(find.mock.results.map(({ value }) => value))
  await turn() // it has the blob, and waits
  failed.reject(Failure.limit('the tree that is served needs too much memory'))
  await verdict
  expect((await tree).image.length).toBeGreaterThan(0)
  expect(examine).toHaveBeenCalledTimes(2)
})

test('two layers that are examined at once are not promised the same room', async () => {
  const cache = await openCache(await folder())
  const layers = await Promise.all(['one', 'two'].map((text) => lazyLayer({ text })))
  const free = 2 ** 30
  const statfs = vi
    .spyOn(fs, 'statfs')
    .mockImplementation(async () => ({ bavail: free / 4096, bsize: 4096 }) as StatsFs)
  onTestFinished(() => statfs.mockRestore())
  const both = Promise.withResolvers<void>()
  const promised: number[] = []
  const { builder } = cache
  const examine = builder.examine.bind(builder)
  vi.spyOn(builder, 'examine').mockImplementation(async (work, options) => {
    if (promised.push(work.tarMaxBytes) === 2) both.resolve()
    await both.promise
    return await examine(work, options)
  })
  const proofs = layers.map(async ({ descriptor, blob }) => {
    const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
    const bytes = await blob.read({ start: 0, end: blob.size })
    return await cache.layers.prove(layer, wholeOf(bytes).blob)
  })
  for (const each of proofs) expect(await each).toMatchObject({ verdict: 'proven' })
  expect(promised.sort((a, b) => b - a)).toEqual([free / 2, free / 4])
})

test('files stay open until the thread that has them has ended, and the agent as long', async () => {
  const { descriptor, whole } = await made()
  const { store } = await openCache(await folder())
  const begun = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<never>()
  const examine = () => {
    begun.resolve()
    return ended.promise
  }
  const agent = new AbortController()
  const wholes = new Examinations(store, { examine, examineRaw: examine }, () => {}, agent.signal)
  const tree = expect(wholes.tree(descriptor, new Copies(whole.blob, ORIGIN))).rejects.toThrow('at last')
  await begun.promise
  agent.abort()
  let closed = false
  const closing = wholes.close().then(() => {
    closed = true
  })
  expect(await openFiles(join(store.dir, 'tmp'))).toHaveLength(2)
  expect(closed).toBe(false)
  ended.reject(new Error('at last'))
  await tree
  await closing
  expect(await openFiles(join(store.dir, 'tmp'))).toHaveLength(0)
})

test('a proof waits for no other layer, nor fails with it', async () => {
  const { descriptor, blob, whole } = await made()
  const other = await lazyLayer({ other: 'other' })
  const cache = await openCache(await folder())
  const layer = await cache.layers.open(unitOf(descriptor), sourceOf(blob), ORIGIN)
  const never: Blob = {
    ...other.blob,
    digest: other.blob.digest,
    size: other.blob.size,
    read: (_, options) => untilAborted(options?.signal),
  }
  void cache.layers.open(unitOf(other.descriptor), sourceOf(never), 'stalling').catch(() => {})
  const broken: Blob = { ...never, read: () => Promise.reject(Failure.unavailable('away')) }
  cache.layers.open(unitOf(other.descriptor), sourceOf(broken), 'broken').catch(() => {}) // that one’s own trouble
  expect(await cache.layers.prove(layer, whole.blob)).toMatchObject({ verdict: 'proven' })
  expect((await openFiles(join(cache.store.dir, 'tmp'))).length).toBe(0)
})
