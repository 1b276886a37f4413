import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openLink } from '../../bench/link.ts'
import { memoryContent } from '../../src/build/registry.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { Limits } from '../../src/registry/limits.ts'
import type { Fault } from '../fake/faults.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry, testCertificate } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'
import { fetchInto } from './whole.ts'

const SIZE = 8 << 20
const BYTES = pattern(SIZE)

let settings: Settings
let registry: FakeRegistry
let layer: Descriptor
let shelf: MemoryShelf

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  layer = shelf.addBlob(BYTES)
  registry = await startRegistry({ shelf })
  await settings.trust(registry.host, registry.cert)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await registry.close()
})

function source(limits: Partial<Limits> = {}) {
  const registries = settings.registries({ limits })
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  const read = (start: number, end: number, signal?: AbortSignal) => blob.read({ start, end }, signal ? { signal } : {})
  return { registries, blob, read, counters: () => registries.counters() }
}

/** One read of [1000, 5000) under a fault; without a code it must bring the right bytes. */
async function check(
  fault: Omit<Fault, 'match'>,
  code?: string,
  requests = 1,
  limits: Partial<Limits> = {},
): Promise<void> {
  registry.faults = [{ match: /blobs/, ...fault }]
  registry.seen.length = 0
  const reading = source(limits).read(1000, 5000)
  if (code === undefined) expect(await reading).toEqual(BYTES.subarray(1000, 5000))
  else await expect(reading, JSON.stringify(fault)).rejects.toMatchObject({ name: 'Failure', code })
  expect(registry.seen, JSON.stringify(fault)).toHaveLength(requests)
}

test('a read is one request for exactly its range, into memory of its own', async () => {
  const { read, counters } = source()
  const bytes = await read(100, 200)
  expect(bytes).toEqual(BYTES.subarray(100, 200))
  expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
  expect(bytes.byteLength).toBe(bytes.buffer.byteLength)
  expect(registry.seen).toMatchObject([{ range: 'bytes=100-199', status: 206 }])
  expect(registry.seen[0]?.header('accept-encoding')).toBe('identity')
  expect(counters()).toMatchObject({ requests: 1, fetched: 100, retries: 0 })
  expect(await read(SIZE - 1, SIZE)).toEqual(BYTES.subarray(SIZE - 1))
  expect(await read(5, 5)).toHaveLength(0)
  expect(registry.seen).toHaveLength(2)
})

test('all of a blob is one request without a range', async () => {
  expect(Buffer.compare(await source().read(0, SIZE), BYTES)).toBe(0)
  expect(registry.seen).toMatchObject([{ range: undefined, status: 200 }])
})

test('the size of a blob without a descriptor is asked of the registry, by its first byte', async () => {
  const from = settings.registries().source(parseReference(`${registry.host}/a/b:v1`))
  expect(await from.sizeOf(layer.digest)).toBe(SIZE)
  expect(registry.seen).toMatchObject([{ range: 'bytes=0-0', status: 206 }])
  expect(await from.sizeOf(`sha256:${'0'.repeat(64)}`)).toBeUndefined()
  registry.faults = [{ match: /blobs/, headers: { 'content-range': 'bytes 0-0/*' } }]
  await expect(from.sizeOf(layer.digest)).rejects.toMatchObject({ code: 'unsupported' })
})

test('ranges that do not lie within the blob are refused before anything is asked', async () => {
  const { read } = source()
  for (const [start, end] of [
    [-1, 5],
    [5, 4],
    [0, SIZE + 1],
    [SIZE, SIZE + 1],
    [0.5, 2],
    [0, Number.NaN],
    [2 ** 53, 2 ** 53 + 2],
  ] as const) {
    await expect(read(start, end), `${start}-${end}`).rejects.toMatchObject({ code: 'corrupt' })
  }
  expect(registry.seen).toEqual([])
})

test('answers that contradict the request are refused and not asked for again', async () => {
  for (const range of [
    '',
    'bytes 1000-4999/**',
    'bytes 1000-4998/*',
    'bytes 1001-5000/*',
    'bytes */*',
    `bytes 1000-4999/${SIZE + 1}`,
    `bytes 1001-5000/${SIZE}`,
    `bytes 1000-4998/${SIZE}`,
    `bytes 0-4999/${SIZE}`,
    `bytes 01000-4999/${SIZE}`,
    'bytes */8388608',
    `items 1000-4999/${SIZE}`,
  ]) {
    await check({ headers: { 'content-range': range } }, 'corrupt')
  }
  await check({ headers: { 'content-range': '', 'content-type': 'multipart/byteranges; boundary=x' } }, 'corrupt')
  // nothing says that these bytes are those of the blob
  const nameless = { 'content-encoding': 'gzip', 'content-range': 'bytes 1000-4999/*', 'content-length': '' }
  await check({ headers: nameless }, 'corrupt')
  await check({ headers: { 'content-encoding': 'gzip', 'content-length': '5000' } }, 'corrupt')
  await check({ headers: { 'content-length': '5000' } }, 'corrupt')
  await check({ extra: 1 }, 'corrupt')
  await check({ status: 416 }, 'corrupt')
  await check({ status: 404 }, 'missing', 2) // and what the whole registry asks for
  await check({ status: 410 }, 'missing')
  await check({ status: 400 }, 'unavailable')
  await check({ status: 201 }, 'unavailable')
  await check({ ignoreRange: true, headers: { 'content-length': `${SIZE + 5}` } }, 'corrupt')
})

test('a range of a blob whose length the server does not know is that range', async () => {
  await check({ headers: { 'content-range': 'bytes 1000-4999/*' } }, undefined)
  await check({ headers: { 'content-range': 'Bytes 1000-4999/*', 'content-length': '' } }, undefined)
})

test('what storage calls an encoding changes no bytes where lengths say that they are exact', async () => {
  const labels = [
    'gzip',
    'x-gzip',
    'aws-chunked',
    'aws-chunked,gzip',
    'identity',
    'Identity',
    'zstd',
    'x-unheard-of',
    '',
  ]
  for (const label of labels) {
    await check({ headers: { 'content-encoding': label } }, undefined)
    await check({ headers: { 'content-encoding': label, 'content-length': '' } }, undefined)
    await check({ headers: { 'content-encoding': label }, ignoreRange: true }, undefined)
    await check({ headers: { 'content-encoding': label, 'content-range': 'bytes 1000-4999/*' } }, undefined)
  }
})

test('servers that stumble are tried again, a few times', async () => {
  for (const status of [408, 429, 500, 502, 503, 504]) await check({ status, until: 2 }, undefined, 3)
  await check({ status: 503 }, 'unavailable', 4)
  await check({ status: 503 }, 'unavailable', 2, { attempts: 2 })
  await check({ reset: true, until: 2 }, undefined, 3)
  await check({ reset: true }, 'unavailable', 4)
  await check({ status: 503, headers: { 'retry-after': '3600' } }, 'unavailable', 1)
})

test('a transfer that breaks is taken up where it broke', async () => {
  await check({ cutAfter: 1500, nth: 1 }, undefined, 2)
  expect(registry.seen.map((each) => each.range)).toEqual(['bytes=1000-4999', 'bytes=2500-4999'])
  await check({ endAfter: 0, nth: 1 }, undefined, 2)
  expect(registry.seen[1]?.range).toBe('bytes=1000-4999')
  await check({ endAfter: 100 }, 'unavailable', 4)
})

test('a wrong byte passes: only digests of decoded chunks can tell', async () => {
  registry.faults = [{ match: /blobs/, flipAt: 7 }]
  const bytes = await source().read(1000, 5000)
  expect(bytes[7]).toBe((BYTES[1007] ?? 0) ^ 0xff)
})

test('a server that ignores ranges is read to the end of a range near the start, and no further', async () => {
  registry.faults = [{ match: /blobs/, ignoreRange: true }]
  const { read, counters } = source()
  for (const [start, end] of [
    [1000, 5000],
    [900_000, 1_000_000],
  ] as const) {
    for (let times = 0; times < 4; times++) {
      expect(Buffer.compare(await read(start, end), BYTES.subarray(start, end))).toBe(0)
    }
  }
  // what was in flight when the stream was reset is not held against it
  expect(counters().fetched).toBeLessThan(4 * (1_005_000 + (1 << 20)))
})

/** Megabytes are compared at once: an assertion of their equality looks at each byte. */
async function expectMiB(read: (start: number, end: number) => Promise<Uint8Array>, number: number): Promise<void> {
  const [start, end] = [number << 20, (number + 1) << 20]
  expect(Buffer.compare(await read(start, end), BYTES.subarray(start, end))).toBe(0)
}

test('what comes whole is read to a range far in, and the next range is asked for at once', async () => {
  registry.faults = [{ match: /blobs/, ignoreRange: true, until: 2 }]
  const { read, counters } = source()
  await expectMiB(read, 5)
  await expectMiB(read, 6)
  const before = counters().fetched
  await expectMiB(read, 7)
  expect(counters().fetched - before).toBe(1 << 20)
  expect(registry.seen.map((each) => each.status)).toEqual([200, 200, 206])
})

test('a blob that comes whole three times in a row is named, and not asked for ranges far in; others of the host are', async () => {
  const other = shelf.addBlob(pattern(SIZE, 7))
  registry.faults = [{ match: new RegExp(layer.digest), ignoreRange: true }]
  const { read, registries } = source()
  const refused = { code: 'unsupported', message: `${registry.host} does not support ranges` }
  await expectMiB(read, 5)
  await expectMiB(read, 5)
  await expect(read(5 << 20, 6 << 20)).rejects.toMatchObject(refused)
  await expect(read(5 << 20, 6 << 20)).rejects.toMatchObject(refused)
  expect(registry.seen).toHaveLength(3)
  expect(await read(0, 10)).toEqual(BYTES.subarray(0, 10))
  const beside = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(other)
  const found = await beside.read({ start: 5 << 20, end: 6 << 20 })
  expect(Buffer.compare(found, pattern(SIZE, 7).subarray(5 << 20, 6 << 20))).toBe(0)
})

test('an abort ends a transfer that stalls at once', async () => {
  registry.faults = [{ match: /blobs/, stallAfter: 10 }]
  const stop = new AbortController()
  const reading = source().read(0, 1000, stop.signal)
  const asked = setInterval(() => registry.seen.length > 0 && stop.abort(), 5)
  await expect(reading).rejects.toMatchObject({ code: 'aborted' })
  clearInterval(asked)
  expect(registry.seen).toHaveLength(1)
})

test('a host that gives nothing for a while is asked again, then given up', async () => {
  await check({ stallAfter: 1 }, 'timeout', 2, { stallMs: 200, attempts: 2 })
  await check({ stallAfter: 2000, nth: 1 }, undefined, 2, { stallMs: 200 })
  await check({ delayMs: 5000 }, 'timeout', 2, { stallMs: 200, attempts: 2 })
  // however long an attempt may wait: the reader's patience is what ends it
  await check({ delayMs: 5000 }, 'timeout', 1, { stallMs: 60_000, patienceMs: 300 })
})

test('a trickle is nothing, a slow flow is all that it takes', async () => {
  // the fake sends a twentieth of a second's bytes at a time
  await check({ bytesPerSecond: 1_000 }, 'timeout', 2, { stallMs: 400, windowBytes: 8_000, attempts: 2 })
  const slow = { stallMs: 400, patienceMs: 400, windowMs: 400, windowBytes: 200 }
  await check({ bytesPerSecond: 4_000 }, undefined, 1, slow)
})

test('one stream of many that flow may wait as long as the host gives, but not for ever', async () => {
  const { read, registries } = source({
    stallMs: 1_200,
    windowMs: 1_200,
    windowBytes: 10_000,
    attempts: 2,
    hedgeMs: 60_000,
  })
  registry.faults = [
    { match: /blobs/, nth: 1, delayMs: 3_600 },
    { match: /blobs/, nth: 2, bytesPerSecond: 150_000 },
  ]
  const waiting = read(0, 1000)
  const flowing = read(0, 1 << 20)
  expect(await waiting).toEqual(BYTES.subarray(0, 1000))
  expect(Buffer.compare(await flowing, BYTES.subarray(0, 1 << 20))).toBe(0)
  expect(registries.counters().retries).toBe(0)
  // the others have ended by then: now it is the host that gives nothing
  const other = source({ stallMs: 2_000, windowMs: 1_200, windowBytes: 10_000, hedgeMs: 60_000 })
  registry.faults = [
    { match: /blobs/, nth: 1, stallAfter: 10 },
    { match: /blobs/, nth: 2, bytesPerSecond: 500_000 },
  ]
  const left = other.read(0, 1000)
  await expectMiB(other.read, 0)
  expect(await left).toEqual(BYTES.subarray(0, 1000))
  expect(other.counters().retries).toBeGreaterThan(0)
})

test('one stream of many is asked for again when as many others have overtaken it, and not before', async () => {
  const { read, counters } = source({ streamMs: 100, overtakes: 8, hedgeMs: 60_000 })
  const go = Promise.withResolvers<void>()
  registry.faults = [
    { match: /blobs/, nth: 1, stallAfter: 10 },
    { match: /blobs/, nth: 2, held: go.promise },
  ]
  const [left, last] = [read(0, 1000), read(1000, 2000)]
  for (let i = 2; i < 7; i++) await read(i * 1000, i * 1000 + 10)
  expect(counters().retries).toBe(0)
  for (let i = 7; i < 12; i++) await read(i * 1000, i * 1000 + 10)
  expect(await left).toEqual(BYTES.subarray(0, 1000))
  go.resolve()
  expect(await last).toEqual(BYTES.subarray(1000, 2000))
  expect(counters().retries).toBeGreaterThan(0)
})

test('a read that somebody waits for comes over another connection where the first brings nothing', async () => {
  const { read, blob, counters } = source({ hedgeMs: 500, stallMs: 20_000 })
  await blob.read({ start: 0, end: 10 }, { priority: 'prefetch' }) // however long it takes to connect
  registry.faults = [
    { match: /blobs/, nth: 1, stallAfter: 0 },
    { match: /blobs/, nth: 3, stallAfter: 100_000 },
  ]
  registry.seen.length = 0
  expect(await read(0, 1000)).toEqual(BYTES.subarray(0, 1000))
  expect(registry.seen.map(({ range }) => range)).toEqual(['bytes=0-999', 'bytes=0-999'])
  expect(registry.seen[1]?.connection).not.toBe(registry.seen[0]?.connection)
  // what has come is not asked for again
  expect(Buffer.compare(await read(0, 1 << 20), BYTES.subarray(0, 1 << 20))).toBe(0)
  // the host was silent on the old connection: all that follows goes over the new one
  expect(registry.seen[2]?.connection).toBe(registry.seen[1]?.connection)
  expect(registry.seen[3]?.range).toMatch(/^bytes=[1-9]\d+-1048575$/)
  expect(counters()).toMatchObject({ hedges: 2, retries: 0 })
  // nobody waits for what is fetched ahead
  registry.faults = [{ match: /blobs/, nth: 1, delayMs: 1_500 }]
  await blob.read({ start: 0, end: 1000 }, { priority: 'prefetch' })
  expect(counters()).toMatchObject({ hedges: 2 })
})

test('sixteen streams of a slow link all end, each at its first try', async () => {
  const link = await openLink({
    target: { host: '127.0.0.1', port: Number(registry.host.split(':')[1]) },
    roundTripMs: 20,
    bytesPerSecond: 100_000,
  })
  try {
    const host = `127.0.0.1:${link.port}`
    await settings.trust(host, registry.cert)
    // a stream has 6 kB/s of it, and would have to bring 40
    const slow = { streamMs: 200, streamBytes: 8_000, windowMs: 1_000, windowBytes: 10_000 }
    const registries = settings.registries({ limits: { ...slow, stallMs: 20_000, hedgeMs: 60_000 } })
    const blob = registries.source(parseReference(`${host}/a/b:v1`)).blob(layer)
    const ranges = Array.from({ length: 16 }, (_, i) => ({ start: i * 16_384, end: (i + 1) * 16_384 }))
    const read = await Promise.all(ranges.map((range) => blob.read(range)))
    expect(Buffer.compare(Buffer.concat(read), BYTES.subarray(0, 16 * 16_384))).toBe(0)
    expect(registries.counters()).toMatchObject({ requests: 16, retries: 0, outages: 0 })
  } finally {
    await link.close()
  }
})

test('a read hands over its parts as they arrive, in order', async () => {
  const { blob } = source()
  registry.faults = [{ match: /blobs/, nth: 1, cutAfter: 300_000 }]
  const parts: number[] = []
  let at = 0
  const bytes = await blob.read(
    { start: 1000, end: 1_001_000 },
    {
      onPart: (part, from) => {
        expect(from).toBe(at)
        expect(Buffer.compare(part, BYTES.subarray(1000 + from, 1000 + from + part.length))).toBe(0)
        at += part.length
        parts.push(part.length)
      },
    },
  )
  expect(at).toBe(bytes.length)
  expect(parts.length).toBeGreaterThan(2)
})

test('who takes his time over what came when a whole blob breaks off is handed none of it twice', async () => {
  const cut = 100_000
  registry.faults = [{ match: /blobs/, nth: 1, cutAfter: cut }]
  const parts: Uint8Array[] = []
  await source().blob.stream(async (bytes) => {
    const copy = bytes.slice()
    if (parts.length === 0) {
      await expect.poll(() => registry.seen[0]?.sent).toBeGreaterThanOrEqual(cut)
      await pause(100) // the client hears of it
    }
    parts.push(copy)
  })
  expect(Buffer.compare(Buffer.concat(parts), BYTES)).toBe(0)
})

test('a registry that is slow is asked for a whole blob once at a time, under whichever names it is reached', async () => {
  const mirror = (prefix: string) =>
    `[[registry]]\nprefix = "${prefix}"\nlocation = "${prefix}"\n[[registry.mirror]]\nlocation = "${registry.host}/mirrored"\n`
  const conf = ['one.example.com', 'two.example.com'].map(mirror).join('')
  await settings.write('etc/containers/registries.conf', conf)
  const registries = settings.registries()
  const names = [`${registry.host}/a/b:v1`, `${registry.host}/c/d:v2`, 'one.example.com/a', 'two.example.com/b']
  const go = Promise.withResolvers<void>()
  registry.faults = [{ match: /blobs/, nth: 1, held: go.promise }]
  let taken = 0
  const streams = names.map((name) =>
    registries
      .source(parseReference(name))
      .blob(layer)
      .stream(async (bytes) => {
        taken += bytes.length
      }),
  )
  await expect.poll(() => registry.seen.length).toBe(1)
  // somebody waits for this one
  const reader = registries.source(parseReference(names[0] as string)).blob(layer)
  expect(await reader.read({ start: 0, end: 10 })).toEqual(BYTES.subarray(0, 10))
  expect(registry.seen.filter(({ range }) => range === undefined)).toHaveLength(1)
  go.resolve()
  await Promise.all(streams)
  expect(taken).toBe(4 * SIZE)
})

test('a whole blob goes to a file in bounded memory, one request, and is verified', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'lazylayer-blob-'))
  const whole = async () => {
    await fetchInto(join(dir, 'blob'), source().blob)
    return await readFile(join(dir, 'blob'))
  }
  try {
    expect(Buffer.compare(await whole(), BYTES)).toBe(0)
    expect(registry.seen).toHaveLength(1)
    registry.faults = [{ match: /blobs/, cutAfter: 3_000_000, nth: 1 }]
    expect(Buffer.compare(await whole(), BYTES)).toBe(0)
    expect(registry.seen.at(-1)?.range).toMatch(/^bytes=\d{7}-/)
    registry.faults = [{ match: /blobs/, flipAt: 5_000_000 }]
    await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
    registry.faults = []
    shelf.blobs.set(layer.digest, memoryContent(pattern(SIZE, 2)))
    await expect(whole()).rejects.toMatchObject({ code: 'corrupt' })
  } finally {
    await rm(dir, { recursive: true })
  }
})

/** Who gave the first byte of the blob, as it was told before that came. */
async function giver(registries: ReturnType<Settings['registries']>) {
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  const told: unknown[] = []
  await blob.read(
    { start: 0, end: 1 },
    { onGiver: async (each) => void told.push(each), onPart: () => void told.push('part') },
  )
  expect(told.pop()).toBe('part')
  expect(told).toHaveLength(1)
  return told[0]
}

test('a read tells whose bytes it brings, and whether anybody gets them', async () => {
  const creds = { host: registry.host, username: 'ada', password: 'hunter2' }
  const repository = `${registry.host}/a/b`
  // credentials that nobody asked for were not shown
  expect(await giver(settings.registries({ creds }))).toEqual({ repository, anonymous: true })
  registry.auth = { scheme: 'bearer' }
  expect(await giver(settings.registries())).toEqual({ repository, anonymous: true })
  registry.auth = { scheme: 'bearer', users: new Map([['ada', 'hunter2']]) }
  expect(await giver(settings.registries({ creds }))).toEqual({ repository, anonymous: false })
  registry.auth = { scheme: 'basic', username: 'ada', password: 'hunter2' }
  expect(await giver(settings.registries({ creds }))).toEqual({ repository, anonymous: false })
})

test('what a registry leads to only whom it knows is not anybody’s, also when it is asked for without the registry', async () => {
  const storage = await startRegistry({ shelf })
  await settings.trust(storage.host, storage.cert)
  registry.auth = { scheme: 'basic', username: 'ada', password: 'hunter2' }
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}?sig=1` }]
  const registries = settings.registries({ creds: { host: registry.host, username: 'ada', password: 'hunter2' } })
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  const told: boolean[] = []
  const read = (start: number) =>
    blob.read({ start, end: start + 1 }, { onGiver: async ({ anonymous }) => void told.push(anonymous) })
  await read(0)
  await read(5)
  expect(told).toEqual([false, false])
  expect(registry.count('blob')).toBe(2) // refused, and led away: then the storage alone is asked
  await storage.close()
})

test('where a certificate says who we are, what comes is not anybody’s', async () => {
  const { cert, key } = await testCertificate()
  await settings.write(`etc/containers/certs.d/${registry.host}/client.cert`, cert)
  await settings.write(`etc/containers/certs.d/${registry.host}/client.key`, key)
  expect(await giver(settings.registries())).toMatchObject({ anonymous: false })
})
