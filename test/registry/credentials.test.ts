import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import type { Platform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { fileKeyring, helpersKeyring, keys, parseAuthFile } from '../../src/registry/credentials.ts'
import { readCredentialHelpers } from '../../src/registry/hosts.ts'
import { parseLogin } from '../../src/registry/login.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const auth = (login: string) => Buffer.from(login).toString('base64')
const file = (auths: Record<string, string>) =>
  JSON.stringify({
    auths: Object.fromEntries(Object.entries(auths).map(([key, login]) => [key, { auth: auth(login) }])),
  })

test('auth files are asked in the order engines document', async () => {
  await using settings = await Settings.make()
  const { dir } = settings
  const who = async (env: Record<string, string> = {}, authfile?: string, uid = 1000) => {
    const found = await fileKeyring({ ...settings.places, env, uid }, authfile).find('r.example', 'a/b')
    return found && 'username' in found ? found.username : undefined
  }
  const login = (path: string, name: string) => settings.write(path, file({ 'r.example': `${name}:x` }))
  expect(await who()).toBeUndefined()
  await login('home/.docker/config.json', 'docker')
  expect(await who()).toBe('docker')
  await login('docker/config.json', 'docker-config')
  expect(await who({ DOCKER_CONFIG: `${dir}/docker` })).toBe('docker-config')
  await login('home/.config/containers/auth.json', 'home')
  expect(await who({ DOCKER_CONFIG: `${dir}/docker` })).toBe('home')
  await login('xdg-config/containers/auth.json', 'xdg-config')
  expect(await who({ XDG_CONFIG_HOME: `${dir}/xdg-config` })).toBe('xdg-config')
  await login('run/1000/auth.json', 'run')
  expect(await who()).toBe('run')
  await login('run/0/auth.json', 'root')
  expect(await who({}, undefined, 0)).toBe('root')
  await login('xdg-run/containers/auth.json', 'xdg-run')
  expect(await who({ XDG_RUNTIME_DIR: `${dir}/xdg-run` })).toBe('xdg-run')
  await login('env.json', 'env')
  expect(await who({ XDG_RUNTIME_DIR: `${dir}/xdg-run`, REGISTRY_AUTH_FILE: `${dir}/env.json` })).toBe('env')
  await login('flag.json', 'flag')
  expect(await who({ REGISTRY_AUTH_FILE: `${dir}/env.json` }, `${dir}/flag.json`)).toBe('flag')
})

test('a file without the host passes the question on; a named one is the only one and must exist', async () => {
  await using settings = await Settings.make()
  await settings.write('run/1000/auth.json', file({ 'other.example': 'a:b' }))
  await settings.write('home/.docker/config.json', file({ 'r.example': 'docker:x' }))
  expect(await fileKeyring(settings.places).find('r.example', 'a')).toEqual({ username: 'docker', password: 'x' })
  const named = await settings.write('named.json', file({ 'other.example': 'a:b' }))
  expect(await fileKeyring(settings.places, named).find('r.example', 'a')).toBeUndefined()
  await expect(fileKeyring(settings.places, `${settings.dir}/absent`).find('r.example', 'a')).rejects.toMatchObject({
    code: 'usage',
  })
})

test('the longest namespaced key wins', async () => {
  await using settings = await Settings.make()
  const auths = {
    'r.example': 'host:x',
    'r.example/a': 'namespace:x',
    'r.example/a/b': 'repository:x',
    'r.example:5000': 'port:x',
  }
  await settings.write('run/1000/auth.json', file(auths))
  const ring = fileKeyring(settings.places)
  const who = async (host: string, repository: string) => await ring.find(host, repository)
  expect(await who('r.example', 'a/b')).toMatchObject({ username: 'repository' })
  expect(await who('r.example', 'a/b/c')).toMatchObject({ username: 'repository' })
  expect(await who('r.example', 'a/bc')).toMatchObject({ username: 'namespace' })
  expect(await who('r.example', 'ab')).toMatchObject({ username: 'host' })
  expect(await who('r.example:5000', 'a/b')).toMatchObject({ username: 'port' })
  expect(await who('sub.r.example', 'a/b')).toBeUndefined()
  expect(keys('h', 'a/b').slice(0, 3)).toEqual(['h/a/b', 'h/a', 'h'])
})

// what `podman login --get-login` of Podman 4.3.1 finds
test.each<[string, string, boolean]>([
  ['http://r.example:5000', 'r.example:5000', true],
  ['http://r.example:5000/', 'r.example:5000', true],
  ['http://r.example:5000/v1/', 'r.example:5000', true],
  ['http://r.example:5000/v2/', 'r.example:5000', true],
  ['https://r.example:5000/v2', 'r.example:5000', true],
  ['https://r.example:5000/v1/users/', 'r.example:5000', true],
  ['https://r.example:5000/team', 'r.example:5000', true],
  ['http://https://r.example:5000/', 'r.example:5000', true],
  ['https://r.example/v1/', 'r.example:5000', false],
  ['https://r.example:5000/v1/', 'r.example', false],
  ['https://r.example:5000.evil.example/', 'r.example:5000', false],
  ['https://u@r.example:5000/', 'r.example:5000', false],
  ['HTTPS://r.example:5000', 'r.example:5000', false],
  ['ftp://r.example:5000', 'r.example:5000', false],
  ['r.example:5000/', 'r.example:5000', false],
  ['r.example:5000/v2/', 'r.example:5000', false],
  ['docker.io', 'docker.io', true],
  ['index.docker.io', 'docker.io', true],
  ['registry-1.docker.io', 'docker.io', true],
  ['https://index.docker.io/v1/', 'docker.io', true],
  ['https://registry-1.docker.io/v2/', 'docker.io', true],
  ['https://docker.io', 'docker.io', true],
  ['https://index.docker.io/v1/', 'registry-1.docker.io', true],
  ['https://index.docker.io/v1/', 'quay.io', false],
])('the key %s holds credentials of %s: %s', async (key, host, found) => {
  await using settings = await Settings.make()
  await settings.write('home/.docker/config.json', file({ [key]: 'ada:x' }))
  const want = found ? { username: 'ada', password: 'x' } : undefined
  expect(await fileKeyring(settings.places).find(host, 'team/app')).toEqual(want)
})

test('a key of the host itself counts before a URL', async () => {
  await using settings = await Settings.make()
  await settings.write('run/1000/auth.json', file({ 'https://r.example/v1/': 'url:x', 'r.example': 'host:x' }))
  expect(await fileKeyring(settings.places).find('r.example', 'a')).toMatchObject({ username: 'host' })
})

test('the file that docker login wrote long ago is read last, as it was meant', async () => {
  await using settings = await Settings.make()
  const old = { 'r.example/v1/': { auth: auth('old:x') }, auths: { 'q.example': { auth: auth('wrong:x') } } }
  await settings.write('home/.dockercfg', JSON.stringify(old))
  const ring = fileKeyring(settings.places)
  expect(await ring.find('r.example', 'a')).toMatchObject({ username: 'old' })
  expect(await ring.find('q.example', 'a')).toBeUndefined()
  await settings.write('home/.docker/config.json', file({ 'r.example': 'new:x' }))
  expect(await ring.find('r.example', 'a')).toMatchObject({ username: 'new' })
})

test('a file is read anew at every question', async () => {
  await using settings = await Settings.make()
  const ring = fileKeyring(settings.places)
  await settings.write('run/1000/auth.json', file({ 'r.example': 'one:x' }))
  expect(await ring.find('r.example', 'a')).toMatchObject({ username: 'one' })
  await settings.write('run/1000/auth.json', file({ 'r.example': 'two:x' }))
  expect(await ring.find('r.example', 'a')).toMatchObject({ username: 'two' })
})

test('entries hold a login, an identity token, or nothing', () => {
  const entry = (value: unknown) => parseAuthFile(JSON.stringify({ auths: { h: value } }), 'f').auths.get('h')
  expect(entry({ auth: auth('u:p:with:colons') })).toEqual({ username: 'u', password: 'p:with:colons' })
  expect(entry({ auth: auth('u:p\0\0') })).toEqual({ username: 'u', password: 'p' })
  expect(entry({ username: 'u', password: 'p' })).toEqual({ username: 'u', password: 'p' })
  expect(entry({ auth: auth('u:p'), identitytoken: 't' })).toEqual({ identityToken: 't' })
  for (const value of [{}, null, 7, [], { auth: '' }, { auth: auth(':p') }, { auth: auth('u') }, { auth: 7 }]) {
    expect(entry(value), JSON.stringify(value)).toBeUndefined()
  }
})

test('what is wrong with a file is said without its contents', () => {
  const secret = 'c2VjcmV0OnNlY3JldA=='
  try {
    parseAuthFile(`{"auths": {"h": {"auth": "${secret}"}}`, 'f')
    expect.unreachable()
  } catch (error) {
    expect(error).toMatchObject({ code: 'usage', message: 'f is no JSON' })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain(secret)
  }
})

test('--creds is USER:PASSWORD', () => {
  expect(parseLogin('u:p:q')).toEqual({ username: 'u', password: 'p:q' })
  expect(parseLogin('u:')).toEqual({ username: 'u', password: '' })
  for (const text of ['', 'secret', ':secret']) {
    expect(() => parseLogin(text)).toThrow(expect.objectContaining({ code: 'usage' }))
    expect(() => parseLogin(text)).not.toThrow(/secret/)
  }
})

/** A helper program: what it writes, and with which code it ends. It notes what it was asked. */
async function helper(settings: Settings, name: string, answer: string, code = 0): Promise<void> {
  const script = `#!/bin/sh\nread -r server\necho "$1 $server" >> "${settings.dir}/asked"\ncat <<'END'\n${answer}\nEND\nexit ${code}\n`
  await settings.write(`bin/docker-credential-${name}`, script, 0o700)
}

test('credential helpers are asked for their host, the store for all others', async () => {
  await using settings = await Settings.make()
  const { dir } = settings
  const places = { ...settings.places, env: { PATH: `${dir}/bin:/bin:/usr/bin` } }
  const ring = fileKeyring(places)
  await helper(settings, 'ecr', '{"ServerURL":"ecr.example","Username":"AWS","Secret":"token"}')
  await helper(settings, 'store', '{"Username":"<token>","Secret":"identity"}')
  await helper(settings, 'empty', 'credentials not found in native keychain', 1)
  await helper(settings, 'broken', 'no json: secret')
  await helper(settings, 'failing', 'secret', 3)
  const config = {
    auths: { 'r.example': { auth: auth('file:x') } },
    credHelpers: { 'ecr.example': 'ecr' },
    credsStore: 'store',
  }
  await settings.write('home/.docker/config.json', JSON.stringify(config))
  expect(await ring.find('ecr.example', 'a')).toEqual({ username: 'AWS', password: 'token' })
  expect(await ring.find('r.example', 'a')).toMatchObject({ username: 'file' })
  expect(await ring.find('docker.io', 'library/a')).toEqual({ identityToken: 'identity' })
  expect(await readFile(`${dir}/asked`, 'utf8')).toBe('get ecr.example\nget https://index.docker.io/v1/\n')
  const refused = async (name: string, code: string) => {
    await settings.write('home/.docker/config.json', JSON.stringify({ credHelpers: { 'h.example': name } }))
    const error = await ring.find('h.example', 'a').then(
      () => undefined,
      (error: unknown) => error,
    )
    expect(error, name).toMatchObject({ code })
    expect(JSON.stringify(error, Object.getOwnPropertyNames(error ?? {}))).not.toContain('secret')
  }
  await refused('broken', 'denied')
  await refused('failing', 'denied')
  await refused('absent', 'usage')
  await refused('../../bin/sh', 'usage')
  await settings.write('home/.docker/config.json', JSON.stringify({ credsStore: 'empty' }))
  expect(await ring.find('h.example', 'a')).toBeUndefined()
})

test('helpers that registries.conf names are asked in their order, the auth files among them', async () => {
  await using settings = await Settings.make()
  const places = { ...settings.places, env: { PATH: `${settings.dir}/bin:/bin:/usr/bin` } }
  const files = fileKeyring(places)
  const ring = helpersKeyring(() => readCredentialHelpers(places), files, places)
  const who = async () => {
    const found = await ring.find('r.example', 'team/app')
    return found && 'username' in found ? found.username : found
  }
  const conf = (text: string, path = 'etc/containers/registries.conf') => settings.write(path, text)
  await helper(settings, 'one', '{"Username":"one","Secret":"x"}')
  await helper(settings, 'none', 'credentials not found in native keychain', 1)
  await settings.write('run/1000/auth.json', file({ 'r.example': 'file:x' }))
  expect(await who()).toBe('file')
  await conf('credential-helpers = ["one"]')
  expect(await who()).toBe('one')
  await conf('credential-helpers = ["containers-auth.json", "one"]')
  expect(await who()).toBe('file')
  await conf('credential-helpers = ["none", "absent", "containers-auth.json"]')
  expect(await who()).toBe('file')
  await conf('credential-helpers = ["none"]')
  expect(await who()).toBeUndefined()
  await conf('credential-helpers = ["none", "absent"]')
  await expect(who()).rejects.toMatchObject({ code: 'usage', message: 'docker-credential-absent is not installed' })
  await conf('credential-helpers = ["one"]', 'etc/containers/registries.conf.d/50-x.conf')
  expect(await who()).toBe('one')
  await conf('credential-helpers = []', 'home/.config/containers/registries.conf.d/60-x.conf')
  expect(await who()).toBe('file')
  await conf('credential-helpers = "one"', 'home/.config/containers/registries.conf.d/70-x.conf')
  await expect(who()).rejects.toMatchObject({ code: 'usage', message: expect.stringContaining('70-x.conf') })
  expect(await readFile(`${settings.dir}/asked`, 'utf8')).toMatch(/^(get r\.example\n)+$/)
})

test('a store of credentials that does not work keeps nobody from a public image, and is told of once', async () => {
  await using settings = await Settings.make()
  const shelf = new MemoryShelf()
  shelf.addImage([pattern(100)], { tags: ['v1'] })
  const registry = await startRegistry({ shelf, auth: { scheme: 'bearer' } })
  try {
    await settings.trust(registry.host, registry.cert)
    await helper(settings, 'failing', 'no keyring here', 1)
    await helper(settings, 'broken', 'no JSON')
    for (const [store, why] of [
      ['desktop', 'docker-credential-desktop is not installed'],
      ['failing', 'docker-credential-failing failed with 1'],
      ['broken', 'docker-credential-broken answered no JSON'],
    ]) {
      await settings.write('home/.docker/config.json', JSON.stringify({ credsStore: store }))
      const said: string[] = []
      const registries = settings.registries({
        log: (message) => said.push(message),
        places: { ...settings.places, env: { PATH: `${settings.dir}/bin:/bin:/usr/bin` } },
      })
      for (const name of ['team/app', 'team/other']) {
        const platform: Platform = { os: 'linux', architecture: 'amd64' }
        await registries.source(parseReference(`${registry.host}/${name}:v1`)).resolve(platform)
      }
      expect(said).toEqual([expect.stringContaining(why as string)])
      expect(said[0]).toMatch(/going on without the credentials that it may have$/)
    }
  } finally {
    await registry.close()
  }
})
