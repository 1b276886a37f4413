import { expect, onTestFinished, test } from 'vitest'
import { parseRegistryReference } from '../../src/image/reference.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeOptions, type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const AMD64 = { os: 'linux', architecture: 'amd64' }
const ADA = { username: 'ada', password: 'x' }

async function scene(options: Partial<FakeOptions> = {}, layers = [pattern(100), pattern(5000)]) {
  const settings = await Settings.make()
  const shelf = new MemoryShelf()
  shelf.addImage(layers, { tags: ['v1'] })
  const start = async (more: Partial<FakeOptions> = {}): Promise<FakeRegistry> => {
    const registry = await startRegistry({ shelf, ...more })
    onTestFinished(() => registry.close())
    await settings.trust(registry.host, registry.cert)
    return registry
  }
  const registry = await start(options)
  onTestFinished(() => settings[Symbol.asyncDispose]())
  const probe = (more: RegistriesOptions = {}, signal: AbortSignal = AbortSignal.timeout(20_000)) =>
    settings.registries(more).probe(parseRegistryReference(`${registry.host}/team/app:v1`), AMD64, signal)
  return { settings, registry, start, probe }
}

test('a registry that is well is told in four requests, with one byte of its largest layer', async () => {
  const { registry, probe } = await scene({ auth: { scheme: 'bearer', users: new Map([['ada', 'x']]) } })
  expect(await probe({ creds: { host: registry.host, ...ADA } })).toEqual([
    {
      endpoint: { host: registry.host, repository: 'team/app', insecure: false },
      scheme: 'https',
      protocol: 'HTTP/2',
      standing: 'credentials',
      ranges: { honoured: true, storage: undefined },
      failure: undefined,
    },
  ])
  expect(registry.seen.map((each) => `${each.kind} ${each.status}`)).toEqual([
    'manifest 401',
    'token 200',
    'manifest 200',
    'blob 206',
  ])
  expect(registry.seen.at(-1)).toMatchObject({ range: 'bytes=4999-4999', sent: 1 })
})

test('how a host lets us in is told apart', async () => {
  const { registry, probe } = await scene()
  expect(await probe({ creds: { host: registry.host, ...ADA } })).toMatchObject([{ standing: 'open' }])
  registry.auth = { scheme: 'bearer' }
  expect(await probe()).toMatchObject([{ standing: 'anonymous' }])
  registry.auth = { scheme: 'basic', ...ADA }
  expect(await probe({ creds: { host: registry.host, ...ADA } })).toMatchObject([
    { standing: 'credentials', failure: undefined },
  ])
  for (const options of [{}, { creds: { host: registry.host, ...ADA, password: 'y' } }]) {
    const found = await probe(options)
    expect(found).toMatchObject([{ standing: 'refused', scheme: 'https', failure: { code: 'denied' } }])
  }
})

test('HTTP/1.1 and HTTP without TLS are found out', async () => {
  const old = await scene({ http2: false })
  expect(await old.probe()).toMatchObject([{ scheme: 'https', protocol: 'HTTP/1.1', failure: undefined }])
  const plain = await scene({ tls: false })
  expect(await plain.probe({ tlsVerify: false })).toMatchObject([
    { scheme: 'http', protocol: 'HTTP/1.1', endpoint: { insecure: true }, failure: undefined },
  ])
  expect(await plain.probe()).toMatchObject([
    { scheme: undefined, protocol: undefined, failure: { code: 'unavailable' } },
  ])
})

test('a certificate that is not trusted is the failure', async () => {
  const { settings, registry, probe } = await scene()
  const other = await settings.write('none/x', '')
  const [found] = await probe({ certDir: other.slice(0, -2) })
  expect(found).toMatchObject({
    scheme: undefined,
    failure: { code: 'denied', fix: expect.stringContaining('ca.crt') },
  })
  expect(registry.seen).toEqual([])
})

test('ranges are tried where a redirect leads, and what ignores them is found out', async () => {
  const { registry, start, probe } = await scene()
  const storage = await start()
  registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/team/app/blobs/x` }]
  const digest = () => storage.seen.at(-1)?.range
  expect(await probe()).toMatchObject([{ failure: { code: 'missing' } }]) // the storage has no such blob
  expect(digest()).toBe('bytes=4999-4999')
  const redirect = async () => {
    const path = registry.seen.find((each) => each.kind === 'blob')?.path
    registry.faults = [{ match: /blobs/, redirect: `${storage.url}${path}` }]
    return await probe()
  }
  expect(await redirect()).toMatchObject([{ ranges: { honoured: true, storage: storage.host }, failure: undefined }])
  storage.faults = [{ match: /blobs/, ignoreRange: true }]
  expect(await redirect()).toMatchObject([{ ranges: { honoured: false, storage: storage.host }, failure: undefined }])
  registry.faults = [{ match: /blobs/, ignoreRange: true }]
  expect(await probe()).toMatchObject([{ ranges: { honoured: false, storage: undefined } }])
  registry.faults = [{ match: /blobs/, headers: { 'content-range': 'bytes 0-0/5000' } }]
  expect(await probe()).toMatchObject([{ ranges: { honoured: false } }])
})

test('an image without a layer of two bytes says nothing of ranges', async () => {
  for (const layers of [[], [pattern(1)]]) {
    const { probe } = await scene({}, layers)
    expect(await probe()).toMatchObject([{ ranges: undefined, failure: undefined }])
  }
})

test('mirrors are asked each for itself, the origin last, and nobody for the others', async () => {
  const { settings, registry, start, probe } = await scene()
  const mirror = await start()
  mirror.faults = [{ match: /manifests/, status: 404 }]
  const mirrors = [mirror.host, '127.0.0.1:1'].map((host) => `[[registry.mirror]]\nlocation = "${host}/m"\n`).join('')
  await settings.write('etc/containers/registries.conf', `[[registry]]\nlocation = "${registry.host}"\n${mirrors}`)
  expect(await probe()).toMatchObject([
    { endpoint: { host: mirror.host, repository: 'm/team/app' }, failure: { code: 'missing' } },
    { endpoint: { host: '127.0.0.1:1' }, failure: { code: 'unavailable' } },
    { endpoint: { host: registry.host }, failure: undefined },
  ])
  await settings.write(
    'etc/containers/registries.conf',
    `[[registry]]\nlocation = "${registry.host}"\nblocked = true\n`,
  )
  await expect(probe()).rejects.toMatchObject({ code: 'denied' })
})

test('a probe that is given up says so', async () => {
  const { probe } = await scene()
  expect(await probe({}, AbortSignal.abort())).toMatchObject([{ failure: { code: 'aborted' } }])
})
