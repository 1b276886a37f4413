import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { MemoryShelf, OCI_CONFIG, OCI_MANIFEST } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const ADA = { username: 'ada', password: 'lovelace' }
const MAX = 1 << 10

let settings: Settings
let shelf: MemoryShelf
let signal: AbortSignal
const running: { close(): unknown }[] = []

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  signal = AbortSignal.timeout(20_000)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await Promise.all(running.splice(0).map((each) => each.close()))
})

async function start(): Promise<FakeRegistry> {
  const registry = await startRegistry({ shelf, auth: { scheme: 'basic', ...ADA } })
  running.push(registry)
  await settings.trust(registry.host, registry.cert)
  return registry
}

const open = (host: string) =>
  settings.registries({ creds: { host, ...ADA } }).signatures(parseRegistryReference(`${host}/team/app:v1`))

interface Web {
  url(path: string): URL
  cert: string
  seen: { path: string; headers: IncomingHttpHeaders }[]
}

/** Answers `status` to everything, with the request's path as the body. */
async function web(statuses: number[], options: { tls?: boolean; location?: string } = {}): Promise<Web> {
  const { tls = true, location } = options
  const seen: Web['seen'] = []
  const answer = (request: IncomingMessage, response: ServerResponse) => {
    seen.push({ path: request.url ?? '', headers: request.headers })
    const status = statuses[seen.length - 1] ?? statuses.at(-1) ?? 200
    response.writeHead(status, location === undefined ? {} : { location }).end(request.url)
  }
  const { key, cert } = await selfSigned(['127.0.0.1'])
  const server = tls ? createTlsServer({ key, cert }, answer) : createServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  running.push({
    close() {
      server.closeAllConnections()
      server.close()
    },
  })
  const { port } = server.address() as AddressInfo // listens on an address, not on a path
  return {
    url: (path) => new URL(`${tls ? 'https' : 'http'}://127.0.0.1:${port}${path}`),
    cert,
    seen,
  }
}

test('a tag beside the image is read with the credentials of its repository', async () => {
  const registry = await start()
  const config = shelf.addBlob(new Uint8Array([1]), OCI_CONFIG)
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] }
  shelf.addManifest(document, OCI_MANIFEST, 'sha256-aa.sig')
  const source = open(registry.host)
  const bytes = await source.manifest('sha256-aa.sig', MAX, signal)
  expect(JSON.parse(Buffer.from(bytes ?? []).toString())).toMatchObject({ schemaVersion: 2 })
  expect(registry.seen.map(({ path, status }) => `${path} ${status}`)).toEqual([
    '/v2/team/app/manifests/sha256-aa.sig 401',
    '/v2/team/app/manifests/sha256-aa.sig 200',
  ])
  await expect(source.manifest('sha256-bb.sig', MAX, signal)).resolves.toBeUndefined()
  await expect(source.manifest('sha256-aa.sig', 10, signal)).rejects.toMatchObject({ code: 'limit' })
})

test('a registry that does not answer is not one without signatures', async () => {
  const registry = await start()
  registry.faults = [{ match: /manifests/, status: 503 }]
  await expect(open(registry.host).manifest('sha256-aa.sig', MAX, signal)).rejects.toMatchObject({
    code: 'unavailable',
  })
})

test('a blob comes as bytes of its own, which verifiers take', async () => {
  const registry = await start()
  const descriptor = shelf.addBlob(new Uint8Array([1, 2, 3]))
  const bytes = await open(registry.host).blob(descriptor, signal)
  expect([...bytes]).toEqual([1, 2, 3])
  expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
})

test('a file of the web is asked for without credentials, whoever asks for the registry', async () => {
  const registry = await start()
  const { url, cert, seen } = await web([200])
  await settings.trust(url('/').host, cert)
  const bytes = await open(registry.host).file(url('/team/app@sha256=aa/signature-1'), MAX, signal)
  expect(Buffer.from(bytes ?? []).toString()).toBe('/team/app@sha256=aa/signature-1')
  expect(seen).toHaveLength(1)
  expect(seen[0]?.headers.authorization).toBeUndefined()
})

test('a file that is not there ends the signatures; what else is wrong does not', async () => {
  const at = async (...statuses: number[]) => {
    const { url, cert, seen } = await web(statuses)
    await settings.trust(url('/').host, cert)
    return { ask: () => open('registry.example.com').file(url('/x'), MAX, signal), seen }
  }
  await expect((await at(404)).ask()).resolves.toBeUndefined()
  await expect((await at(403)).ask()).rejects.toMatchObject({ code: 'denied' })
  await expect((await at(418)).ask()).rejects.toMatchObject({ code: 'unavailable' })
  await expect((await at(500)).ask()).rejects.toMatchObject({ code: 'unavailable' })
  const { ask, seen } = await at(503, 200)
  await expect(ask()).resolves.toBeDefined()
  expect(seen).toHaveLength(2)
})

test('a file larger than is wanted is not read', async () => {
  const { url, cert } = await web([200])
  await settings.trust(url('/').host, cert)
  await expect(open('registry.example.com').file(url(`/${'x'.repeat(50)}`), 50, signal)).rejects.toMatchObject({
    code: 'limit',
  })
})

test('an unknown certificate is refused, however insecure the registry may be', async () => {
  const { url, seen } = await web([200])
  const registries = settings.registries({ tlsVerify: false })
  const source = registries.signatures(parseRegistryReference('registry.example.com/a:1'))
  await expect(source.file(url('/x'), MAX, signal)).rejects.toMatchObject({
    code: 'denied',
    message: expect.stringContaining('certificate is not trusted'),
  })
  expect(seen).toEqual([])
})

test('plain HTTP is spoken where it was named, and never led to from HTTPS', async () => {
  const plain = await web([200], { tls: false })
  const source = open('registry.example.com')
  await expect(source.file(plain.url('/x'), MAX, signal)).resolves.toBeDefined()
  const secure = await web([302], { location: plain.url('/y').href })
  await settings.trust(secure.url('/').host, secure.cert)
  await expect(open('registry.example.com').file(secure.url('/x'), MAX, signal)).rejects.toMatchObject({
    code: 'denied',
  })
  expect(plain.seen.map(({ path }) => path)).toEqual(['/x'])
})
