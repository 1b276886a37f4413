import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import type { Pushed } from '../../src/registry/target.ts'
import { json, MemoryShelf, OCI_MANIFEST, pattern } from '../fake/image.ts'
import { type FakeOptions, type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'
import { type UploadOptions, Uploads } from '../fake/uploads.ts'

const BYTES = pattern(3_000_000)

let settings: Settings
const open: FakeRegistry[] = []

beforeEach(async () => {
  settings = await Settings.make()
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await Promise.all(open.splice(0).map((each) => each.close()))
})

/** Bytes that are pushed, in parts; `opened`: from where on each time. */
function pushed(bytes = BYTES, digest = digestOf(bytes)): Pushed & { opened: number[] } {
  const opened: number[] = []
  return {
    digest,
    size: bytes.length,
    opened,
    async *open(start) {
      opened.push(start)
      for (let at = start; at < bytes.length; at += 1 << 16) yield bytes.subarray(at, at + (1 << 16))
    },
  }
}

async function fake(options: Partial<FakeOptions> = {}, uploads: UploadOptions = {}) {
  const shelf = new MemoryShelf()
  const registry = await startRegistry({ shelf, uploads: new Uploads(shelf, uploads), ...options })
  open.push(registry)
  await settings.trust(registry.host, registry.cert)
  return { shelf, registry }
}

function target(registry: FakeRegistry, options: RegistriesOptions & { from?: string } = {}) {
  const { from, ...rest } = options
  const registries = settings.registries(rest)
  const to = registries.target(parseReference(`${registry.host}/team/app`) as RegistryReference, from)
  return { to, registries }
}

const said = ({ seen }: FakeRegistry) =>
  seen.map(({ method, path, status }) => `${method} ${path.replace(/sha256:\w+|sha256%3A\w+/, 'DIGEST')} ${status}`)

describe('a blob', () => {
  test.each([[{}], [{ http2: false }]])('is begun and sent in one piece, once (%o)', async (options) => {
    const { shelf, registry } = await fake(options)
    const { to } = target(registry)
    const blob = pushed()
    expect(await to.pushBlob(blob)).toBe('pushed')
    expect(said(registry)).toEqual([
      'HEAD /v2/team/app/blobs/DIGEST 404',
      'POST /v2/team/app/blobs/uploads/ 202',
      'PUT /v2/team/app/blobs/uploads/1?state=of-it&digest=DIGEST 201',
    ])
    expect(shelf.blobs.get(blob.digest)?.size).toBe(BYTES.length)
    expect(blob.opened).toEqual([0])
    expect(await to.pushBlob(blob)).toBe('there')
    expect(said(registry).slice(3)).toEqual(['HEAD /v2/team/app/blobs/DIGEST 200'])
  })

  test('that is empty is pushed too', async () => {
    const { shelf, registry } = await fake()
    const blob = pushed(new Uint8Array())
    expect(await target(registry).to.pushBlob(blob)).toBe('pushed')
    expect(shelf.blobs.get(blob.digest)?.size).toBe(0)
  })

  test('is mounted from a repository that has it, and sent where that has it not', async () => {
    const blob = pushed()
    const mountable = new Map<string, readonly Digest[]>([['team/base', [blob.digest]]])
    const { registry } = await fake({}, { mountable })
    const { to } = target(registry, { from: 'team/base' })
    expect(await to.pushBlob(blob)).toBe('mounted')
    expect(blob.opened).toEqual([])
    expect(await to.pushBlob(pushed(pattern(10)))).toBe('pushed')
    expect(said(registry)).toEqual([
      'HEAD /v2/team/app/blobs/DIGEST 404',
      'POST /v2/team/app/blobs/uploads/?mount=DIGEST&from=team%2Fbase 201',
      'HEAD /v2/team/app/blobs/DIGEST 404',
      'POST /v2/team/app/blobs/uploads/?mount=DIGEST&from=team%2Fbase 202',
      'PUT /v2/team/app/blobs/uploads/1?state=of-it&digest=DIGEST 201',
    ])
  })

  test.each([400, 403, 404, 405])('is sent where mounting is answered with status %d', async (status) => {
    const { registry } = await fake({ faults: [{ match: /mount=/, status }] })
    expect(await target(registry, { from: 'team/base' }).to.pushBlob(pushed())).toBe('pushed')
  })

  test('goes in pieces to a registry that takes no large requests', async () => {
    const large = pattern(70 << 20)
    const { shelf, registry } = await fake({}, { requestMaxBytes: 40 << 20 })
    const blob = pushed(large)
    expect(await target(registry).to.pushBlob(blob)).toBe('pushed')
    expect(said(registry).filter((each) => each.startsWith('PATCH'))).toHaveLength(3)
    expect(shelf.blobs.get(blob.digest)?.size).toBe(large.length)
    const small = await fake({}, { requestMaxBytes: 1000 })
    await expect(target(small.registry).to.pushBlob(pushed())).rejects.toMatchObject({ code: 'limit' })
  })

  test('is sent again from its beginning after a failure that passes, a few times', async () => {
    const { shelf, registry } = await fake({ faults: [{ match: /digest=/, until: 2, status: 503 }] })
    const { to, registries } = target(registry)
    const blob = pushed()
    expect(await to.pushBlob(blob)).toBe('pushed')
    expect(blob.opened).toEqual([0, 0, 0])
    expect(registries.counters()).toMatchObject({ retries: 2 })
    expect(shelf.blobs.has(blob.digest)).toBe(true)
    registry.faults = [{ match: /digest=/, reset: true }]
    await expect(to.pushBlob(pushed(pattern(10)))).rejects.toMatchObject({ code: 'unavailable' })
  })

  test('of other bytes than its digest says is refused, as is one that ends too early', async () => {
    const { registry } = await fake()
    const { to } = target(registry)
    await expect(to.pushBlob(pushed(BYTES, digestOf(pattern(5))))).rejects.toMatchObject({
      code: 'corrupt',
      why: 'it says "provided digest did not match"',
    })
    await expect(to.pushBlob({ ...pushed(), size: BYTES.length + 1 })).rejects.toMatchObject({ code: 'corrupt' })
    const broken: Pushed = {
      ...pushed(),
      // biome-ignore lint/correctness/useYield: it fails before
      async *open() {
        throw Object.assign(new Error('EIO'), { code: 'EIO' })
      },
    }
    await expect(to.pushBlob(broken)).rejects.toMatchObject({ code: 'system' })
  })

  test('is not sent any more when its sender gives up', async () => {
    const { registry } = await fake()
    const stop = new AbortController()
    const never: Pushed = {
      ...pushed(),
      async *open() {
        yield BYTES.subarray(0, 10)
        stop.abort(Failure.aborted('enough'))
        await new Promise((resolve) => setTimeout(resolve, 60_000).unref())
      },
    }
    await expect(target(registry).to.pushBlob(never, { signal: stop.signal })).rejects.toMatchObject({
      code: 'aborted',
    })
  })

  test('goes where the registry says, without credentials where that is another host', async () => {
    const storage = await fake()
    const creds = { username: 'ann', password: 'secret' }
    const { registry } = await fake({ auth: { scheme: 'basic', ...creds } }, { storage: storage.registry.url })
    const { to } = target(registry, { creds: { host: registry.host, ...creds } })
    await expect(to.pushBlob(pushed())).rejects.toMatchObject({ code: 'missing' }) // it has not begun this upload
    expect(registry.seen.at(-1)?.authorization).toMatch(/^Basic /)
    const [put] = storage.registry.seen
    expect([put?.method, put?.authorization]).toEqual(['PUT', undefined])
  })

  test('goes to no cloud’s metadata, whatever the registry says', async () => {
    const { registry } = await fake({}, { storage: 'https://169.254.169.254' })
    await expect(target(registry).to.pushBlob(pushed())).rejects.toMatchObject({ code: 'denied' })
  })
})

describe('who pushes', () => {
  const users = new Map([['ann', 'secret']])

  test('asks for a token to pull and push, and to pull from where blobs may be mounted', async () => {
    const { registry } = await fake({ auth: { scheme: 'bearer', users } })
    const creds = { host: registry.host, username: 'ann', password: 'secret' }
    const { to } = target(registry, { creds, from: 'team/base' })
    expect(await to.pushBlob(pushed())).toBe('pushed')
    const tokens = registry.seen.filter(({ kind }) => kind === 'token')
    expect(tokens.map(({ path }) => new URL(path, 'http://x').searchParams.getAll('scope'))).toEqual([
      ['repository:team/app:pull,push', 'repository:team/base:pull'],
    ])
  })

  test('gets another token when the one he has is refused, and sends anew', async () => {
    const { registry } = await fake({ auth: { scheme: 'bearer', users } })
    const { to } = target(registry, { creds: { host: registry.host, username: 'ann', password: 'secret' } })
    await to.pushBlob(pushed(pattern(10)))
    registry.revoke()
    const blob = pushed()
    expect(await to.pushBlob(blob)).toBe('pushed')
    expect(registry.count('token')).toBe(2)
  })

  test('is told when his credentials do not suffice, or when there are none', async () => {
    const { registry } = await fake({ auth: { scheme: 'basic', username: 'ann', password: 'secret' } })
    const wrong = target(registry, { creds: { host: registry.host, username: 'ann', password: 'wrong' } })
    await expect(wrong.to.pushBlob(pushed())).rejects.toMatchObject({ code: 'denied' })
    await expect(target(registry).to.pushBlob(pushed())).rejects.toMatchObject({
      code: 'denied',
      why: 'it wants credentials, and there are none',
      fix: `Log in with: podman login ${registry.host}`,
    })
  })

  test('may read and not write', async () => {
    const { registry } = await fake({ faults: [{ match: /uploads/, status: 403 }] })
    await expect(target(registry).to.pushBlob(pushed())).rejects.toMatchObject({ code: 'denied' })
  })

  test('reaches an insecure registry over HTTP, and no other', async () => {
    const { registry } = await fake({ tls: false })
    expect(await target(registry, { tlsVerify: false }).to.pushBlob(pushed())).toBe('pushed')
    await expect(target(registry).to.pushBlob(pushed())).rejects.toMatchObject({ name: 'Failure' })
  })
})

describe('a manifest', () => {
  test('is kept under its tag and its digest once its blobs are there, and can be pulled', async () => {
    const { registry } = await fake()
    const { to, registries } = target(registry)
    const config = json({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digestOf(BYTES)] } })
    const descriptor = (bytes: Uint8Array, mediaType: string) => ({
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
    })
    const manifest = json({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptor(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [descriptor(BYTES, 'application/vnd.oci.image.layer.v1.tar')],
    })
    await expect(to.pushManifest(manifest, OCI_MANIFEST, { tag: 'v1' })).rejects.toMatchObject({ code: 'missing' })
    for (const each of [BYTES, config]) await to.pushBlob(pushed(each))
    expect(await to.pushManifest(manifest, OCI_MANIFEST, { tag: 'v1' })).toBe(digestOf(manifest))
    expect(registry.seen.at(-1)?.header('content-type')).toBe(OCI_MANIFEST)
    const source = registries.source(parseReference(`${registry.host}/team/app:v1`))
    expect((await source.resolve({ os: 'linux', architecture: 'amd64' })).digest).toBe(digestOf(manifest))
    expect(await to.pushManifest(manifest, OCI_MANIFEST)).toBe(digestOf(manifest))
    expect(registry.seen.at(-1)?.path).toBe(`/v2/team/app/manifests/${digestOf(manifest)}`)
  })

  test('that the registry keeps as something else is no success', async () => {
    const { registry } = await fake({
      faults: [{ match: /manifests/, headers: { 'docker-content-digest': digestOf(BYTES) } }],
    })
    const pushing = target(registry).to.pushManifest(json({ schemaVersion: 2 }), OCI_MANIFEST, { tag: 'v1' })
    await expect(pushing).rejects.toMatchObject({ code: 'corrupt' })
  })
})

test('what is pushed goes to the location, never to a mirror', async () => {
  const [location, mirror] = [await fake(), await fake()]
  await settings.write(
    'etc/containers/registries.conf',
    `[[registry]]\nprefix = "example.com/team"\nlocation = "${location.registry.host}/elsewhere"\n[[registry.mirror]]\nlocation = "${mirror.registry.host}/team"\n`,
  )
  const to = settings.registries().target(parseReference('example.com/team/app') as RegistryReference)
  expect(await to.pushBlob(pushed())).toBe('pushed')
  expect(mirror.registry.seen).toEqual([])
  expect(location.registry.seen[0]?.path).toMatch(/^\/v2\/elsewhere\/app\//)
})
