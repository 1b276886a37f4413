import { afterEach, beforeEach, expect, test } from 'vitest'
import { selfSigned } from '../../src/build/certificate.ts'
import type { Descriptor, Platform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { proxiesOf } from '../../src/registry/proxies.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeProxy, startProxy } from '../fake/proxy.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const AMD64: Platform = { os: 'linux', architecture: 'amd64' }
const ADA = { username: 'ada', password: 'hunter2' }
const PROXY = 'http://proxy.example.com:3128'

/** Who is asked for a URL in that environment: `direct`, or the proxy. */
function way(url: string, env: Record<string, string>): string {
  const proxy = proxiesOf(env)(new URL(url))
  return proxy === undefined ? 'direct' : [proxy.url.origin, proxy.authorization].filter(Boolean).join(' ')
}

test.each<[Record<string, string>, string, string]>([
  [{}, 'direct', 'direct'],
  [{ HTTPS_PROXY: PROXY }, PROXY, 'direct'],
  [{ https_proxy: PROXY }, PROXY, 'direct'],
  [{ HTTP_PROXY: PROXY }, 'direct', PROXY],
  [{ http_proxy: PROXY }, 'direct', PROXY],
  [{ HTTPS_PROXY: PROXY, https_proxy: 'http://other.example.com' }, PROXY, 'direct'],
  [{ HTTPS_PROXY: '', https_proxy: PROXY }, PROXY, 'direct'],
  [{ HTTPS_PROXY: 'proxy.example.com:3128', HTTP_PROXY: '10.1.1.1' }, PROXY, 'http://10.1.1.1'],
  [{ HTTPS_PROXY: 'https://proxy.example.com/' }, 'https://proxy.example.com', 'direct'],
  [{ HTTPS_PROXY: 'http://u%40x:p%3Aw@proxy.example.com:3128' }, `${PROXY} Basic ${btoa('u@x:p:w')}`, 'direct'],
  [{ HTTPS_PROXY: 'http://token@proxy.example.com:3128' }, `${PROXY} Basic ${btoa('token:')}`, 'direct'],
  [{ ALL_PROXY: PROXY, all_proxy: PROXY }, 'direct', 'direct'], // engines do not read it
  [{ HTTP_PROXY: PROXY, REQUEST_METHOD: 'GET' }, 'direct', 'direct'], // CVE-2016-5385
])('of %j HTTPS goes to %s, HTTP to %s', (env, https, http) => {
  expect(way('https://registry.example.com/v2/', env)).toBe(https)
  expect(way('http://registry.example.com/v2/', env)).toBe(http)
})

test.each<[string, string, boolean]>([
  ['registry.example.com', 'https://registry.example.com', true],
  ['registry.example.com', 'https://registry.example.com:5000', true],
  ['registry.example.com', 'https://a.registry.example.com', true],
  ['registry.example.com', 'https://xregistry.example.com', false],
  ['REGISTRY.Example.COM', 'https://registry.example.com', true],
  ['example.com', 'https://registry.example.com', true],
  ['.example.com', 'https://registry.example.com', true],
  ['.example.com', 'https://example.com', false],
  ['*.example.com', 'https://registry.example.com', true],
  ['*.example.com', 'https://example.com', false],
  ['example.com:5000', 'https://registry.example.com:5000', true],
  ['example.com:5000', 'https://registry.example.com', false],
  ['example.com:443', 'https://registry.example.com', true],
  ['example.com:80', 'http://registry.example.com', true],
  ['.example.com:80', 'https://registry.example.com', false],
  ['a.test, ,registry.example.com ', 'https://registry.example.com', true],
  ['a.test registry.example.com', 'https://registry.example.com', false], // commas alone part
  ['*', 'https://registry.example.com', true],
  ['a.test,*', 'http://10.0.0.1', true],
  ['10.1.2.3', 'https://10.1.2.3', true],
  ['10.1.2.3', 'https://10.1.2.4', false],
  ['10.1.2.3:5000', 'https://10.1.2.3:5000', true],
  ['10.1.2.3:5000', 'https://10.1.2.3', false],
  ['10.0.0.0/8', 'https://10.1.2.3:5000', true],
  ['10.0.0.0/8', 'https://11.1.2.3', false],
  ['10.0.0.0/8', 'https://registry.example.com', false],
  ['10.0.0.0/33', 'https://10.1.2.3', false],
  ['fd00::/8', 'https://[fd00::1]:5000', true],
  ['fd00::1', 'https://[fd00::1]', true],
  ['[fd00::1]:5000', 'https://[fd00::1]:5000', true],
  ['[fd00::1]:5000', 'https://[fd00::1]', false],
  ['', 'https://localhost', true],
  ['', 'http://127.0.0.1:5000', true],
  ['', 'https://127.9.9.9', true],
  ['', 'https://[::1]:5000', true],
  ['', 'https://[::ffff:127.0.0.1]', true],
  ['', 'https://localhost.example.com', false],
  [':5000', 'https://registry.example.com:5000', false],
])('with NO_PROXY=%s %s is asked directly: %s', (exceptions, url, direct) => {
  for (const name of ['NO_PROXY', 'no_proxy']) {
    const env = { HTTP_PROXY: PROXY, HTTPS_PROXY: PROXY, [name]: exceptions }
    expect(way(url, env)).toBe(direct ? 'direct' : PROXY)
  }
})

test('what is no proxy is said without its text, and only to who would use it', () => {
  for (const text of ['socks5://u:hunter2@proxy.example.com', 'http://', 'http://u:hunter2@[', 'ftp://x']) {
    const env = { HTTPS_PROXY: text, NO_PROXY: 'near.example.com' }
    expect(way('https://near.example.com', env)).toBe('direct')
    const use = () => way('https://registry.example.com', env)
    expect(use, text).toThrow(expect.objectContaining({ code: 'usage' }))
    expect(use).not.toThrow(/hunter2/)
  }
})

let settings: Settings
let registry: FakeRegistry
let proxy: FakeProxy
let layer: Descriptor
const LAYER = pattern(100_000)
/** Only the proxy knows that name. */
let name: string

async function begin(tls: boolean, login?: string): Promise<void> {
  const shelf = new MemoryShelf()
  layer = shelf.addBlob(LAYER)
  shelf.addImage([LAYER], { tags: ['v1'] })
  const certificate = await selfSigned(['registry.example.com', 'proxy.example.com'])
  registry = await startRegistry({ shelf, tls, certificate })
  proxy = await startProxy(login)
  name = registry.host.replace('127.0.0.1', 'registry.example.com')
}

beforeEach(async () => {
  settings = await Settings.make()
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await proxy?.[Symbol.asyncDispose]()
  await registry?.close()
})

function open(env: Record<string, string>, options: RegistriesOptions = {}) {
  const registries = settings.registries({ ...options, places: { ...settings.places, env } })
  const source = registries.source(parseReference(`${name}/team/app:v1`))
  return { registries, source, blob: source.blob(layer), resolve: () => source.resolve(AMD64) }
}

test('HTTPS goes through a tunnel: HTTP/2 and certificates are those of the registry, credentials of the proxy its own', async () => {
  await begin(true, 'user:pass')
  registry.auth = { scheme: 'basic', ...ADA }
  const env = { HTTPS_PROXY: `http://user:pass@${proxy.host}` }
  await expect(open(env).resolve()).rejects.toMatchObject({
    code: 'denied',
    message: expect.stringContaining('certificate'),
  })
  await settings.trust(name, registry.cert)
  const { resolve, blob } = open(env, { creds: { host: name, ...ADA } })
  await resolve()
  expect(await blob.read({ start: 10, end: 20 })).toEqual(LAYER.subarray(10, 20))
  expect(new Set(proxy.asked)).toEqual(new Set([`CONNECT ${name}`]))
  expect(proxy.headers.every((each) => each.authorization === undefined)).toBe(true)
  expect(
    registry.seen.every((each) => each.protocol === 'h2' && each.header('proxy-authorization') === undefined),
  ).toBe(true)
  expect(registry.seen.at(-1)?.authorization).toBe(`Basic ${btoa('ada:hunter2')}`)
})

test('HTTP is forwarded by the proxy itself, where the host is allowed to speak it', async () => {
  await begin(false, 'user:pass')
  const env = { HTTP_PROXY: `http://user:pass@${proxy.host}`, HTTPS_PROXY: `http://user:pass@${proxy.host}` }
  await expect(open(env).resolve()).rejects.toMatchObject({ fix: expect.stringContaining('--tls-verify=false') })
  expect(registry.seen).toEqual([])
  proxy.asked.length = 0
  const { resolve, blob } = open(env, { tlsVerify: false })
  await resolve()
  expect(await blob.read({ start: 10, end: 20 })).toEqual(LAYER.subarray(10, 20))
  expect(proxy.asked.filter((each) => each.startsWith('GET'))[0]).toBe(`GET http://${name}/v2/team/app/manifests/v1`)
  expect(registry.seen.every((each) => each.header('host') === name)).toBe(true)
  expect(registry.seen.every((each) => each.header('proxy-authorization') === undefined)).toBe(true)
})

test('redirects and token services go through it, too; NO_PROXY and the loopback do not', async () => {
  await begin(true)
  await settings.trust(name, registry.cert)
  const env = { HTTPS_PROXY: `http://${proxy.host}` }
  registry.auth = { scheme: 'bearer', users: new Map([['ada', 'hunter2']]), realm: `https://${name}/token` }
  registry.faults = [{ match: /\/blobs\//, redirect: `https://${name}/v2/moved/blobs/${layer.digest}`, nth: 1 }]
  await open(env, { creds: { host: name, ...ADA } }).resolve()
  expect(registry.count('token')).toBeGreaterThan(0)
  expect(new Set(proxy.asked)).toEqual(new Set([`CONNECT ${name}`]))
  proxy.asked.length = 0
  await settings.trust(registry.host, registry.cert)
  const loopback = settings.registries({ tlsVerify: false, places: { ...settings.places, env } })
  registry.auth = undefined
  await loopback.source(parseReference(`${registry.host}/team/app:v1`)).resolve(AMD64)
  const near = open({ ...env, NO_PROXY: 'registry.example.com' }, { limits: { attempts: 1 } })
  await expect(near.resolve()).rejects.toMatchObject({ code: 'unavailable' }) // there is no such name
  expect(proxy.asked).toEqual([])
})

test('what the proxy refuses is said to be its refusal, and what to do', async () => {
  await begin(true, 'user:pass')
  const refused = (env: Record<string, string>) =>
    open(env, { limits: { attempts: 1 } })
      .resolve()
      .catch((error: unknown) => error)
  const at = `proxy ${proxy.host} refuses ${name} with status`
  const none = { code: 'denied', message: `${at} 407`, why: expect.stringMatching(/there are none/) }
  expect(await refused({ HTTPS_PROXY: `http://${proxy.host}` })).toMatchObject(none)
  const wrong = {
    code: 'denied',
    why: expect.stringMatching(/wants other/),
    fix: expect.stringContaining('USER:PASSWORD'),
  }
  expect(await refused({ HTTPS_PROXY: `http://user:hunter2@${proxy.host}` })).toMatchObject(wrong)
  for (const [status, code] of [
    [403, 'denied'],
    [502, 'unavailable'],
  ] as const) {
    proxy.refuses = status
    const said = { code, message: `${at} ${status}`, fix: expect.stringContaining('NO_PROXY') }
    expect(await refused({ HTTPS_PROXY: `http://user:pass@${proxy.host}` })).toMatchObject(said)
  }
  await proxy[Symbol.asyncDispose]()
  expect(await refused({ HTTPS_PROXY: `http://${proxy.host}` })).toMatchObject({
    code: 'unavailable',
    message: `proxy ${proxy.host}: no tunnel to ${name}`,
  })
})

test('a proxy is not asked for an address that is off limits', async () => {
  await begin(true)
  const env = { HTTPS_PROXY: `http://${proxy.host}`, HTTP_PROXY: `http://${proxy.host}` }
  for (const host of ['169.254.169.254', '[fd00:ec2::254]:5000', '0xa9fea9fe', '[64:ff9b::1]', '100.100.100.200:80']) {
    for (const options of [{}, { tlsVerify: false }]) {
      const registries = settings.registries({ ...options, places: { ...settings.places, env } })
      const source = () => registries.source({ transport: 'docker', host, repository: 'team/app', tag: 'v1' })
      await expect(source().resolve(AMD64), host).rejects.toMatchObject({ code: 'denied' })
    }
  }
  expect(proxy.asked).toEqual([])
})
