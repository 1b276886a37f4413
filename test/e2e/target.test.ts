// Pushing to a real registry, Debian's docker-registry behind nginx with TLS and basic authentication, and reading back what it keeps.
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import type { Registries } from '../../src/registry/registries.ts'
import type { Pushed } from '../../src/registry/target.ts'
import { pattern } from '../fake/image.ts'
import { Settings } from '../fake/settings.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type DockerRegistry, startDockerRegistry } from './engines/registry.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const LAYER_BYTES = 5_000_000
const PLATFORM = { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }

suite('pushing to a registry', lacking(REGISTRY_PROGRAMS, { root: false }), () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let settings: Settings
  let registries: Registries
  let layout: string
  let layers: readonly Descriptor[]

  beforeAll(async () => {
    work = await makeWorkDirectory()
    layout = join(work.path, 'layout')
    const entries = [{ path: 'file', type: 'file' as const, content: pattern(LAYER_BYTES) }]
    await writeImage({ dir: layout, tag: 'image', layers: [{ kind: 'estargz', entries }] })
    const login = { username: 'ann', password: 'secret' }
    registry = await startDockerRegistry({ dir: work.path, credentials: login })
    settings = await Settings.make()
    await settings.trust(registry.host, await readFile(registry.caFile, 'utf8'))
    registries = settings.registries({ creds: { host: registry.host, ...login } })
  })
  afterAll(async () => {
    await settings?.[Symbol.asyncDispose]()
    await registry?.stop()
    await work?.remove()
  })

  const path = (digest: Descriptor['digest']) => join(layout, 'blobs', 'sha256', hex(digest))
  const pushed = ({ digest, size }: Descriptor): Pushed => ({
    digest,
    size,
    open: (start) => createReadStream(path(digest), { start }),
  })
  const target = (repository: string, from?: string) =>
    registries.target(parseReference(`${registry.host}/${repository}`) as RegistryReference, from)

  test('an image is there to the byte, under its tag', async () => {
    const local = registries.source(parseReference(`oci:${layout}:image`))
    const image = await local.resolve(PLATFORM)
    layers = image.manifest.layers
    const to = target('team/app')
    for (const each of [image.manifest.config, ...layers]) expect(await to.pushBlob(pushed(each))).toBe('pushed')
    const manifest = new Uint8Array(await readFile(path(image.digest)))
    expect(await to.pushManifest(manifest, image.manifest.mediaType, { tag: 'v1' })).toBe(image.digest)

    const back = registries.source(parseReference(`${registry.host}/team/app:v1`))
    expect((await back.resolve(PLATFORM)).digest).toBe(image.digest)
    for (const each of layers) {
      expect(digestOf(await back.blob(each).read({ start: 0, end: each.size }))).toBe(each.digest)
    }
  })

  test('what it has is not sent again, and mounted into another repository', async () => {
    await registry.clear()
    const [layer] = layers as [Descriptor]
    expect(await target('team/app').pushBlob(pushed(layer))).toBe('there')
    expect(await target('team/other', 'team/app').pushBlob(pushed(layer))).toBe('mounted')
    expect(
      (await registry.log()).map(({ method }) => method).filter((each) => each === 'PUT' || each === 'PATCH'),
    ).toEqual([])
  })

  test('bytes that are not the digest’s are refused, and a push that is given up leaves nothing', async () => {
    const [layer] = layers as [Descriptor]
    const lie: Pushed = { ...pushed(layer), digest: digestOf(pattern(7)) }
    await expect(target('team/app').pushBlob(lie)).rejects.toMatchObject({ code: 'corrupt' })
    const stop = new AbortController()
    const bytes = pattern(LAYER_BYTES, 3)
    const stops: Pushed = {
      digest: digestOf(bytes),
      size: bytes.length,
      async *open() {
        yield bytes.subarray(0, 1 << 20)
        stop.abort()
        yield bytes.subarray(1 << 20)
      },
    }
    const to = target('team/app')
    await expect(to.pushBlob(stops, { signal: stop.signal })).rejects.toMatchObject({ code: 'aborted' })
    async function* whole() {
      yield bytes
    }
    expect(await to.pushBlob({ ...stops, open: whole })).toBe('pushed')
  })

  test('whoever has no credentials is told so', async () => {
    const nobody = settings.registries().target(parseReference(`${registry.host}/team/app`) as RegistryReference)
    await expect(nobody.pushBlob(pushed((layers as [Descriptor])[0]))).rejects.toMatchObject({ code: 'denied' })
  })
})
