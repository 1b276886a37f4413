import { expect, test } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import { names } from '../fake/names.ts'
import { blobs, makeScene } from './scene.ts'

async function named() {
  const scene = await makeScene()
  const certificate = await selfSigned(['registry.example.com'])
  const registry = await scene.start({ certificate })
  const port = registry.host.split(':')[1] as string
  const host = `registry.example.com:${port}`
  await scene.settings.trust(host, registry.cert)
  const limits = { probeMs: 10, probeMaxMs: 10, attempts: 2 }
  return { ...scene, registry, port, host, ...scene.open(`${host}/a/b:v1`, limits) }
}

test('while the name service does not answer, a host is where it was last; a name that is gone is believed', async () => {
  const { registry, program, registries } = await named()
  const known: Record<string, string[] | string> = { 'registry.example.com': ['127.0.0.1'] }
  const asked = names(known)
  await program.read(0)
  known['registry.example.com'] = 'EAI_AGAIN'
  // another connection
  registry.faults = [blobs({ reset: true, nth: 1 })]
  await program.read(1)
  expect(registry.seen.at(-1)?.connection).toBe(2)
  expect(asked).toHaveLength(2)
  known['registry.example.com'] = 'ENOTFOUND'
  registry.faults = [blobs({ reset: true, nth: 1 })]
  expect(await program.errnoOf(2)).toBe(5)
  known['registry.example.com'] = ['127.0.0.1']
  registry.faults = []
  await expect.poll(() => registries.outages()).toEqual([])
  await program.read(2)
})

test('a name that was never heard of is not there until the name service answers', async () => {
  const { program, registries } = await named()
  const known: Record<string, string[] | string> = { 'registry.example.com': 'EAI_AGAIN' }
  names(known)
  expect(await program.errnoOf(0)).toBe(5)
  known['registry.example.com'] = ['127.0.0.1']
  await expect.poll(() => registries.outages()).toEqual([])
  await program.read(0)
})

test('addresses at which nobody answers are passed over for one that does', async () => {
  const { program } = await named()
  // nobody listens there; there is no way to the documentation's addresses (RFC 3849, RFC 5737)
  names({ 'registry.example.com': ['::1', '2001:db8::1', '192.0.2.1', '127.0.0.1'] })
  await program.read(0)
})

test('a mirror of which the name is not known is passed over', async () => {
  const { settings, registry, open } = await named()
  names({})
  const text = `[[registry]]\nlocation = "${registry.host}"\ninsecure = true\n[[registry.mirror]]\nlocation = "mirror.example.com"\n`
  await settings.write('etc/containers/registries.conf', text)
  await open(`${registry.host}/a/b:v1`).program.read(0)
})
