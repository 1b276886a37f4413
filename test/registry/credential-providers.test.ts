// kubelet's credential providers: whom they are asked for, how often, and what of their answers counts.
import { chmod, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { parseReference } from '../../src/image/reference.ts'
import { CredentialProviders } from '../../src/registry/credential-providers.ts'
import { durationMs, matchesImage, parseProviderConfig } from '../../src/registry/provider-config.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const provider = (name: string, matchImages: readonly string[], more = {}) => ({
  name,
  matchImages,
  defaultCacheDuration: '1h',
  apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
  ...more,
})
const config = (...providers: object[]) =>
  JSON.stringify({ apiVersion: 'kubelet.config.k8s.io/v1', kind: 'CredentialProviderConfig', providers })
const answer = (auth: object, cacheKeyType = 'Registry', cacheDuration?: string) =>
  JSON.stringify({
    kind: 'CredentialProviderResponse',
    apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
    cacheKeyType,
    cacheDuration,
    auth,
  })

let settings: Settings
const said: string[] = []
beforeEach(async () => {
  settings = await Settings.make()
  said.length = 0
})
afterEach(() => settings[Symbol.asyncDispose]())

/** A provider that writes down what it is asked, and answers what a file says. */
async function program(name: string, says: string): Promise<string> {
  await settings.write(`${name}.json`, says)
  const at = (of: string) => join(settings.dir, of)
  const lines = ['#!/bin/sh', `in=$(cat); echo "$in $VIA $*" >>${at(`${name}.asked`)}`, `cat ${at(`${name}.json`)}`]
  const path = await settings.write(`bin/${name}`, `${lines.join('\n')}\n`)
  await chmod(path, 0o700)
  return path
}

const asked = async (name: string) =>
  (await readFile(join(settings.dir, `${name}.asked`), 'utf8').catch(() => '')).split('\n').filter(Boolean)

async function providers(text: string): Promise<CredentialProviders> {
  const path = await settings.write('providers.yaml', text)
  const env = { PATH: process.env.PATH ?? '' }
  return new CredentialProviders({ config: path, binDir: join(settings.dir, 'bin') }, env, (message) =>
    said.push(message),
  )
}

const ADA = { username: 'ada', password: 'x' }
const BOB = { username: 'bob', password: 'y' }

describe('a provider', () => {
  test('is run as kubelet runs it, for images that it is for, once for those that its answer is for', async () => {
    await program('one', answer({ 'r.example.com/team': ADA, 'r.example.com': BOB, '*.other.com': BOB }))
    const env = [{ name: 'VIA', value: 'environment' }]
    const all = await providers(config(provider('one', ['*.example.com'], { args: ['get', 'it'], env })))
    const found = await Promise.all(['team/app', 'team/app', 'app'].map((each) => all.find('r.example.com', each)))
    expect(found).toEqual([ADA, ADA, BOB])
    expect(await all.find('r.example.com', 'other')).toEqual(BOB)
    expect(await all.find('r.example.net', 'app')).toBeUndefined()
    const lines = await asked('one')
    // two images at once, unless the first is answered before the second is looked for; what comes later is in the answer for the registry
    expect(lines.length).toBeLessThanOrEqual(2)
    expect(lines).toContainEqual(
      '{"kind":"CredentialProviderRequest","apiVersion":"credentialprovider.kubelet.k8s.io/v1","image":"r.example.com/team/app"} environment get it',
    )
  })

  test.each([
    ['Image', ['a', 'a', 'b'], 2],
    ['Registry', ['a', 'b'], 1],
    ['Global', ['a', 'b'], 1],
  ])('whose answer is for one %s is run again for another', async (keyType, repositories, runs) => {
    await program('one', answer({ '*.example.com': ADA }, keyType))
    const all = await providers(config(provider('one', ['*.example.com'])))
    for (const each of repositories) expect(await all.find('r.example.com', each)).toEqual(ADA)
    expect(await asked('one')).toHaveLength(runs)
    expect(await all.find('s.example.com', 'a')).toEqual(ADA)
    expect(await asked('one')).toHaveLength(keyType === 'Global' ? runs : runs + 1)
  })

  test('is run again when what it gave is refused, or counts no longer', async () => {
    await program('one', answer({ 'r.example.com': ADA }))
    const all = await providers(config(provider('one', ['r.example.com'])))
    expect(await all.find('r.example.com', 'app')).toEqual(ADA)
    await settings.write('one.json', answer({ 'r.example.com': BOB }, 'Registry', '0'))
    expect(await all.find('r.example.com', 'app')).toEqual(ADA)
    expect(await all.find('r.example.com', 'app', ADA)).toEqual(BOB)
    expect(await all.find('r.example.com', 'app')).toEqual(BOB)
    expect(await asked('one')).toHaveLength(3)
  })

  test('that fails, or says something else, is passed over, and what it said is not told', async () => {
    const broken = ['{', '{"kind":"Secret"}', answer({ 'r.example.com': ADA }, 'Secret'), answer({}, 'Image', 'Secret')]
    for (const [i, each] of broken.entries()) await program(`broken${i}`, each)
    await program('one', answer({ 'r.example.com': ADA }))
    const names = [...broken.keys()].map((i) => `broken${i}`)
    const all = await providers(config(...['gone', ...names, 'one'].map((each) => provider(each, ['r.example.com']))))
    for (let i = 0; i < 2; i++) expect(await all.find('r.example.com', 'app')).toEqual(ADA)
    expect(said).toHaveLength(5)
    expect(said.join()).toContain('is not installed')
    expect(said.join()).not.toContain('Secret')
  })

  test('that wants a service account’s token is left out, which is said', async () => {
    await program('one', answer({ 'r.example.com': ADA }))
    const tokenAttributes = { serviceAccountTokenAudience: 'x' }
    const all = await providers(config(provider('one', ['r.example.com'], { tokenAttributes })))
    expect(await all.find('r.example.com', 'app')).toBeUndefined()
    expect(said).toEqual([expect.stringContaining('"one" is not asked')])
  })
})

test('an image comes with what a provider gives, renewed when the registry refuses it', async () => {
  const shelf = new MemoryShelf()
  shelf.addImage([pattern(100)], { tags: ['1'] })
  await using registry = Object.assign(await startRegistry({ shelf }), {
    [Symbol.asyncDispose]: () => registry.close(),
  })
  registry.auth = { scheme: 'basic', ...ADA }
  await program('one', answer({ [registry.host]: ADA }, 'Global', '12h'))
  const places = {
    config: await settings.write('providers.json', config(provider('one', [registry.host]))),
    binDir: join(settings.dir, 'bin'),
  }
  const certDir = join(settings.dir, 'certs')
  await settings.write('certs/ca.crt', registry.cert)
  const registries = settings.registries({ providers: places, certDir })
  const resolve = () =>
    registries.source(parseReference(`${registry.host}/app:1`)).resolve({ os: 'linux', architecture: 'amd64' })
  expect((await resolve()).manifest.layers).toHaveLength(1)
  registry.auth = { scheme: 'basic', ...BOB }
  await settings.write('one.json', answer({ [registry.host]: BOB }, 'Global', '12h'))
  expect((await resolve()).manifest.layers).toHaveLength(1)
  expect(await asked('one')).toHaveLength(2)
})

describe('a configuration of providers', () => {
  test('is YAML as well', () => {
    const { providers } = parseProviderConfig(
      `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
    defaultCacheDuration: "12h30m"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
`,
      'x',
    )
    expect(providers).toMatchObject([{ name: 'ecr-credential-provider', cacheMs: 45_000_000, args: [], env: {} }])
  })

  test.each([
    '[',
    '5',
    '{}',
    config().replace('/v1"', '/v9"'),
    config(provider('../sh', ['x'])),
    config(provider('.', ['x'])),
    config(provider('x', [])),
    config(provider('x', ['x'], { defaultCacheDuration: '5 apples' })),
    config(provider('x', ['x'], { apiVersion: 'v1' })),
    config(provider('x', ['x'], { args: [5] })),
    config(provider('x', ['x'], { env: [{ name: 'SECRET' }] })),
    config(...Array.from({ length: 65 }, () => provider('x', ['x']))),
  ])('is refused that is %j', (text) => {
    expect(() => parseProviderConfig(text, 'x')).toThrow(expect.objectContaining({ code: 'usage' }))
  })
})

test.each([
  ['r.example.com', 'r.example.com/app', true],
  ['*.example.com', 'r.example.com/app', true],
  ['*.example.com', 'a.b.example.com/app', false],
  ['*.*.example.com', 'a.b.example.com/app', true],
  ['r*1-*.example.com', 'r001-x.example.com/app', true],
  ['r*1-*.example.com', 'r1.example.com/app', false],
  ['a*a.example.com', 'a.example.com/app', false],
  ['r.example.com', 'r.example.com:5000/app', false],
  ['r.example.com:5000', 'r.example.com:5000/app', true],
  ['https://r.example.com/team', 'r.example.com/team/app', true],
  ['r.example.com/team', 'r.example.com/other', false],
  ['docker.io', 'docker.io/library/nginx', true],
])('%s is for %s: %j', (pattern, image, expected) => {
  expect(matchesImage(pattern, image)).toBe(expected)
})

test.each([
  ['1h30m', 5_400_000],
  ['1.5s', 1_500],
  ['0s', 0],
  ['0', 0],
  ['250ms', 250],
  ['', undefined],
  ['-5s', undefined],
  [5, undefined],
])('%j lasts %j ms', (text, expected) => {
  expect(durationMs(text)).toBe(expected)
})

test('nothing of a file gets into a warning: it may hold secrets', () => {
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  expect(() => parseProviderConfig('kind: !secret x\nenv: &a b', 'config.yaml')).toThrow('config.yaml')
  expect(warned).not.toHaveBeenCalled()
  warned.mockRestore()
})
