import { expect, onTestFinished, test } from 'vitest'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import { MemoryShelf } from '../fake/image.ts'
import { startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const RANGE = { start: 0, end: 4 }

test('a registry answers until reads of it fail, and again when it is found that it gives; others are not concerned', async () => {
  const settings = await Settings.make()
  onTestFinished(() => settings[Symbol.asyncDispose]())
  const shelf = new MemoryShelf()
  const layer = shelf.addBlob(Uint8Array.of(1, 2, 3, 4))
  const start = async () => {
    const registry = await startRegistry({ shelf })
    onTestFinished(() => registry.close())
    await settings.trust(registry.host, registry.cert)
    return registry
  }
  const [one, other] = [await start(), await start()]
  const registries = settings.registries({ limits: { attempts: 1, probeMs: 20, probeMaxMs: 20 } })
  const read = ({ host }: { host: string }) =>
    registries
      .source(parseReference(`${host}/a/b:v1`))
      .blob(layer)
      .read(RANGE)
  const NEITHER = 'a tree that any copy may bring'
  const answers = () => [one.host, other.host, NEITHER, 'oci:/layout'].map((origin) => registries.answers(origin))

  expect(answers()).toEqual([true, true, true, true]) // nothing is known yet
  await read(one)
  await read(other)
  expect(answers()).toEqual([true, true, true, true])
  one.faults = [{ match: /blobs/, status: 503 }]
  await expect(read(one)).rejects.toMatchObject({ code: 'unavailable' })
  expect(answers()).toEqual([false, true, false, true])
  await read(other)
  expect(answers()).toEqual([false, true, false, true])
  one.faults = []
  await expect.poll(answers).toEqual([true, true, true, true])
})

test('a registry that is asked over HTTP where there is no HTTPS is known by its name alone, too', async () => {
  const settings = await Settings.make()
  onTestFinished(() => settings[Symbol.asyncDispose]())
  const shelf = new MemoryShelf()
  const layer = shelf.addBlob(Uint8Array.of(1, 2, 3, 4))
  const registry = await startRegistry({ shelf, tls: false })
  onTestFinished(() => registry.close())
  const registries = settings.registries({ tlsVerify: false, limits: { attempts: 1 } })
  registry.faults = [{ match: /blobs/, status: 503 }]
  const blob = registries.source(parseReference(`${registry.host}/a/b:v1`)).blob(layer)
  await expect(blob.read(RANGE)).rejects.toMatchObject({ code: 'unavailable' })
  expect(registries.answers(registry.host)).toBe(false)
  expect(registries.answers('registry.example.com')).toBe(false) // what is neither counts with all
})

test('a reference is verified when neither its registry nor a mirror of it may be asked without TLS that is', async () => {
  const settings = await Settings.make()
  onTestFinished(() => settings[Symbol.asyncDispose]())
  await settings.write(
    'etc/containers/registries.conf',
    `
[[registry]]
prefix = "registry.example.com/plain"
location = "registry.example.com/plain"
insecure = true

[[registry]]
prefix = "registry.example.com/mirrored"
location = "registry.example.com/mirrored"
[[registry.mirror]]
location = "mirror.example.com/a"
insecure = true
pull-from-mirror = "tag-only"
`,
  )
  const verifies = (text: string, tlsVerify?: boolean) => {
    const registries = settings.registries(tlsVerify === undefined ? {} : { tlsVerify })
    return registries.verifies(parseReference(text) as RegistryReference) // each is one
  }
  const name = 'registry.example.com'
  expect(await verifies(`${name}/team/app:1`)).toBe(true)
  expect(await verifies(`${name}/plain/app:1`)).toBe(false)
  expect(await verifies(`${name}/mirrored/app:1`)).toBe(false)
  // the mirror is not asked for digests
  expect(await verifies(`${name}/mirrored/app@sha256:${'a'.repeat(64)}`)).toBe(true)
  expect(await verifies(`${name}/team/app:1`, false)).toBe(false)
  expect(await verifies(`${name}/plain/app:1`, true)).toBe(false)
})
