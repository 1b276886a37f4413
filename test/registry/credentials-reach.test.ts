import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Platform } from '../../src/image/manifest.ts'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type Auth, type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const AMD64: Platform = { os: 'linux', architecture: 'amd64' }
const ADA = { username: 'ada', password: 'hunter2' }
const USERS = new Map([[ADA.username, ADA.password]])

let settings: Settings
let shelf: MemoryShelf
const running: FakeRegistry[] = []

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  shelf.addImage([pattern(5_000)], { tags: ['v1'] })
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await Promise.all(running.splice(0).map((each) => each.close()))
})

/** Asks for credentials; hands the image to those that bring Ada's. */
async function start(auth: Auth = { scheme: 'basic', ...ADA }): Promise<FakeRegistry> {
  const registry = await startRegistry({ shelf, auth })
  running.push(registry)
  await settings.trust(registry.host, registry.cert)
  return registry
}

/** Asks for any credentials that one may have, by both schemes; what it is sent it must not be sent. */
const thieves = async () => [
  await start({ scheme: 'basic', username: 'nobody', password: '' }),
  await start({ scheme: 'bearer', users: new Map() }),
]

const at = (host: string) => parseReference(`${host}/team/app:v1`) as RegistryReference
const resolve = (options: RegistriesOptions, host: string) =>
  settings.registries(options).source(at(host)).resolve(AMD64)
const conf = (text: string) => settings.write('etc/containers/registries.conf', text)
const entry = ({ username, password } = ADA) => ({
  auth: Buffer.from(`${username}:${password}`).toString('base64'),
})

function expectNothing(...hosts: FakeRegistry[]): void {
  for (const { seen } of hosts) {
    expect(seen.length, 'it was asked').toBeGreaterThan(0)
    expect(seen.map((each) => each.authorization)).toEqual(seen.map(() => undefined))
    expect(seen.map((each) => `${each.path} ${each.body}`).join()).not.toContain(ADA.password)
  }
}

test('--creds is for the host of its image, and for no other that is asked', async () => {
  const own = await start()
  const creds = { host: own.host, ...ADA }
  const registries = settings.registries({ creds })
  await registries.source(at(own.host)).resolve(AMD64)
  for (const other of await thieves()) {
    await expect(registries.source(at(other.host)).resolve(AMD64)).rejects.toMatchObject({ code: 'denied' })
    expectNothing(other)
  }
})

test('neither mirrors nor a location elsewhere are sent --creds; a mirror on the same host is', async () => {
  const own = await start()
  const mirrors = await thieves()
  const creds = { host: own.host, ...ADA }
  const elsewhere = mirrors.map((each) => `[[registry.mirror]]\nlocation = "${each.host}/m"\n`).join('')
  await conf(`[[registry]]\nlocation = "${own.host}"\n${elsewhere}`)
  await resolve({ creds }, own.host)
  expectNothing(...mirrors)
  expect(own.seen.at(-1)?.authorization).toMatch(/^Basic /)

  for (const other of await thieves()) {
    await conf(`[[registry]]\nprefix = "${own.host}"\nlocation = "${other.host}"\n`)
    await expect(resolve({ creds }, own.host)).rejects.toMatchObject({ code: 'denied' })
    expectNothing(other)
  }

  own.seen.length = 0
  await conf(`[[registry]]\nlocation = "${own.host}"\n[[registry.mirror]]\nlocation = "${own.host}/m"\n`)
  await resolve({ creds }, own.host)
  expect(own.seen.at(-1)).toMatchObject({ path: expect.stringMatching(/^\/v2\/m\//), status: 200 })
})

test('a port is another host', async () => {
  const [own, other] = [await start(), await start()]
  const name = own.host.replace('127.0.0.1', 'localhost')
  const options = { creds: { host: own.host, ...ADA }, tlsVerify: false }
  for (const host of [other.host, name]) {
    await expect(resolve(options, host)).rejects.toMatchObject({ code: 'denied' })
  }
  expectNothing(other, own)
})

test('--creds-file holds credentials by host; what it lacks the usual files have', async () => {
  const [own, second] = [await start(), await start()]
  const other = (await thieves()) as [FakeRegistry, FakeRegistry]
  const credsFile = await settings.write('creds.json', JSON.stringify({ auths: { [own.host]: entry() } }))
  await settings.write(
    'run/1000/auth.json',
    JSON.stringify({ auths: { [own.host]: entry({ ...ADA, password: 'old' }), [second.host]: entry() } }),
  )
  await resolve({ credsFile }, own.host)
  await resolve({ credsFile }, second.host)
  for (const each of other) {
    await expect(resolve({ credsFile }, each.host)).rejects.toMatchObject({ code: 'denied' })
  }
  expectNothing(...other)
  const absent = { credsFile: `${settings.dir}/absent` }
  await expect(resolve(absent, own.host)).rejects.toMatchObject({ code: 'usage', message: /absent does not exist$/ })
})

test('what an engine handed over for a reference goes to no host that registries.conf has answer instead', async () => {
  const own = await start()
  for (const other of await thieves()) {
    await conf(
      `[[registry]]\nprefix = "${own.host}/team"\nlocation = "${other.host}/team"\n[[registry.mirror]]\nlocation = "${other.host}/team"\n`,
    )
    const registries = settings.registries()
    await registries.remember(at(own.host), ADA)
    await expect(registries.source(at(own.host)).resolve(AMD64)).rejects.toMatchObject({ code: 'denied' })
    expectNothing(other)
  }
  await conf('')
  const registries = settings.registries()
  await registries.remember(at(own.host), ADA)
  await registries.source(at(own.host)).resolve(AMD64)
})

test('a token service gets what its registry was to get, and only by the word of that registry', async () => {
  const service = await start({ scheme: 'bearer', users: USERS })
  const own = await start({ scheme: 'bearer', realm: `${service.url}/token` })
  const creds = { host: own.host, ...ADA }
  await expect(resolve({ creds }, own.host)).rejects.toMatchObject({ code: 'denied' }) // its tokens are not ours
  expect(service.seen[0]).toMatchObject({ kind: 'token', status: 200, authorization: expect.stringMatching(/^Basic /) })
  const other = await start({ scheme: 'bearer', realm: `${service.url}/token` })
  service.seen.length = 0
  await expect(resolve({ creds }, other.host)).rejects.toMatchObject({ code: 'denied' })
  expectNothing(service, other)
})

test('a token service that leads elsewhere is not followed', async () => {
  const [capture] = (await thieves()) as [FakeRegistry]
  const own = await start({ scheme: 'bearer', users: USERS })
  own.faults = [{ match: /^\/token/, redirect: `${capture.url}/token` }]
  await expect(resolve({ creds: { host: own.host, ...ADA } }, own.host)).rejects.toMatchObject({ code: 'denied' })
  expect(capture.seen).toEqual([])
})
