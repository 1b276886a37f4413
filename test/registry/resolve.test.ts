import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { memoryContent } from '../../src/build/registry.ts'
import { digestOf } from '../../src/image/digest.ts'
import { CONFIG_MAX_BYTES, MANIFEST_MAX_BYTES, parsePlatform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { describeBytes, json, MemoryShelf, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry, testCertificate } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

let settings: Settings
let registry: FakeRegistry
let shelf: MemoryShelf

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  registry = await startRegistry({ shelf })
  await settings.trust(registry.host, registry.cert)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await registry.close()
})

const resolve = (version: string, platform = 'linux/amd64') =>
  settings
    .registries()
    .source(parseReference(`docker://${registry.host}/a/b${version}`))
    .resolve(parsePlatform(platform))

const refuse = (version: string, code: string) => expect(resolve(version), version).rejects.toMatchObject({ code })

test('a tag leads to manifest and config in two requests', async () => {
  const layers = [pattern(10), pattern(20)]
  const manifest = shelf.addImage(layers, { tags: ['v1'] })
  const image = await resolve(':v1')
  expect(image.digest).toBe(manifest.digest)
  expect(digestOf(image.manifestBytes)).toBe(manifest.digest)
  expect(digestOf(image.configBytes)).toBe(image.manifest.config.digest)
  expect(image.manifest.layers.map((each) => each.size)).toEqual([10, 20])
  expect(image.config.diffIds).toEqual(layers.map(digestOf))
  expect(registry.seen.map((each) => each.path)).toEqual([
    '/v2/a/b/manifests/v1',
    `/v2/a/b/blobs/${image.manifest.config.digest}`,
  ])
  expect(registry.seen[0]?.header('accept')?.split(', ')).toHaveLength(4)
  expect((await resolve(`@${manifest.digest}`)).digest).toBe(manifest.digest)
})

test('an index leads to the platform asked for', async () => {
  const of = (architecture: string, variant?: string) => ({
    ...shelf.addImage([pattern(5)], { architecture }),
    platform: { os: 'linux', architecture, variant },
  })
  const manifests = [of('amd64'), of('arm64', 'v8')]
  const index = shelf.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }, OCI_INDEX, 'v1')
  expect((await resolve(':v1')).digest).toBe(manifests[0]?.digest)
  expect((await resolve(':v1', 'linux/arm64')).config.platform.architecture).toBe('arm64')
  expect((await resolve(`:v1@${index.digest}`, 'linux/arm64')).digest).toBe(manifests[1]?.digest)
  await expect(resolve(':v1', 'linux/s390x')).rejects.toMatchObject({
    code: 'missing',
    why: 'it offers linux/amd64, linux/arm64/v8',
  })
})

test('an index within an index is followed, but not for ever', async () => {
  const platform = { os: 'linux', architecture: 'amd64' }
  let inner = shelf.addImage([pattern(5)])
  const wrap = (...tags: string[]) => {
    inner = shelf.addManifest(
      { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [{ ...inner, platform }] },
      OCI_INDEX,
      ...tags,
    )
  }
  wrap()
  wrap('two')
  await resolve(':two')
  wrap()
  wrap('four')
  await refuse(':four', 'limit')
})

test('bytes that differ from their digest are refused at every step', async () => {
  const manifest = shelf.addImage([pattern(5)], { tags: ['v1'] })
  const other = shelf.addImage([pattern(6)])
  const index = { ...manifest, platform: { os: 'linux', architecture: 'amd64' } }
  shelf.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [index] }, OCI_INDEX, 'index')
  const { config } = (await resolve(':v1')).manifest
  const honest = shelf.manifests.get(manifest.digest)
  const rolled = shelf.manifests.get(other.digest)
  if (!honest || !rolled) throw new Error('no manifests')
  // an older image under a pinned digest; the header repeats what was asked for
  shelf.manifests.set(manifest.digest, { ...rolled, digest: manifest.digest })
  await refuse(`@${manifest.digest}`, 'corrupt')
  await refuse(`:v1@${manifest.digest}`, 'corrupt')
  await refuse(':index', 'corrupt')
  shelf.manifests.set(manifest.digest, honest)
  await resolve(':index')
  shelf.blobs.set(config.digest, memoryContent(pattern(config.size)))
  await refuse(':v1', 'corrupt')
  shelf.blobs.set(config.digest, memoryContent(pattern(config.size - 1)))
  await refuse(':v1', 'corrupt')
})

test('what Docker-Content-Digest claims is of no account', async () => {
  const manifest = shelf.addImage([pattern(5)], { tags: ['v1'] })
  registry.faults.push({ match: /manifests/, headers: { 'docker-content-digest': `sha256:${'0'.repeat(64)}` } })
  expect((await resolve(':v1')).digest).toBe(manifest.digest)
})

test.each([
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
  'application/vnd.nydus.image.config.v1+json',
])('what has a configuration of type %s is an image', async (type) => {
  const config = shelf.addBlob(json({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } }), type)
  shelf.addManifest({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] }, OCI_MANIFEST, 'typed')
  expect((await resolve(':typed')).manifest.config.mediaType).toBe(type)
})

test.each([
  ['a Helm chart', 'application/vnd.cncf.helm.config.v1+json', { name: 'chart', version: '1.0.0', apiVersion: 'v2' }],
  ['an artifact without configuration', 'application/vnd.oci.empty.v1+json', {}],
  ['a WebAssembly module', 'application/vnd.wasm.config.v0+json', { os: 'wasip2', layerDigests: [] }],
  ['what looks like an image otherwise', 'application/x-other', { os: 'linux', rootfs: { diff_ids: [] } }],
])('%s is no container image', async (_, type, config) => {
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: shelf.addBlob(json(config), type), layers: [] }
  shelf.addManifest(manifest, OCI_MANIFEST, 'artifact')
  await expect(resolve(':artifact')).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringMatching(/:artifact is no container image$/),
    why: `it is an artifact: its configuration is of type ${type}`,
  })
})

test('a document under another media type is refused (CVE-2021-41190)', async () => {
  const config = shelf.addBlob(json({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } }), OCI_CONFIG)
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [] }
  shelf.addManifest(manifest, OCI_INDEX, 'header')
  await refuse(':header', 'corrupt')
  shelf.addManifest({ ...manifest, manifests: [] }, OCI_MANIFEST, 'both')
  await refuse(':both', 'corrupt')
  const { mediaType: _, ...silent } = manifest
  shelf.addManifest(silent, OCI_INDEX, 'silent')
  await refuse(':silent', 'corrupt')
  const child = {
    ...shelf.addManifest(manifest, OCI_MANIFEST),
    mediaType: OCI_INDEX,
    platform: { os: 'linux', architecture: 'amd64' },
  }
  shelf.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [child] }, OCI_INDEX, 'descriptor')
  await refuse(':descriptor', 'corrupt')
  shelf.addManifest(manifest, `${OCI_MANIFEST}; charset=utf-8`, 'fine')
  await resolve(':fine')
})

test('sizes are checked: of what is announced before it is fetched, of what comes as it comes', async () => {
  const config = (size: number) => ({ ...describeBytes(pattern(10), OCI_CONFIG), size })
  shelf.addManifest({ schemaVersion: 2, config: config(CONFIG_MAX_BYTES + 1), layers: [] }, OCI_MANIFEST, 'config')
  await refuse(':config', 'limit')
  expect(registry.count('blob')).toBe(0)
  const platform = { os: 'linux', architecture: 'amd64' }
  const manifests = [{ ...config(MANIFEST_MAX_BYTES + 1), mediaType: OCI_MANIFEST, platform }]
  shelf.addManifest({ schemaVersion: 2, manifests }, OCI_INDEX, 'index')
  await refuse(':index', 'limit')
  shelf.addManifest(new Uint8Array(MANIFEST_MAX_BYTES + 1).fill(0x20), OCI_MANIFEST, 'large')
  await refuse(':large', 'limit')
  shelf.addImage([], { tags: ['v1'] })
  registry.faults.push({ match: /manifests/, extra: MANIFEST_MAX_BYTES * 4 })
  const registries = settings.registries()
  const endless = registries.source(parseReference(`${registry.host}/a/b:v1`)).resolve(platform)
  await expect(endless).rejects.toMatchObject({ code: 'limit' })
  expect(registries.counters().fetched).toBeLessThan(MANIFEST_MAX_BYTES + (2 << 20))
})

test('what is not there is missing, in the words of the registry', async () => {
  await expect(resolve(':absent')).rejects.toMatchObject({ code: 'missing', why: 'it says "absent is unknown"' })
  // it could have been there for somebody whom the registry knows
  expect(registry.seen.map(({ path }) => path)).toEqual(['/v2/a/b/manifests/absent', '/v2/'])
})

test('registries.conf moves references, mirrors answer first and the origin stands in for them', async () => {
  const manifest = shelf.addImage([pattern(5)], { tags: ['v1'] })
  const mirror = await startRegistry({ shelf: new MemoryShelf() })
  await settings.trust(mirror.host, mirror.cert)
  await settings.write(
    'etc/containers/registries.conf',
    `[[registry]]\nprefix = "r.example/a"\nlocation = "${registry.host}/moved"\n[[registry.mirror]]\nlocation = "${mirror.host}/m"\n`,
  )
  const registries = settings.registries({ creds: { host: 'r.example', username: 'ada', password: 'x' } })
  mirror.auth = { scheme: 'basic', username: 'ada', password: 'x' }
  const source = registries.source(parseReference('r.example/a/b:v1'))
  expect((await source.resolve(parsePlatform('linux/amd64'))).digest).toBe(manifest.digest)
  expect(mirror.seen.map((each) => [each.path, each.authorization])).toEqual([['/v2/m/b/manifests/v1', undefined]])
  expect(registry.seen.map((each) => each.path.replace(/sha256:.*/, ''))).toEqual([
    '/v2/moved/b/manifests/v1',
    '/v2/moved/b/blobs/',
  ])
  const blob = source.blob({ ...manifest, digest: digestOf(pattern(5)), size: 5 })
  await blob.read({ start: 1, end: 3 })
  expect(mirror.seen).toHaveLength(1)
  expect(blob.origin).toBe('r.example')
  await mirror.close()
})

test('documents that are called gzip, and are, are what they hold; a label alone changes nothing', async () => {
  const manifest = shelf.addImage([pattern(10)], { tags: ['v1'] })
  for (const label of ['gzip', 'x-gzip', 'aws-chunked', 'br']) {
    registry.faults = [{ match: /v2/, headers: { 'content-encoding': label } }]
    expect((await resolve(':v1')).digest).toBe(manifest.digest)
  }
  // a proxy that compresses without being asked
  let bomb = false
  const compressing = createServer(await testCertificate(), async (request, response) => {
    const [, kind, name] = /\/(manifests|blobs)\/([^/]+)$/.exec(request.url ?? '') ?? []
    const content = kind === 'manifests' ? await shelf.manifest('', name ?? '') : await shelf.blob('', name as never)
    const parts: Uint8Array[] = []
    for await (const part of content?.read(0, content.size) ?? []) parts.push(part)
    response.setHeader('content-encoding', 'gzip').setHeader('content-type', content?.mediaType ?? '')
    response.end(gzipSync(bomb ? new Uint8Array(MANIFEST_MAX_BYTES + 1) : Buffer.concat(parts)))
  })
  await new Promise<void>((done) => compressing.listen(0, '127.0.0.1', done))
  try {
    const host = `127.0.0.1:${(compressing.address() as AddressInfo).port}`
    await settings.trust(host, registry.cert)
    const get = () =>
      settings
        .registries()
        .source(parseReference(`${host}/a/b:v1`))
        .resolve(parsePlatform('linux/amd64'))
    expect((await get()).digest).toBe(manifest.digest)
    bomb = true
    await expect(get()).rejects.toMatchObject({ code: 'limit' })
  } finally {
    compressing.closeAllConnections()
    compressing.close()
  }
})
