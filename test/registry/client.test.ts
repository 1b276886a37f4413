import { type AddressInfo, createServer, connect as dial, type Server } from 'node:net'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import type { Priority } from '../../src/image/blob.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { Limits } from '../../src/registry/limits.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry, testCertificate } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const BYTES = pattern(2 << 20)

let settings: Settings
let shelf: MemoryShelf
let layer: Descriptor
const running: { close(): Promise<void> }[] = []

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  layer = shelf.addBlob(BYTES)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await Promise.all(running.splice(0).map((each) => each.close()))
})

async function start(options: { tls?: boolean; http2?: boolean; trusted?: boolean } = {}): Promise<FakeRegistry> {
  const { trusted = true, ...rest } = options
  const registry = await startRegistry({ shelf, ...rest })
  running.push(registry)
  if (trusted) await settings.trust(registry.host, registry.cert)
  return registry
}

function open(registry: { host: string }, limits: Partial<Limits> = {}) {
  const registries = settings.registries({ limits })
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  const read = (start: number, end: number, priority: Priority = 'demand') => blob.read({ start, end }, { priority })
  return { registries, read }
}

const many = (count: number, read: (start: number, end: number) => Promise<Uint8Array>) =>
  Promise.all(Array.from({ length: count }, (_, i) => read(i * 1000, i * 1000 + 1000)))

function expectRight(reads: Uint8Array[]): void {
  for (const [i, bytes] of reads.entries())
    expect(Buffer.compare(bytes, BYTES.subarray(i * 1000, i * 1000 + 1000))).toBe(0)
}

test('HTTP/2 is spoken where it is offered: one connection, however many reads begin at once', async () => {
  const registry = await start()
  const { registries, read } = open(registry)
  expectRight(await many(60, read))
  expect(new Set(registry.seen.map((each) => each.protocol))).toEqual(new Set(['h2']))
  expect(new Set(registry.seen.map((each) => each.connection))).toEqual(new Set([1]))
  // a smaller window makes a large read wait for the link's round trips
  expect(registry.seen.at(-1)?.window).toBe(2 << 20)
  expect(registries.counters()).toMatchObject({ requests: 60, connections: 1, retries: 0 })
})

test('what nobody waits for has a connection of its own, of whose streams 256 KiB at most are on their way', async () => {
  const registry = await start()
  const { registries, read } = open(registry)
  expectRight(await many(5, read))
  expectRight(await many(20, (start, end) => read(start, end, 'background')))
  expectRight(await many(5, read))
  const seen = registry.seen.filter(({ kind }) => kind === 'blob')
  expect(new Set(seen.map(({ connection, window }) => `${connection} ${window}`))).toEqual(
    new Set([`1 ${2 << 20}`, `2 ${256 << 10}`]),
  )
  expect(seen.filter(({ connection }) => connection === 2)).toHaveLength(1) // they are few bytes
  expect(registries.counters().connections).toBe(2)
})

test('HTTP/1.1 is spoken elsewhere, over at most so many connections', async () => {
  const registry = await start({ http2: false })
  const { registries, read } = open(registry, { connections: 3 })
  expectRight(await many(30, read))
  expect(new Set(registry.seen.map((each) => each.protocol))).toEqual(new Set(['h1']))
  expect(Math.max(...registry.seen.map((each) => each.connection))).toBeLessThanOrEqual(3)
  expect(registries.counters().requests).toBe(30)
})

test('no more requests than the limit are in flight, and demand passes waiting prefetch', async () => {
  const registry = await start()
  const { read } = open(registry, { streams: 4, connections: 4 })
  await read(0, 1)
  registry.seen.length = 0
  const { promise: held, resolve: answer } = Promise.withResolvers<void>()
  registry.faults = [{ match: /blobs/, held }]
  const prefetch = Promise.all(Array.from({ length: 10 }, (_, i) => read(i * 10, i * 10 + 10, 'prefetch')))
  await expect.poll(() => registry.seen.length).toBe(2)
  await new Promise((done) => setTimeout(done, 20)) // more would have come
  expect(registry.seen).toHaveLength(2)
  const demand = read(5000, 5001)
  await expect.poll(() => registry.seen.length).toBe(3)
  expect(registry.seen[2]?.range).toBe('bytes=5000-5000')
  answer()
  await Promise.all([demand, prefetch])
})

test('a registry without a trusted certificate is refused, and never asked over HTTP', async () => {
  const registry = await start({ trusted: false })
  const { read, registries } = open(registry)
  await expect(read(0, 1)).rejects.toMatchObject({
    code: 'denied',
    message: expect.stringMatching(/certificate is not trusted/),
  })
  const plain = await start({ tls: false, trusted: false })
  await expect(open(plain).read(0, 1)).rejects.toMatchObject({ code: 'unavailable' })
  expect([...registry.seen, ...plain.seen]).toEqual([])
  expect(registries.counters().retries).toBe(0)
})

test('a certificate for another name or of another time is refused', async () => {
  for (const certificate of [await selfSigned(['other.example']), await selfSigned(['127.0.0.1'], -2)]) {
    const registry = await startRegistry({ shelf, certificate })
    running.push(registry)
    await settings.trust(registry.host, certificate.cert)
    await expect(open(registry).read(0, 1)).rejects.toMatchObject({ code: 'denied' })
    expect(registry.seen).toEqual([])
  }
})

test('an insecure registry is asked over HTTPS without verification, else over HTTP, and which is remembered', async () => {
  const [secure, plain] = [await start({ trusted: false }), await start({ tls: false, trusted: false })]
  const rule = (host: string) => `[[registry]]\nlocation = "${host}"\ninsecure = true\n`
  await settings.write('etc/containers/registries.conf', rule(secure.host) + rule(plain.host))
  for (const registry of [secure, plain]) {
    const { read, registries } = open(registry)
    expectRight(await many(5, read))
    expectRight(await many(5, read))
    expect(registry.seen).toHaveLength(10)
    const { requests, retries } = registries.counters()
    expect(retries).toBe(0)
    expect(requests).toBeLessThanOrEqual(registry === secure ? 10 : 15)
  }
  expect(secure.seen[0]?.protocol).toBe('h2')
})

test('that an insecure registry did not answer over TLS once says nothing of it for long', async () => {
  const [secure, plain] = [await start({ trusted: false }), await start({ tls: false, trusted: false })]
  const port = ({ host }: FakeRegistry) => Number(host.split(':')[1])
  let hasTls = false
  // one port for both, as some proxies have it
  const both = createServer((client) => {
    client.on('error', () => client.destroy())
    client.once('data', (bytes) => {
      const isTls = bytes[0] === 0x16 // RFC 8446 5.1: handshake
      if (isTls && !hasTls) {
        client.resetAndDestroy()
        return
      }
      const server = dial(port(isTls ? secure : plain), '127.0.0.1')
      server.on('error', () => client.destroy())
      server.write(bytes)
      client.pipe(server).pipe(client)
    })
  })
  await new Promise<void>((done) => both.listen(0, '127.0.0.1', done))
  running.push({ close: async () => void both.close() })
  const host = `127.0.0.1:${(both.address() as AddressInfo).port}`
  await settings.write('etc/containers/registries.conf', `[[registry]]\nlocation = "${host}"\ninsecure = true\n`)
  const { read } = open({ host })
  await read(0, 1)
  hasTls = true
  await read(0, 1)
  expect([plain.seen.length, secure.seen.length]).toEqual([2, 0])
  const now = performance.now.bind(performance)
  const later = vi.spyOn(performance, 'now').mockImplementation(() => now() + 6 * 60_000)
  try {
    await read(0, 1)
    await read(0, 1)
  } finally {
    later.mockRestore()
  }
  expect([plain.seen.length, secure.seen.length]).toEqual([2, 2])
})

test('an authority counts for the host whose folder it lies in, a client certificate is shown to that host', async () => {
  const [registry, other] = [await start(), await start({ trusted: false })]
  await open(registry).read(0, 1)
  await expect(open(other).read(0, 1)).rejects.toMatchObject({ code: 'denied' })
  const client = await selfSigned(['a client'])
  const certificate = { ...(await testCertificate()), ca: client.cert, requestCert: true, rejectUnauthorized: true }
  const strict = await startRegistry({ shelf, certificate })
  running.push(strict)
  await settings.trust(strict.host, strict.cert)
  // the alert comes with TLS 1.3's handshake done, so that a reset may overtake it
  const code = expect.stringMatching(/^(denied|unavailable)$/)
  await expect(open(strict, { attempts: 1 }).read(0, 1)).rejects.toMatchObject({ code })
  await settings.write(`etc/containers/certs.d/${strict.host}/client.cert`, client.cert)
  await settings.write(`etc/containers/certs.d/${strict.host}/client.key`, client.key)
  expect(await open(strict).read(0, 5)).toEqual(BYTES.subarray(0, 5))
})

test('--tls-verify=false makes every host insecure, --cert-dir trusts its authorities', async () => {
  const registry = await start({ trusted: false })
  const reference = parseReference(`${registry.host}/a/b:v1`)
  const insecure = settings.registries({ tlsVerify: false }).source(reference)
  expect(await insecure.blob(layer).read({ start: 0, end: 5 })).toEqual(BYTES.subarray(0, 5))
  await settings.write('certs/ca.crt', registry.cert)
  const trusting = settings.registries({ certDir: `${settings.dir}/certs` }).source(reference)
  expect(await trusting.blob(layer).read({ start: 0, end: 5 })).toEqual(BYTES.subarray(0, 5))
  await settings.write('certs/half.cert', registry.cert)
  const half = settings.registries({ certDir: `${settings.dir}/certs` }).source(reference)
  await expect(half.blob(layer).read({ start: 0, end: 5 })).rejects.toMatchObject({ code: 'usage' })
})

test('a redirect to another origin is followed without credentials, and remembered for the blob', async () => {
  const [registry, storage] = [await start(), await start()]
  registry.auth = { scheme: 'bearer' }
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}?sig=1` }]
  const { read, registries } = open(registry)
  expectRight(await many(1, read))
  expectRight(await many(10, read))
  expect(registry.seen.map((each) => each.kind)).toEqual(['blob', 'token', 'blob'])
  expect(storage.seen).toHaveLength(11)
  for (const each of storage.seen) {
    expect(each.authorization).toBeUndefined()
    expect(each.header('cookie')).toBeUndefined()
    expect(each.path).toContain('?sig=1')
  }
  expect(registries.counters().redirects).toBe(1)
})

test('a redirect of a blob counts for all tags of its repository, and for no other', async () => {
  const [registry, storage] = [await start(), await start()]
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}` }]
  const registries = settings.registries()
  for (const name of ['a/b:v1', 'a/b:v2', 'a/c:v1']) {
    await registries
      .source(parseReference(`${registry.host}/${name}`))
      .blob(layer)
      .read({ start: 0, end: 5 })
  }
  expect(registry.seen.map(({ path }) => path)).toEqual(['a/b', 'a/c'].map((of) => `/v2/${of}/blobs/${layer.digest}`))
})

test('a redirect of a tag is not remembered: the tag may move', async () => {
  const [registry, storage] = [await start(), await start()]
  const [old, recent] = [shelf.addImage([pattern(1)]), shelf.addImage([pattern(2)])]
  const source = settings.registries().source(parseReference(`${registry.host}/a/b:v1`))
  const resolve = async (to: Descriptor) => {
    registry.faults = [{ match: /manifests/, redirect: `${storage.url}/v2/x/manifests/${to.digest}` }]
    return (await source.resolve({ os: 'linux', architecture: 'amd64' })).digest
  }
  expect(await resolve(old)).toBe(old.digest)
  expect(await resolve(recent)).toBe(recent.digest)
})

test('a storage that asks who we are gets no answer (CVE-2020-15157)', async () => {
  const [registry, storage] = [await start(), await start()]
  registry.auth = { scheme: 'basic', username: 'ada', password: 'x' }
  storage.auth = { scheme: 'basic', username: 'ada', password: 'x' }
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}` }]
  const creds = { host: registry.host, username: 'ada', password: 'x' }
  const source = settings.registries({ creds }).source(parseReference(`${registry.host}/a/b:v1`))
  await expect(source.blob(layer).read({ start: 0, end: 1 })).rejects.toMatchObject({ code: 'denied' })
  expect(registry.seen.at(-1)?.authorization).toMatch(/^Basic /)
  expect(storage.seen).toHaveLength(1)
  expect(storage.seen[0]?.authorization).toBeUndefined()
})

test('a storage cannot send our credentials to a token service of its own (CVE-2020-15157)', async () => {
  const [registry, storage, capture] = [await start(), await start(), await start()]
  registry.auth = { scheme: 'bearer', users: new Map([['ada', 'x']]) }
  storage.auth = { scheme: 'bearer', realm: `${capture.url}/token` }
  const creds = { host: registry.host, username: 'ada', password: 'x' }
  const source = settings.registries({ creds }).source(parseReference(`${registry.host}/a/b:v1`))
  await source.blob(layer).read({ start: 0, end: 1 })
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}` }]
  await expect(source.blob(layer).read({ start: 0, end: 1 })).rejects.toMatchObject({ code: 'denied' })
  expect(storage.seen).toHaveLength(1)
  expect(capture.seen).toEqual([])
})

test('credentials do not come back when a chain of redirects does', async () => {
  const [registry, storage] = [await start(), await start()]
  registry.auth = { scheme: 'basic', username: 'ada', password: 'x' }
  registry.faults = [{ match: /^\/v2\/a\/b\/blobs/, redirect: `${storage.url}/hop` }]
  storage.faults = [{ match: /hop/, redirect: `${registry.url}/v2/evil/blobs/${layer.digest}` }]
  const creds = { host: registry.host, username: 'ada', password: 'x' }
  const source = settings.registries({ creds }).source(parseReference(`${registry.host}/a/b:v1`))
  await expect(source.blob(layer).read({ start: 0, end: 1 })).rejects.toMatchObject({ code: 'denied' })
  expect(registry.seen.find((each) => each.path.includes('evil'))?.authorization).toBeUndefined()
})

test('a redirect that has expired is asked for again', async () => {
  const [registry, storage] = [await start(), await start()]
  const target = `${storage.url}/v2/x/blobs/${layer.digest}`
  registry.faults = [{ match: /blobs/, redirect: target }]
  const { read } = open(registry)
  await read(0, 1)
  for (const status of [400, 401, 403, 404, 410]) {
    registry.seen.length = 0
    storage.faults = [{ match: /blobs/, nth: 1, status }]
    expectRight(await many(1, read))
    expect(registry.seen, `${status}`).toHaveLength(1)
  }
  storage.faults = [{ match: /blobs/, status: 403 }]
  registry.seen.length = 0
  await expect(read(0, 1)).rejects.toMatchObject({ code: 'denied' })
  expect(registry.seen).toHaveLength(1)
})

test('a signed URL is not used beyond its lifetime, and a storage that is gone is left', async () => {
  const [registry, storage] = [await start(), await start()]
  const target = `${storage.url}/v2/x/blobs/${layer.digest}`
  const { read } = open(registry)
  registry.faults = [{ match: /blobs/, redirect: `${target}?X-Amz-Expires=5` }]
  await read(0, 1)
  await read(0, 1)
  expect(registry.seen).toHaveLength(2)
  registry.faults = [{ match: /blobs/, redirect: `${target}?X-Amz-Expires=60` }]
  await read(0, 1)
  await read(0, 1)
  expect(registry.seen).toHaveLength(3)
  await storage.close()
  registry.faults = []
  expectRight(await many(1, read))
})

test('redirects that lead astray are refused', async () => {
  const registry = await start()
  const plain = await start({ tls: false, trusted: false })
  const { read } = open(registry)
  const refused = async (redirect: string) => {
    registry.faults = [{ match: /blobs/, redirect }]
    await expect(read(0, 1), redirect).rejects.toMatchObject({ code: 'denied' })
  }
  await refused(`${plain.url}/v2/x/blobs/${layer.digest}`)
  await refused('https://169.254.169.254/latest')
  await refused('gopher://x/')
  registry.seen.length = 0
  await refused(`/v2/a/b/blobs/${layer.digest}`)
  expect(registry.seen).toHaveLength(6)
  expect(plain.seen).toEqual([])
})

test('a session that says GOAWAY is replaced, and what it refused is asked again', async () => {
  const registry = await start()
  const { read } = open(registry)
  await read(0, 1)
  registry.faults = [{ match: /blobs/, nth: 3, goaway: 'refuse' }]
  expectRight(await many(10, read))
  expect(Math.max(...registry.seen.map((each) => each.connection))).toBeGreaterThan(1)
})

test('a transfer during GOAWAY goes on to its end, later ones use a new session', async () => {
  const registry = await start()
  const { read } = open(registry)
  registry.faults = [{ match: /blobs/, nth: 1, goaway: 100_000, bytesPerSecond: 2_000_000 }]
  expect(Buffer.compare(await read(0, 400_000), BYTES.subarray(0, 400_000))).toBe(0)
  expectRight(await many(5, read))
  expect(registry.seen.at(-1)?.connection).toBe(2)
})

test('streams that are reset and sessions that end mid-way are taken up where they broke', async () => {
  const registry = await start()
  const { read, registries } = open(registry)
  registry.faults = [{ match: /blobs/, nth: 1, cutAfter: 100_000 }]
  expect(Buffer.compare(await read(0, 400_000), BYTES.subarray(0, 400_000))).toBe(0)
  expect(registries.counters().retries).toBe(1)
  registry.faults = [{ match: /blobs/, nth: 4, reset: true }]
  expectRight(await many(12, read))
})

test('a host that is not there, or says nothing, ends in unavailable or timeout', async () => {
  const { read, registries } = open({ host: '127.0.0.1:1' }, { attempts: 2 })
  await expect(read(0, 1)).rejects.toMatchObject({ code: 'unavailable' })
  expect(registries.counters().retries).toBe(1)
  await expect(open({ host: 'absent.invalid' }, { attempts: 2 }).read(0, 1)).rejects.toMatchObject({
    code: 'unavailable',
  })
  const mute = await listenMute()
  const limits = { connectMs: 150, attempts: 2 }
  await expect(open(mute, limits).read(0, 1)).rejects.toMatchObject({ code: 'timeout' })
})

async function listenMute(): Promise<{ host: string }> {
  const server: Server = createServer((socket) => socket.on('error', () => {}).resume())
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const address = server.address()
  running.push({ close: async () => void server.close() })
  return { host: `127.0.0.1:${typeof address === 'object' ? address?.port : 0}` }
}

test('closing ends what is under way', async () => {
  const registry = await start()
  const { read, registries } = open(registry)
  await read(0, 1)
  registry.faults = [{ match: /blobs/, stallAfter: 100 }]
  const reading = read(0, 1000)
  const waiting = expect(reading).rejects.toMatchObject({ code: 'aborted' })
  await expect.poll(() => registry.seen.at(-1)?.sent).toBe(100)
  await registries.close()
  await waiting
  await expect(read(0, 1)).rejects.toMatchObject({ code: 'aborted' })
})

test('who is led elsewhere says by whom, without what gives access; also when the way is remembered', async () => {
  const [registry, storage, third] = [await start(), await start(), await start()]
  const path = `/v2/a/b/blobs/${layer.digest}`
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/hop?sig=secret` }]
  storage.faults = [{ match: /hop/, redirect: `${third.url}/v2/x/blobs/${layer.digest}?sig=secret` }]
  const { read } = open(registry)
  expectRight(await many(1, read))
  expectRight(await many(1, read))
  expect(registry.seen.map((each) => each.header('referer'))).toEqual([undefined])
  expect(storage.seen.map((each) => each.header('referer'))).toEqual([
    `${registry.url}${path}`,
    `${registry.url}${path}`,
  ])
  expect(third.seen.map((each) => each.header('referer'))).toEqual([`${storage.url}/hop`, `${storage.url}/hop`])
})

test('who is led elsewhere from HTTP says so to HTTP and HTTPS', async () => {
  const plain = await start({ tls: false, trusted: false })
  const path = `/v2/a/b/blobs/${layer.digest}`
  await settings.write('etc/containers/registries.conf', `[[registry]]\nlocation = "${plain.host}"\ninsecure = true\n`)
  for (const tls of [true, false]) {
    const storage = await start({ tls, trusted: tls })
    plain.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}?sig=secret` }]
    expectRight(await many(1, open(plain).read))
    expect(storage.seen.map((each) => each.header('referer'))).toEqual([`${plain.url}${path}`])
  }
})
