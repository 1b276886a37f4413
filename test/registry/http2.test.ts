// What HTTP/2 can do to a reader beyond what the other protocols can.
import { expect, test } from 'vitest'
import type { Limits } from '../../src/registry/limits.ts'
import type { Fault } from '../fake/faults.ts'
import { BYTES, blobs, CHUNK, makeScene } from './scene.ts'

// RFC 9113 7
const PROTOCOL_ERROR = 1
const INTERNAL_ERROR = 2
const FLOW_CONTROL_ERROR = 3
const REFUSED_STREAM = 7
const CANCEL = 8
const ENHANCE_YOUR_CALM = 11
const HTTP_1_1_REQUIRED = 13
const CODES = {
  PROTOCOL_ERROR,
  INTERNAL_ERROR,
  FLOW_CONTROL_ERROR,
  REFUSED_STREAM,
  CANCEL,
  ENHANCE_YOUR_CALM,
  HTTP_1_1_REQUIRED,
}

/** Reads chunks here and there under a fault that passes; all are right. */
async function check(fault: Fault, limits: Partial<Limits> = {}) {
  const { start, answering, open } = await makeScene()
  const registry = await start()
  const { program } = open(await answering(registry), limits)
  await program.read(0)
  registry.faults = [fault]
  await Promise.all([4, 9, 14, 19, 24, 29].map((chunk) => program.read(chunk)))
  return registry
}

for (const [name, code] of Object.entries(CODES)) {
  test(`RST_STREAM with ${name}, instead of an answer or in the middle of one, costs another request`, async () => {
    for (const more of [{}, { cutAfter: 30_000 }]) {
      const { seen } = await check(blobs({ rst: code, nth: 3, ...more }))
      expect(seen).toHaveLength(8)
    }
  })

  test(`GOAWAY with ${name} costs a connection, and what it refused is asked again`, async () => {
    const { seen } = await check(blobs({ goaway: 'refuse', goawayCode: code, nth: 3 }))
    expect(seen.at(-1)?.connection).toBeGreaterThan(1)
  })
}

test('a host whose HTTP/2 fails one request after the other is asked over HTTP/1.1', async () => {
  for (const rst of [HTTP_1_1_REQUIRED, PROTOCOL_ERROR]) {
    const registry = await check(blobs({ rst, over: 'h2' }))
    expect(registry.seen.filter(({ protocol }) => protocol === 'h2').length).toBeLessThan(20)
    expect(registry.seen.at(-1)?.protocol).toBe('h1')
  }
})

test('so is one that stops in the middle of each answer over HTTP/2', async () => {
  const registry = await check(blobs({ stallAfter: 10_000, over: 'h2' }), { stallMs: 1_000, hedgeMs: 100_000 })
  expect(registry.seen.at(-1)?.protocol).toBe('h1')
})

test('a server that lets a client have one stream at a time is asked for no more, and gives all', async () => {
  const { start, answering, open } = await makeScene()
  const registry = await start({ streams: 1 })
  const { blob } = open(await answering(registry))
  registry.faults = [blobs({ delayMs: 5 })]
  const reads = Array.from({ length: 30 }, (_, i) => blob.read({ start: i * 1000, end: i * 1000 + 1000 }))
  for (const [i, bytes] of (await Promise.all(reads)).entries()) {
    expect(Buffer.compare(bytes, BYTES.subarray(i * 1000, i * 1000 + 1000))).toBe(0)
  }
  expect(new Set(registry.seen.map(({ protocol }) => protocol))).toEqual(new Set(['h2']))
  expect(registry.seen).toHaveLength(30)
})

test('one that lets it have none at all is asked over HTTP/1.1', async () => {
  const { start, answering, open } = await makeScene()
  const registry = await start({ streams: 0 })
  const { program } = open(await answering(registry), { stallMs: 1_000, hedgeMs: 100_000 })
  await program.read(3)
  expect(registry.seen.map(({ protocol }) => protocol)).toEqual(['h1'])
})

test('readers who take nothing stop nobody else, though all of a connection’s window is theirs', async () => {
  const { start, answering, open } = await makeScene()
  const registry = await start()
  const { blob, program } = open(await answering(registry), { stallMs: 60_000 })
  const go = Promise.withResolvers<void>()
  // of each a stream’s window comes: of all of them more than the 16 MiB of the connection
  const stopped = Array.from({ length: 12 }, () =>
    blob.read({ start: 0, end: BYTES.length }, { priority: 'prefetch', onPart: () => go.promise }),
  )
  await expect.poll(() => registry.seen.filter(({ sent }) => sent > 0).length).toBe(12)
  await program.read(5)
  expect(new Set(registry.seen.map(({ connection }) => connection))).toEqual(new Set([1]))
  go.resolve()
  for (const bytes of await Promise.all(stopped)) expect(Buffer.compare(bytes, BYTES)).toBe(0)
})

test('two names of one server, with one certificate, have a connection each', async () => {
  const { start, open } = await makeScene()
  const registry = await start({ auth: { scheme: 'basic', username: 'ada', password: 'x' } })
  const port = registry.host.split(':')[1] as string
  const creds = { host: registry.host, username: 'ada', password: 'x' }
  const options = { creds, tlsVerify: false }
  await open(`${registry.host}/a/b:v1`, {}, options).program.read(0)
  const { registries } = open(`${registry.host}/a/b:v1`, {}, options)
  const [known, unknown] = [registry.host, `localhost:${port}`].map((host) =>
    registries.source({ transport: 'docker', host, repository: 'a/b', tag: 'v1' }),
  )
  const descriptor = {
    digest: open(`${registry.host}/a/b:v1`).blob.digest,
    size: BYTES.length,
    mediaType: '',
    annotations: {},
  }
  registry.seen.length = 0
  await known?.blob(descriptor).read({ start: 0, end: CHUNK })
  await expect(unknown?.blob(descriptor).read({ start: 0, end: CHUNK })).rejects.toMatchObject({ code: 'denied' })
  const used = registry.seen.map(({ connection, authorization }) => `${connection} ${authorization !== undefined}`)
  expect(new Set(used.filter((each) => each.endsWith('true')).map(Number.parseInt)).size).toBe(1)
  expect(new Set(registry.seen.map(({ connection }) => connection)).size).toBe(2)
  expect(registry.seen.at(-1)?.authorization).toBeUndefined()
})
