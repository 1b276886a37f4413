import { afterEach, expect, onTestFinished, test } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import type { Platform } from '../../src/image/manifest.ts'
import { isOffLimits } from '../../src/registry/off-limits.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { names } from '../fake/names.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const AMD64: Platform = { os: 'linux', architecture: 'amd64' }

test.each([
  '169.254.169.254',
  '169.254.0.1',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  '[fe80::1]',
  'fe80::1%eth0',
  'febf:ffff::1',
  'fd00:ec2::254',
  'fd00:0ec2:0:0:0:0:0:254',
  '64:ff9b::a9fe:a9fe',
  '64:ff9b::169.254.169.254',
  '64:ff9b::808:808',
  '64:ff9b:1::a9fe:a9fe',
  '::ffff:169.254.169.254',
  '::FFFF:A9FE:A9FE',
  '::169.254.169.254',
  '::ffff:0:169.254.169.254',
  '2002:a9fe:a9fe::1',
  '::ffff:100.100.100.200',
  '::ffff:168.63.129.16',
  '::192.0.0.192',
])('%s is off limits', (address) => {
  expect(isOffLimits(address)).toBe(true)
  const bare = address.replace(/^\[|\]$/g, '').replace(/%.*/, '')
  const url = new URL(bare.includes(':') ? `https://[${bare}]/` : `https://${bare}/`)
  expect(isOffLimits(url.hostname), url.hostname).toBe(true)
})

test('so are other spellings of an address, as URLs understand them', () => {
  for (const host of [
    '0xa9fea9fe',
    '2852039166',
    '0251.0376.0251.0376',
    '169.254.43518',
    '169.254.169.254.',
    '１69.254.169.254',
  ]) {
    expect(isOffLimits(new URL(`http://${host}/`).hostname), host).toBe(true)
  }
})

test('loopback, private networks and names are not', () => {
  for (const host of [
    '127.0.0.1',
    '::1',
    '[::1]',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    'fd00::1',
    'fec0::1',
    '8.8.8.8',
  ]) {
    expect(isOffLimits(host), host).toBe(false)
  }
  for (const host of [
    '169.255.0.1',
    '100.100.100.201',
    '::ffff:10.0.0.1',
    '2002:a00::1',
    '64:ff9a::1',
    '169.254.example.com',
    '',
  ]) {
    expect(isOffLimits(host), host).toBe(false)
  }
})

const running: FakeRegistry[] = []

afterEach(async () => {
  await Promise.all(running.splice(0).map((each) => each.close()))
})

async function scene() {
  const settings = await Settings.make()
  onTestFinished(() => settings[Symbol.asyncDispose]())
  const shelf = new MemoryShelf()
  shelf.addImage([pattern(100)], { tags: ['v1'] })
  const certificate = await selfSigned(['registry.example.com', 'near.example.com', '127.0.0.1'])
  const registry = await startRegistry({ shelf, certificate })
  running.push(registry)
  const port = registry.host.split(':')[1] as string // it has one
  for (const host of ['registry.example.com', 'near.example.com', '127.0.0.1'])
    await settings.trust(`${host}:${port}`, registry.cert)
  const resolve = (host: string, limits = {}) =>
    settings
      .registries({ limits: { attempts: 1, connectMs: 300, ...limits } })
      .source({ transport: 'docker', host: `${host}:${port}`, repository: 'team/app', tag: 'v1' })
      .resolve(AMD64)
  return { settings, registry, port, resolve }
}

const DENIED = {
  code: 'denied',
  why: 'it is a link-local address, or one of cloud metadata',
  fix: expect.stringContaining('registries.conf'),
}

test('a name counts by its addresses, of which none that is off limits is connected to', async () => {
  const { resolve, registry } = await scene()
  const asked = names({
    'metadata.example.com': ['169.254.169.254', 'fd00:ec2::254'],
    'mapped.example.com': ['::ffff:169.254.169.254'],
    'far.example.com': ['64:ff9b::a9fe:a9fe'],
    'registry.example.com': ['169.254.169.254', 'fe80::1', '127.0.0.1'],
  })
  for (const name of ['metadata.example.com', 'mapped.example.com', 'far.example.com']) {
    await expect(resolve(name), name).rejects.toMatchObject(DENIED)
  }
  await resolve('registry.example.com')
  expect(registry.seen.length).toBeGreaterThan(0)
  expect(asked).toContain('metadata.example.com')
})

test('what somebody names as an image, a redirect or a token service is refused', async () => {
  const { resolve, registry, port } = await scene()
  names({ 'metadata.example.com': ['169.254.169.254'] })
  for (const host of ['169.254.169.254', '[fd00:ec2::254]', '0xa9fea9fe', '168.63.129.16']) {
    await expect(resolve(host), host).rejects.toMatchObject(DENIED)
  }
  const places = [
    '169.254.169.254',
    'metadata.example.com',
    `169.254.169.254:${port}`,
    '[::ffff:a9fe:a9fe]',
    '192.0.0.192',
    '[64:ff9b::1]',
  ]
  for (const place of places) {
    registry.faults = [{ match: /manifests/, redirect: `https://${place}/latest/meta-data` }]
    await expect(resolve('127.0.0.1'), place).rejects.toMatchObject({ code: 'denied' })
    registry.faults = []
    registry.auth = { scheme: 'bearer', realm: `https://${place}/token` }
    await expect(resolve('127.0.0.1'), place).rejects.toMatchObject({ code: 'denied' })
    registry.auth = undefined
  }
})

test('hosts that registries.conf spells out may be there; a wildcard or a prefix spells out none', async () => {
  const { settings, resolve, port } = await scene()
  names({ 'near.example.com': ['169.254.77.7'], 'other.example.com': ['169.254.77.7'] })
  const conf = (text: string) => settings.write('etc/containers/registries.conf', text)
  await conf(`[[registry]]\nprefix = "*.example.com"\ninsecure = true\n`)
  await expect(resolve('near.example.com')).rejects.toMatchObject(DENIED)
  for (const text of [
    `[[registry]]\nlocation = "near.example.com:${port}"\n`,
    `[[registry]]\nprefix = "registry.example.com"\nlocation = "registry.example.com"\n[[registry.mirror]]\nlocation = "near.example.com:${port}/m"\n`,
  ]) {
    await conf(text)
    // it is tried; nobody is there
    await expect(resolve('near.example.com')).rejects.toMatchObject({
      code: expect.stringMatching(/unavailable|timeout/),
    })
    await expect(resolve('other.example.com')).rejects.toMatchObject(DENIED)
  }
})
