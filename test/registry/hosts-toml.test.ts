// containerd's hosts.toml: what is taken from it, and that images come by it.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import { parseHostsToml, readContainerdHosts } from '../../src/registry/hosts-toml.ts'
import { MemoryShelf, pattern } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Settings } from '../fake/settings.ts'

const parsed = (text: string) => parseHostsToml(text, '/etc/certs.d/r.example.com/hosts.toml', 'r.example.com')

describe('hosts.toml', () => {
  test('names mirrors in their order, by what they may be asked for', () => {
    const { rule } = parsed(`
server = "https://origin.example.com"
[host."https://one.example.com:5000"]
  capabilities = ["pull", "resolve"]
[host."http://two.example.com"]
  capabilities = ["pull"]
[host."https://three.example.com"]
  capabilities = ["push"]
[host."https://four.example.com"]
  skip_verify = true
`)
    const asked = { api: '/v2', namespace: 'r.example.com', headers: {} }
    const mirror = (location: string, insecure: boolean, serves: string) => ({ location, insecure, serves, asked })
    expect(rule).toEqual({
      prefix: 'r.example.com',
      location: 'origin.example.com',
      insecure: false,
      blocked: false,
      asked,
      mirrors: [
        mirror('one.example.com:5000', false, 'all'),
        mirror('two.example.com', true, 'digest'),
        mirror('four.example.com', true, 'all'),
      ],
    })
  })

  test('names files of each host, relative to itself', () => {
    const { files, rule } = parsed(`
ca = "own.crt"
client = [["c.pem", "c.key"], "both.pem"]
[host."https://one.example.com"]
  ca = ["/a.crt", "b.crt"]
`)
    const at = (name: string) => join('/etc/certs.d/r.example.com', name)
    expect(Object.fromEntries(files)).toEqual({
      'one.example.com': { authorities: ['/a.crt', at('b.crt')], identities: [] },
      'r.example.com': {
        authorities: [at('own.crt')],
        identities: [
          { cert: at('c.pem'), key: at('c.key') },
          { cert: at('both.pem'), key: at('both.pem') },
        ],
      },
    })
    expect(rule.location).toBe('') // nobody has spelled it out
  })

  test('says at which path each is asked, and what it is sent, as containerd does', () => {
    const { rule } = parsed(`
server = "https://r.example.com/proxy/"
[host."https://one.example.com/proxy"]
[host."https://two.example.com/v2/proxy"]
  override_path = true
[host."https://three.example.com"]
  override_path = true
  [host."https://three.example.com".header]
    X-Token = ["a", "b"]
    x-other = "c"
[host."https://r.example.com/v2"]
`)
    const asked = (api: string, headers = {}) => ({ api, headers, namespace: 'r.example.com' })
    expect(rule.mirrors.map((each) => each.asked)).toEqual([
      asked('/proxy/v2'),
      asked('/v2/proxy'),
      asked('', { 'x-token': 'a, b', 'x-other': 'c' }),
      undefined,
    ])
    expect(rule.asked).toEqual({ api: '/proxy/v2', headers: {} })
  })

  const refuse = (text: string) =>
    test(`is refused that is ${JSON.stringify(text)}`, () =>
      expect(() => parsed(text)).toThrow(expect.objectContaining({ code: expect.stringMatching(/usage|limit/) })))
  for (const text of [
    '[',
    'server = 5',
    'host = 5',
    'host = { "https://x" = 1 }',
    '[host."ftp://x"]',
    '[host."https://x"]\nca = 5',
    '[host."https://x"]\nclient = [[]]',
    'server = "https://"',
    '[host."https://x"]\ncapabilities = "pull"',
    '[header]\n"x y" = "z"',
    '[header]\nx = "a\\r\\nb: c"',
    '[header]\nx = 5',
  ])
    refuse(text)
})

describe('an image', () => {
  let settings: Settings
  let mirror: FakeRegistry
  let dir: string

  beforeEach(async () => {
    settings = await Settings.make()
    const shelf = new MemoryShelf()
    shelf.addImage([pattern(100)], { tags: ['1'] })
    mirror = await startRegistry({ shelf })
    dir = join(settings.dir, 'hosts')
  })
  afterEach(async () => {
    await mirror.close()
    await settings[Symbol.asyncDispose]()
  })

  async function write(host: string, text: string): Promise<void> {
    await mkdir(join(dir, host), { recursive: true })
    await writeFile(join(dir, host, 'ca.pem'), mirror.cert)
    await writeFile(join(dir, host, 'hosts.toml'), text)
  }
  const resolve = (name: string) =>
    settings
      .registries({ containerdHosts: dir })
      .source(parseReference(name))
      .resolve({ os: 'linux', architecture: 'amd64' })

  for (const folder of ['registry.example.com', '_default'])
    test(`comes by a mirror with an authority of its own, set in ${folder}`, async () => {
      await write(folder, `[host."https://${mirror.host}"]\n  ca = "ca.pem"\n`)
      expect((await resolve('registry.example.com/app:1')).manifest.layers).toHaveLength(1)
    })

  test('of a registry with a port comes by the folder that containerd looks into first', async () => {
    await write('registry.example.com:5000', 'server = 5')
    await write('registry.example.com_5000_', `[host."https://${mirror.host}"]\n  ca = "ca.pem"\n`)
    expect((await resolve('registry.example.com:5000/app:1')).manifest.layers).toHaveLength(1)
  })

  test('is asked for under the path of a mirror, which is told for whom and sent what it wants', async () => {
    await write(
      'registry.example.com',
      `[host."https://${mirror.host}/proxy"]
  ca = "ca.pem"
[host."https://${mirror.host}"]
  ca = "ca.pem"
  header = { x-token = "secret" }
`,
    )
    const { manifest } = await resolve('registry.example.com/app:1')
    expect(manifest.layers).toHaveLength(1)
    const manifests = mirror.seen.filter(({ path }) => path.includes('manifests'))
    expect(manifests.map(({ path, status, header }) => [path, status, header('x-token')])).toEqual([
      ['/proxy/v2/app/manifests/1?ns=registry.example.com', 404, undefined],
      ['/v2/app/manifests/1?ns=registry.example.com', 200, 'secret'],
    ])
  })

  test('what a mirror is sent is not sent to where it leads', async () => {
    const storage = await startRegistry({ shelf: new MemoryShelf() })
    const sent = `[host."https://${mirror.host}"]\nca = "ca.pem"\nheader = { x-token = "secret" }`
    await write('registry.example.com', `${sent}\n[host."https://${storage.host}"]\nca = "ca.pem"`)
    mirror.faults = [{ match: /manifests/, redirect: `${storage.url}/elsewhere` }]
    await expect(resolve('registry.example.com/app:1')).rejects.toMatchObject({ code: expect.any(String) })
    expect(mirror.seen[0]?.header('x-token')).toBe('secret')
    expect(storage.seen[0]?.path).toBe('/elsewhere')
    expect(storage.seen.map(({ header }) => header('x-token')).filter(Boolean)).toEqual([])
    await storage.close()
  })

  test('goes by registries.conf alone, where that says anything of it', async () => {
    await write('registry.example.com', `[host."https://${mirror.host}"]\n  ca = "ca.pem"\n`)
    await settings.write(
      'etc/containers/registries.conf',
      `[[registry]]\nprefix = "registry.example.com"\nlocation = "registry.example.com"\nblocked = true\n`,
    )
    await expect(resolve('registry.example.com/app:1')).rejects.toMatchObject({ code: 'denied' })
  })

  test('whose host is no folder’s name has none', async () => {
    expect(await readContainerdHosts(dir, '../x')).toBeUndefined()
    const { host } = parseReference('registry.example.com/app:1') as RegistryReference // as it is written
    expect(await readContainerdHosts(dir, host)).toBeUndefined()
  })
})
