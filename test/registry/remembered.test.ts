import { randomBytes } from 'node:crypto'
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { Credentials } from '../../src/registry/login.ts'
import type { RegistriesOptions } from '../../src/registry/registries.ts'
import { firstOf, RememberedCredentials } from '../../src/registry/remembered.ts'
import { SealedCredentials } from '../../src/registry/sealed.ts'
import { SealedFolder } from '../../src/store/sealed-folder.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const ADA = { username: 'ada', password: 'x' }

test('credentials count for one repository of one host, and the last told ones', async () => {
  const remembered = new RememberedCredentials()
  await remembered.remember('r.example', 'a/b', { identityToken: 'old' })
  await remembered.remember('r.example', 'a/b', ADA)
  expect(await remembered.find('r.example', 'a/b')).toEqual(ADA)
  expect(await remembered.find('r.example', 'a')).toBeUndefined()
  expect(await remembered.find('r.example', 'a/b/c')).toBeUndefined()
  expect(await remembered.find('r.example:443', 'a/b')).toBeUndefined()
})

test('there is an end to how many are remembered; the oldest goes', async () => {
  const remembered = new RememberedCredentials()
  for (let i = 0; i <= 4096; i++) await remembered.remember('r.example', `a${i}`, ADA)
  expect(await remembered.find('r.example', 'a0')).toBeUndefined()
  expect(await remembered.find('r.example', 'a1')).toEqual(ADA)
  expect(await remembered.find('r.example', 'a4096')).toEqual(ADA)
})

test('what was refused is not found again, but what was told in the meantime is', async () => {
  const remembered = new RememberedCredentials()
  await remembered.remember('r.example', 'a', ADA)
  expect(await remembered.find('r.example', 'a', { ...ADA })).toBeUndefined()
  expect(await remembered.find('r.example', 'a')).toEqual(ADA)
  await remembered.remember('r.example', 'a', { identityToken: 'new' })
  await remembered.forget('r.example', 'a', ADA)
  expect(await remembered.find('r.example', 'a', ADA)).toEqual({ identityToken: 'new' })
  await remembered.forget('r.example', 'a', { identityToken: 'new' })
  expect(await remembered.find('r.example', 'a')).toBeUndefined()
})

test('keyrings are asked one after the other', async () => {
  const none = { find: async () => undefined }
  const some = { find: async () => ADA }
  const broken = { find: async () => Promise.reject(new Error('asked')) }
  expect(await firstOf(none, some, broken).find('r.example', 'a')).toEqual(ADA)
  expect(await firstOf(none).find('r.example', 'a')).toBeUndefined()
  // a file says the same however often it is asked
  const other = { find: async () => ({ identityToken: 'other' }) }
  expect(await firstOf(some, none, other).find('r.example', 'a', ADA)).toEqual({ identityToken: 'other' })
  expect(await firstOf(some, none).find('r.example', 'a', ADA)).toEqual(ADA)
})

test('what was told of a repository is tried before files say anything, and shown to no other repository', async () => {
  await using settings = await Settings.make()
  const shelf = new MemoryShelf()
  shelf.addImage([pattern(1000)], { tags: ['v1'] })
  const registry = await startRegistry({ shelf })
  onTestFinished(() => registry.close())
  await settings.trust(registry.host, registry.cert)
  registry.auth = { scheme: 'basic', ...ADA }
  const registries = settings.registries()
  const resolve = (repository: string) =>
    registries
      .source(parseReference(`${registry.host}/${repository}:v1`))
      .resolve({ os: 'linux', architecture: 'amd64' })
  await expect(resolve('team/app')).rejects.toMatchObject({ code: 'denied' })
  await registries.remember({ transport: 'docker', host: registry.host, repository: 'team/app' }, ADA)
  await resolve('team/app')
  await expect(resolve('team/other')).rejects.toMatchObject({ code: 'denied' })
})

const REPOSITORY = 'team/app'
const OLD = { username: 'ada', password: 'old' }
const NEW = { username: 'ada', password: 'new' }

/** One repository, and agents that come and go with one cache folder. */
async function scene() {
  const settings = await Settings.make()
  const shelf = new MemoryShelf()
  const layer: Descriptor = shelf.addBlob(pattern(1000))
  shelf.addImage([pattern(1000)], { tags: ['v1'] })
  const registry: FakeRegistry = await startRegistry({ shelf })
  onTestFinished(async () => {
    await registry.close()
    await settings[Symbol.asyncDispose]()
  })
  await settings.trust(registry.host, registry.cert)
  const cache = join(settings.dir, 'cache')
  await mkdir(join(cache, 'tmp'), { recursive: true })
  const secret = randomBytes(32)
  const warnings: string[] = []
  const start = (options: RegistriesOptions = {}) => {
    const registries = settings.registries(options)
    const source = registries.source(parseReference(`${registry.host}/${REPOSITORY}:v1`))
    return {
      resolve: () => source.resolve({ os: 'linux', architecture: 'amd64' }),
      read: () => source.blob(layer).read({ start: 0, end: 10 }),
      tell: (credentials: Credentials) =>
        registries.remember({ transport: 'docker', host: registry.host, repository: REPOSITORY }, credentials),
    }
  }
  return {
    registry,
    start,
    /** An agent that was told to seal. */
    sealing: () =>
      start({ sealed: new SealedCredentials(secret, new SealedFolder(cache), (each) => warnings.push(each)) }),
    sealedFiles: () => readdir(join(cache, 'credentials')).catch(() => []),
    warnings,
    login: (login: Credentials) => {
      const entry =
        'identityToken' in login
          ? { identitytoken: login.identityToken }
          : { auth: Buffer.from(`${login.username}:${login.password}`).toString('base64') }
      return settings.write('run/1000/auth.json', JSON.stringify({ auths: { [registry.host]: entry } }))
    },
    statuses: () => registry.seen.map((each) => `${each.kind} ${each.status}`),
  }
}

const schemes = {
  basic: ({ username, password }: typeof ADA) => ({ scheme: 'basic' as const, username, password }),
  bearer: ({ username, password }: typeof ADA) => ({
    scheme: 'bearer' as const,
    users: new Map([[username, password]]),
  }),
}

for (const [scheme, asks] of Object.entries(schemes)) {
  test(`${scheme}: a remembered password that was rotated does not hide the auth file's new one, and is forgotten`, async () => {
    const { registry, start, login } = await scene()
    registry.auth = asks(OLD)
    const agent = start()
    await agent.tell(OLD)
    await agent.resolve()
    registry.auth = asks(NEW)
    registry.revoke()
    await expect(agent.read()).rejects.toMatchObject({ code: 'denied' })
    await login(NEW)
    await agent.read()
    // the old one would be accepted again; but nobody knows it any more
    registry.auth = asks(OLD)
    registry.revoke()
    await expect(agent.read()).rejects.toMatchObject({ code: 'denied' })
  })

  test(`${scheme}: a remembered password that is wrong from the start costs one refusal, then the auth file is read`, async () => {
    const { registry, start, login, statuses } = await scene()
    registry.auth = asks(NEW)
    await login(NEW)
    const agent = start()
    await agent.tell(OLD)
    await agent.resolve()
    const refused = statuses().filter((each) => /40[13]/.test(each))
    expect(refused).toEqual(['manifest 401', scheme === 'basic' ? 'manifest 401' : 'token 401'])
    registry.seen.length = 0
    registry.revoke()
    await agent.read()
    expect(statuses().filter((each) => each === 'token 401')).toEqual([])
  })

  test(`${scheme}: what is told later than the refusal is tried first again`, async () => {
    const { registry, start, login } = await scene()
    registry.auth = asks(NEW)
    await login({ ...NEW, password: 'neither' })
    const agent = start()
    await agent.tell(OLD)
    await expect(agent.resolve()).rejects.toMatchObject({ code: 'denied' })
    await agent.tell(NEW)
    await agent.resolve()
  })
}

test('a 403 passes a remembered login over for the auth file, which has it forgotten only if the file does better', async () => {
  const { registry, start, login, statuses } = await scene()
  registry.auth = schemes.basic(OLD)
  const agent = start()
  await agent.tell(OLD)
  await agent.resolve()
  registry.faults = [{ match: /blobs/, status: 403 }]
  await login(NEW)
  registry.seen.length = 0
  await expect(agent.read()).rejects.toMatchObject({ code: 'denied' })
  expect(statuses()).toEqual(['blob 403', 'blob 403'])
  expect(new Set(registry.seen.map((each) => each.authorization)).size).toBe(2)
  // whatever stood before the registry is gone: programs read on with what was told
  registry.faults = []
  await agent.read()
  registry.faults = [{ match: /blobs/, nth: 1, status: 403 }]
  registry.auth = schemes.basic(NEW)
  await agent.read()
  registry.auth = schemes.basic(OLD)
  await expect(agent.read()).rejects.toMatchObject({ code: 'denied' })
})

test('a token that lapses or is revoked is renewed with what was told, which stays', async () => {
  const { registry, start, login } = await scene()
  registry.auth = { ...schemes.bearer(OLD), expiresS: 0.05 }
  await login(NEW)
  const agent = start()
  await agent.tell(OLD)
  await agent.resolve()
  for (let i = 0; i < 3; i++) {
    registry.revoke()
    registry.seen.length = 0
    await agent.read()
    expect(registry.seen.some((each) => each.kind === 'token' && each.status !== 200)).toBe(false)
  }
})

test('a login that was told and a 403 are what is said of, not the attempt to do without', async () => {
  const { registry, start } = await scene()
  registry.auth = schemes.bearer(OLD)
  const agent = start()
  await agent.tell(OLD)
  await agent.resolve()
  registry.faults = [{ match: /blobs/, status: 403 }]
  await expect(agent.read()).rejects.toMatchObject({ code: 'denied', why: 'the credentials do not suffice' })
  registry.faults = []
  await agent.read()
})

test('an identity token that is not valid any more gives way to the auth file', async () => {
  const { registry, start, login } = await scene()
  registry.auth = { scheme: 'bearer', users: new Map(), identityTokens: ['new'] }
  await login({ identityToken: 'new' })
  const agent = start()
  await agent.tell({ identityToken: 'old' })
  await agent.resolve()
})

test('without being asked to seal, nothing is written, and a restart knows nothing', async () => {
  const { registry, start, sealedFiles } = await scene()
  registry.auth = schemes.basic(OLD)
  const first = start()
  await first.tell(OLD)
  await first.resolve()
  expect(await sealedFiles()).toEqual([])
  await expect(start().resolve()).rejects.toMatchObject({ code: 'denied' })
})

test('sealed credentials survive a restart, and one that was refused does not', async () => {
  const { registry, start, sealing, sealedFiles, warnings, login } = await scene()
  registry.auth = schemes.bearer(OLD)
  await sealing().tell(OLD)
  expect(await sealedFiles()).toHaveLength(1)
  await sealing().resolve()
  await expect(start().resolve()).rejects.toMatchObject({ code: 'denied' })
  registry.auth = schemes.bearer(NEW)
  await login(NEW)
  await sealing().resolve()
  await expect.poll(sealedFiles).toEqual([])
  expect(warnings).toEqual([])
})

test('a sealed password that the registry calls wrong is removed at once, whether or not there is another', async () => {
  const { registry, sealing, sealedFiles } = await scene()
  await sealing().tell(OLD)
  registry.auth = schemes.basic(OLD)
  registry.faults = [{ match: /manifests/, status: 403 }]
  await expect(sealing().resolve()).rejects.toMatchObject({ code: 'denied' })
  expect(await sealedFiles()).toHaveLength(1)
  registry.faults = []
  for (const scheme of [schemes.basic, schemes.bearer]) {
    registry.auth = scheme(NEW)
    const agent = sealing()
    await agent.tell(OLD)
    await expect(agent.resolve()).rejects.toMatchObject({ code: 'denied' })
    await expect.poll(sealedFiles).toEqual([])
  }
})

test('what is told again replaces what is sealed', async () => {
  const { registry, sealing, sealedFiles } = await scene()
  registry.auth = schemes.basic(NEW)
  await sealing().tell(OLD)
  await sealing().tell(NEW)
  expect(await sealedFiles()).toHaveLength(1)
  await sealing().resolve()
})
