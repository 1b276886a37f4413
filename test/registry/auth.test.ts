import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Descriptor, Platform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { parseChallenge } from '../../src/registry/challenge.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type Auth, type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const AMD64: Platform = { os: 'linux', architecture: 'amd64' }
const ADA = { username: 'ada', password: 'Pa:ss wörd' }
const USERS = new Map([[ADA.username, ADA.password]])
const BEARER: Auth = { scheme: 'bearer', users: USERS }
const LAYER = pattern(200_000)

let settings: Settings
let registry: FakeRegistry
let layer: Descriptor

beforeEach(async () => {
  settings = await Settings.make()
  const shelf = new MemoryShelf()
  layer = shelf.addBlob(LAYER)
  shelf.addImage([LAYER], { tags: ['v1'] })
  registry = await startRegistry({ shelf })
  await settings.trust(registry.host, registry.cert)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await registry.close()
})

function open(options: RegistriesOptions = {}, repository = 'team/app') {
  const registries = settings.registries(options)
  const source = registries.source(parseReference(`${registry.host}/${repository}:v1`))
  return { registries, source, blob: source.blob(layer), resolve: () => source.resolve(AMD64) }
}

function login(path: string, key: string, { username, password } = ADA): Promise<string> {
  const auth = Buffer.from(`${username}:${password}`).toString('base64')
  return settings.write(path, JSON.stringify({ auths: { [key]: { auth } } }))
}

const statuses = () => registry.seen.map((each) => `${each.kind} ${each.status}`)

test('a registry that asks nobody sees no Authorization, not even with credentials at hand', async () => {
  await open({ creds: { host: registry.host, ...ADA } }).resolve()
  expect(statuses()).toEqual(['manifest 200', 'blob 200'])
  expect(registry.seen.every((each) => each.authorization === undefined)).toBe(true)
})

test('the first challenge costs one request; all later requests carry the token at once', async () => {
  registry.auth = BEARER
  const { blob, resolve, registries } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  await blob.read({ start: 0, end: 10 })
  expect(statuses()).toEqual(['manifest 401', 'token 200', 'manifest 200', 'blob 200', 'blob 206'])
  const token = new URL(registry.seen[1]?.path ?? '', registry.url)
  expect(token.searchParams.get('service')).toBe('fake')
  expect(token.searchParams.get('scope')).toBe('repository:team/app:pull')
  expect(registries.counters()).toMatchObject({ requests: 5, tokens: 1, retries: 0 })
})

test('anonymous tokens are asked for without credentials', async () => {
  registry.auth = { scheme: 'bearer' }
  await open().resolve()
  expect(statuses()).toEqual(['manifest 401', 'token 200', 'manifest 200', 'blob 200'])
  expect(registry.seen[1]?.authorization).toBeUndefined()
})

test('basic authentication answers a basic challenge', async () => {
  registry.auth = { scheme: 'basic', ...ADA }
  await open({ creds: { host: registry.host, ...ADA } }).resolve()
  expect(statuses()).toEqual(['manifest 401', 'manifest 200', 'blob 200'])
})

test('another repository of a known host gets its own token without being refused first', async () => {
  registry.auth = BEARER
  const { registries, resolve } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  registry.seen.length = 0
  await registries.source(parseReference(`${registry.host}/team/other:v1`)).resolve(AMD64)
  expect(statuses()).toEqual(['token 200', 'manifest 200', 'blob 200'])
})

test('an identity token is posted, not shown in a URL', async () => {
  registry.auth = { scheme: 'bearer', users: new Map(), identityTokens: ['s3cret+/='] }
  await settings.write(
    'run/1000/auth.json',
    JSON.stringify({ auths: { [registry.host]: { identitytoken: 's3cret+/=' } } }),
  )
  await open().resolve()
  const token = registry.seen.find((each) => each.kind === 'token')
  expect(token?.method).toBe('POST')
  expect(token?.path).not.toContain('s3cret')
  expect(Object.fromEntries(new URLSearchParams(token?.body))).toEqual({
    grant_type: 'refresh_token',
    service: 'fake',
    scope: 'repository:team/app:pull',
    client_id: 'lazylayer',
    refresh_token: 's3cret+/=',
  })
})

test('twenty reads that are refused together cost one new token', async () => {
  registry.auth = { ...BEARER, tokenDelayMs: 20 }
  const { blob, resolve } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  registry.revoke()
  registry.seen.length = 0
  const reads = await Promise.all(
    Array.from({ length: 20 }, (_, i) => blob.read({ start: i * 100, end: i * 100 + 100 })),
  )
  for (const [i, bytes] of reads.entries()) expect(bytes).toEqual(LAYER.subarray(i * 100, i * 100 + 100))
  expect(registry.count('token')).toBe(1)
  expect(registry.seen.filter((each) => each.status === 206)).toHaveLength(20)
})

test('a token is renewed before its end', async () => {
  registry.auth = { ...BEARER, expiresS: 0.2 }
  const { blob, resolve } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  registry.auth = BEARER
  registry.seen.length = 0
  await new Promise((done) => setTimeout(done, 250))
  await blob.read({ start: 0, end: 1 })
  expect(statuses()).toEqual(['token 200', 'blob 206'])
})

test('credentials are read again when the registry refuses: a rotated password needs no restart', async () => {
  registry.auth = BEARER
  await login('run/1000/auth.json', registry.host)
  const { blob, resolve } = open()
  await resolve()
  registry.auth = { scheme: 'bearer', users: new Map([['ada', 'new']]) }
  registry.revoke()
  await login('run/1000/auth.json', registry.host, { username: 'ada', password: 'new' })
  expect(await blob.read({ start: 5, end: 9 })).toEqual(LAYER.subarray(5, 9))
})

test('a registry that goes on refusing is asked once more, not for ever', async () => {
  registry.auth = BEARER
  const { blob, resolve } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  for (const status of [401, 403]) {
    registry.faults = [{ match: /blobs/, status }]
    registry.seen.length = 0
    await expect(blob.read({ start: 0, end: 1 })).rejects.toMatchObject({ code: 'denied' })
    expect(statuses()).toEqual([`blob ${status}`, 'token 200', `blob ${status}`])
  }
})

test('a 403 with a token is worth one new token', async () => {
  registry.auth = BEARER
  registry.faults.push({ match: /blobs/, nth: 2, status: 403 })
  const { blob, resolve } = open({ creds: { host: registry.host, ...ADA } })
  await resolve()
  expect(await blob.read({ start: 0, end: 3 })).toEqual(LAYER.subarray(0, 3))
  expect(statuses()).toEqual([
    'manifest 401',
    'token 200',
    'manifest 200',
    'blob 200',
    'blob 403',
    'token 200',
    'blob 206',
  ])
})

test('wrong credentials and missing ones are told apart, and no message holds a secret', async () => {
  const refused = async (options: RegistriesOptions, text: RegExp) => {
    const error: unknown = await open(options)
      .resolve()
      .catch((error: unknown) => error)
    expect(error).toMatchObject({ code: 'denied' })
    const all = [error, (error as Error).cause].map((each) =>
      JSON.stringify(each, Object.getOwnPropertyNames(each ?? {})),
    )
    expect(all.join()).toMatch(text)
    expect(all.join()).not.toContain('hunter2')
    expect(all.join()).not.toContain(Buffer.from('ada:hunter2').toString('base64'))
  }
  const wrong = { host: registry.host, username: 'ada', password: 'hunter2' }
  registry.auth = BEARER
  await refused({ creds: wrong }, /refuses the credentials/)
  await refused({}, /refuses anonymous access/)
  registry.auth = { scheme: 'basic', ...ADA }
  await refused({ creds: wrong }, /do not suffice/)
  await refused({}, /wants credentials, and there are none/)
})

test('namespaced keys choose the login of the repository', async () => {
  registry.auth = { scheme: 'bearer', users: new Map([['team', 'x']]) }
  const entry = (name: string) => ({ auth: Buffer.from(`${name}:x`).toString('base64') })
  const auths = { [registry.host]: entry('host'), [`${registry.host}/team`]: entry('team') }
  await settings.write('run/1000/auth.json', JSON.stringify({ auths }))
  await open().resolve()
  await expect(open({}, 'elsewhere/app').resolve()).rejects.toMatchObject({ code: 'denied' })
})

test('a realm that would show credentials in the clear or leads inside is refused before anything is sent', async () => {
  const capture = await startRegistry({ shelf: new MemoryShelf(), tls: false })
  for (const realm of [
    `${capture.url}/token`,
    'https://169.254.169.254/token',
    'https://user:password@127.0.0.1/token',
    'file:///token',
    'token',
  ]) {
    registry.auth = { ...BEARER, realm }
    await expect(open({ creds: { host: registry.host, ...ADA } }).resolve(), realm).rejects.toMatchObject({
      code: 'denied',
    })
  }
  expect(capture.seen).toEqual([])
  await capture.close()
})

test('a token service that redirects is not followed with the password', async () => {
  const capture = await startRegistry({ shelf: new MemoryShelf() })
  await settings.trust(capture.host, capture.cert)
  registry.auth = BEARER
  registry.faults.push({ match: /^\/token/, redirect: `${capture.url}/token` })
  await expect(open({ creds: { host: registry.host, ...ADA } }).resolve()).rejects.toMatchObject({ code: 'denied' })
  expect(capture.seen).toEqual([])
  await capture.close()
})

test('an unsound answer of the token service is no token', async () => {
  registry.auth = BEARER
  // a label alone changes no bytes
  registry.faults = [{ match: /^\/token/, headers: { 'content-encoding': 'gzip' } }]
  await open({ creds: { host: registry.host, ...ADA } }).resolve()
  registry.faults = [{ match: /^\/token/, endAfter: 5 }]
  await expect(open({ creds: { host: registry.host, ...ADA } }).resolve()).rejects.toMatchObject({
    code: 'unavailable',
  })
  registry.faults = [{ match: /^\/token/, until: 2, status: 503 }]
  await open({ creds: { host: registry.host, ...ADA } }).resolve()
})

test('one caller that gives up does not take the token from the others', async () => {
  registry.auth = BEARER
  const { promise: held, resolve: answer } = Promise.withResolvers<void>()
  registry.faults = [{ match: /^\/token/, held }]
  const { source } = open({ creds: { host: registry.host, ...ADA } })
  const stop = new AbortController()
  const first = source.resolve(AMD64, { signal: stop.signal })
  const second = source.resolve(AMD64)
  await expect.poll(() => registry.seen.filter(({ status }) => status === 401).length).toBe(2)
  await expect.poll(() => registry.count('token')).toBe(1)
  await new Promise((done) => setTimeout(done, 50)) // both have heard that they are refused
  stop.abort()
  await expect(first).rejects.toMatchObject({ code: 'aborted' })
  answer()
  await second
  expect(registry.count('token')).toBe(1)
})

test('challenges are parsed as registries write them', () => {
  const bearer = (realm: string, service?: string) => ({ scheme: 'bearer', realm, service })
  const check = (header: string | undefined, want: unknown) => expect(parseChallenge(header), header).toEqual(want)
  check('Bearer realm="https://a/t",service="s",scope="repository:x:pull"', bearer('https://a/t', 's'))
  check('bearer  realm = "https://a/t" , service=s', bearer('https://a/t', 's'))
  check('Basic realm="x", Bearer realm="https://a/t"', bearer('https://a/t'))
  check('Negotiate, Basic realm="a, Bearer realm=b"', { scheme: 'basic' })
  check('Bearer realm="a\\"b"', bearer('a"b'))
  check('Bearer realm="a,b",scope="c=d"', bearer('a,b'))
  check('Basic', { scheme: 'basic' })
  for (const header of [
    undefined,
    '',
    'Bearer',
    'Bearer scope="x"',
    'Digest realm="x"',
    'Bearer realm="never ends',
    '=',
    ',,,',
  ]) {
    check(header, undefined)
  }
  expect(parseChallenge(`Bearer realm="${'a'.repeat(100_000)}"`)).toBeUndefined()
})

const whole = () => registry.seen.filter(({ path }) => path === '/v2/').length

test.each([401, 403, 404] as const)(
  'a repository that answers strangers %i without a challenge: what the whole registry asks for counts',
  async (strangers) => {
    const creds = { host: registry.host, ...ADA }
    for (const auth of [
      { scheme: 'basic', ...ADA, strangers },
      { ...BEARER, strangers },
    ] as Auth[]) {
      registry.auth = auth
      registry.seen.length = 0
      const { blob, resolve } = open({ creds })
      await resolve()
      await blob.read({ start: 0, end: 10 })
      expect(registry.seen.slice(0, 2).map(({ path, authorization }) => [path, authorization])).toEqual([
        ['/v2/team/app/manifests/v1', undefined],
        ['/v2/', undefined],
      ])
      expect(whole()).toBe(1)
      const code = strangers === 404 ? 'missing' : 'denied'
      await expect(open().resolve()).rejects.toMatchObject({ code })
      await expect(open({ creds: { ...creds, password: 'wrong' } }).resolve()).rejects.toMatchObject({ code })
    }
  },
)

test('where the whole registry asks for nothing, what is missing is missing, and nobody asks it again for each', async () => {
  const { registries } = open({ creds: { host: registry.host, ...ADA } })
  for (const tag of ['a', 'b', 'c']) {
    const source = registries.source(parseReference(`${registry.host}/team/app:${tag}`))
    await expect(source.resolve(AMD64)).rejects.toMatchObject({ code: 'missing' })
  }
  expect(whole()).toBe(1)
  expect(registry.seen.every(({ authorization }) => authorization === undefined)).toBe(true)
})

test('what a storage answers to strangers has the registry asked for nothing', async () => {
  const storage = await startRegistry({ shelf: new MemoryShelf(), auth: { scheme: 'basic', ...ADA, strangers: 403 } })
  try {
    await settings.trust(storage.host, storage.cert)
    registry.faults = [{ match: /blobs/, redirect: `${storage.url}/v2/x/blobs/${layer.digest}` }]
    const { blob } = open({ creds: { host: registry.host, ...ADA } })
    await expect(blob.read({ start: 0, end: 10 })).rejects.toMatchObject({ code: 'denied' })
    expect([...storage.seen, ...registry.seen].filter(({ path }) => path === '/v2/')).toEqual([])
  } finally {
    await storage.close()
  }
})

test('over plain HTTP nobody is told who we are, unless that was allowed', async () => {
  const plain = await startRegistry({
    shelf: new MemoryShelf(),
    tls: false,
    auth: { scheme: 'basic', ...ADA, strangers: 404 },
  })
  try {
    const resolve = (options: RegistriesOptions) =>
      settings
        .registries({ creds: { host: plain.host, ...ADA }, ...options })
        .source(parseReference(`${plain.host}/team/app:v1`))
        .resolve(AMD64)
    await expect(resolve({})).rejects.toMatchObject({ code: 'unavailable' })
    expect(plain.seen).toEqual([])
    await expect(resolve({ tlsVerify: false })).rejects.toMatchObject({ code: 'missing' })
    expect(plain.seen.map(({ path, authorization }) => `${path} ${authorization?.slice(0, 5)}`)).toEqual([
      '/v2/team/app/manifests/v1 undefined',
      '/v2/ undefined',
      '/v2/team/app/manifests/v1 Basic',
    ])
  } finally {
    await plain.close()
  }
})
