import { expect, test } from 'vitest'
import { parseReference, type RegistryReference } from '../../src/image/reference.ts'
import { endpoints, parseRegistriesConf, readHostRules } from '../../src/registry/hosts.ts'
import { Settings } from '../fake/settings.ts'

function reference(text: string): RegistryReference {
  const parsed = parseReference(text)
  if (parsed.transport !== 'docker') throw new Error('no registry reference')
  return parsed
}

/** `host/repository`, with `!` behind it when insecure. */
function check(toml: string, name: string, ...want: string[]): void {
  const found = endpoints(parseRegistriesConf(toml, 'test.conf'), reference(name))
  expect(found.map((each) => `${each.host}/${each.repository}${each.insecure ? '!' : ''}`)).toEqual(want)
}

function refuse(toml: string, why: string): void {
  expect(() => parseRegistriesConf(toml, 'test.conf'), toml).toThrow(why)
}

test('without a rule a reference names its own host', () => {
  check('', 'quay.io/a/b', 'quay.io/a/b')
  check('unqualified-search-registries = ["docker.io"]', 'debian', 'docker.io/library/debian')
})

test('location replaces the prefix, which defaults to the location', () => {
  check('[[registry]]\nlocation = "quay.io"\ninsecure = true', 'quay.io/a/b', 'quay.io/a/b!')
  const moved = '[[registry]]\nprefix = "example.com/foo"\nlocation = "internal:5000/bar/"\ninsecure = true'
  check(moved, 'example.com/foo/x:1', 'internal:5000/bar/x!')
  check(moved, 'example.com/foo:1', 'internal:5000/bar!')
  check(moved, 'example.com/food/x', 'example.com/food/x')
  check(moved, 'example.com:5000/foo/x', 'example.com:5000/foo/x')
})

test('the longest prefix wins, whatever the order', () => {
  const rules = [
    '[[registry]]\nprefix = "example.com/a/b"\nlocation = "two.example/x"\n',
    '[[registry]]\nprefix = "example.com"\nlocation = "one.example"\n',
    '[[registry]]\nprefix = "example.com/a/b/c:tag"\nlocation = "three.example/z"\n',
  ]
  for (const toml of [rules.join(''), rules.reverse().join('')]) {
    check(toml, 'example.com/q', 'one.example/q')
    check(toml, 'example.com/a/b/c', 'two.example/x/c')
    check(toml, 'example.com/a/b/c:tag', 'three.example/z')
  }
})

test('a wildcard prefix matches subdomains only', () => {
  const toml = '[[registry]]\nprefix = "*.example.com"\ninsecure = true'
  check(toml, 'a.example.com/x', 'a.example.com/x!')
  check(toml, 'a.b.example.com/x', 'a.b.example.com/x!')
  check(toml, 'example.com/x', 'example.com/x')
  check(toml, 'notexample.com/x', 'notexample.com/x')
  check(toml, 'evil.com/a.example.com', 'evil.com/a.example.com')
  check('[[registry]]\nprefix = "*.example.com"\nlocation = "cache:5000"', 'a.example.com/x/y', 'cache:5000/x/y')
  const named = '[[registry]]\nprefix = "*.example.com"\n[[registry]]\nlocation = "a.example.com"\ninsecure = true'
  check(named, 'a.example.com/x', 'a.example.com/x!')
})

test('mirrors come first, those for digests only for digests', () => {
  const toml = `[[registry]]
location = "quay.io"
[[registry.mirror]]
location = "mirror.example/quay"
insecure = true
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"`
  check(toml, 'quay.io/a:1', 'mirror.example/quay/a!', 'quay.io/a')
  const digest = `quay.io/a@sha256:${'0'.repeat(64)}`
  check(toml, digest, 'mirror.example/quay/a!', 'digests.example/a', 'quay.io/a')
})

test('a blocked prefix is refused', () => {
  const rules = parseRegistriesConf('[[registry]]\nlocation = "bad.example"\nblocked = true', 'test.conf')
  expect(() => endpoints(rules, reference('bad.example/a'))).toThrow(expect.objectContaining({ code: 'denied' }))
  expect(endpoints(rules, reference('bad.example.com/a'))).toHaveLength(1)
})

test('a block of Docker Hub holds whichever of its names it has', () => {
  for (const host of ['docker.io', 'index.docker.io', 'registry-1.docker.io']) {
    for (const prefix of [host, `${host}/team`, `${host}/team/app`]) {
      const rules = parseRegistriesConf(`[[registry]]\nlocation = "${prefix}"\nblocked = true`, 'test.conf')
      for (const named of ['docker.io', 'index.docker.io', 'registry-1.docker.io']) {
        const call = () => endpoints(rules, reference(`${named}/team/app:1`))
        expect(call, `${prefix} ${named}`).toThrow(expect.objectContaining({ code: 'denied' }))
        expect(endpoints(rules, reference('registry.example.com/team/app:1'))).toHaveLength(1)
      }
      expect(endpoints(rules, reference('docker.io.example/team/app'))).toHaveLength(1)
    }
  }
})

test('malformed configuration is refused, naming file and table', () => {
  refuse('[[registry', 'test.conf is no TOML')
  refuse('registry = 1', 'registry is no list of tables')
  refuse('[[registry]]\ninsecure = true', 'registry 1 has neither prefix nor location')
  refuse('[[registry]]\nprefix = "a.example"', 'has no location')
  refuse('[[registry]]\nlocation = 7', 'location is no text')
  refuse('[[registry]]\nlocation = "a"\ninsecure = "yes"', 'neither true nor false')
  refuse('[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true', 'a mirror has no location')
})

test('the file named wins over the environment, that over the user, that over the system; drop-ins come on top', async () => {
  await using settings = await Settings.make()
  const rule = (location: string) => `[[registry]]\nprefix = "r.example"\nlocation = "${location}"\n`
  const found = async (env: Record<string, string> = {}, path?: string) => {
    const [rule] = await readHostRules({ ...settings.places, env }, path)
    return rule?.location
  }
  expect(await found()).toBeUndefined()
  await settings.write('etc/containers/registries.conf', rule('system'))
  expect(await found()).toBe('system')
  await settings.write('home/.config/containers/registries.conf', rule('user'))
  expect(await found()).toBe('user')
  const named = await settings.write('named.conf', rule('environment'))
  expect(await found({ CONTAINERS_REGISTRIES_CONF: named })).toBe('environment')
  const flag = await settings.write('flag.conf', rule('flag'))
  expect(await found({ CONTAINERS_REGISTRIES_CONF: named }, flag)).toBe('flag')
  await settings.write('etc/containers/registries.conf.d/20.conf', rule('drop-in 20'))
  await settings.write('etc/containers/registries.conf.d/10.conf', rule('drop-in 10'))
  await settings.write('etc/containers/registries.conf.d/99.txt', rule('no drop-in'))
  expect(await found()).toBe('drop-in 20')
  await settings.write('home/.config/containers/registries.conf.d/01.conf', rule('user drop-in'))
  expect(await found()).toBe('user drop-in')
  await expect(found({}, `${settings.dir}/absent`)).rejects.toMatchObject({ code: 'usage' })
})
