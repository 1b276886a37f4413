import { expect, test } from 'vitest'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { scopes } from '../../src/policy/scope.ts'
import { named, namedText, parseNamed, type SignedIdentity, whyNotFor } from '../../src/policy/signed-identity.ts'

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`
const OTHER = `sha256:${'f'.repeat(64)}`

function check(rule: SignedIdentity, intended: string, signed: string, fits: boolean): void {
  const why = whyNotFor(rule, named(parseRegistryReference(intended)), signed)
  if (fits) expect(why, `${intended} ${signed}`).toBeUndefined()
  else expect(why, `${intended} ${signed}`).toContain(JSON.stringify(signed))
}

const exactReference = parseNamed('registry.example.com/a:1')
if (exactReference === undefined) throw new Error('a reference')

test('matchExact wants the same reference, tag and all', () => {
  const rule: SignedIdentity = { type: 'matchExact' }
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a:1', true)
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a:2', false)
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a', false)
  check(rule, 'registry.example.com/a', 'registry.example.com/a:latest', true)
  check(rule, `registry.example.com/a@${DIGEST}`, `registry.example.com/a@${DIGEST}`, true)
  check(rule, `registry.example.com/a@${DIGEST}`, 'registry.example.com/a:1', false)
  check(rule, 'debian:12', 'debian:12', true)
  check(rule, 'debian:12', 'docker.io/library/debian:12', true)
})

test('matchRepoDigestOrExact lets go of the tag where the digest is asked for', () => {
  const rule: SignedIdentity = { type: 'matchRepoDigestOrExact' }
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a:1', true)
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a:2', false)
  check(rule, `registry.example.com/a@${DIGEST}`, 'registry.example.com/a:2', true)
  check(rule, `registry.example.com/a:1@${DIGEST}`, 'registry.example.com/a:2', true)
  check(rule, `registry.example.com/a@${DIGEST}`, `registry.example.com/a@${OTHER}`, true)
  check(rule, `registry.example.com/a@${DIGEST}`, 'registry.example.com/a', false)
  check(rule, `registry.example.com/a@${DIGEST}`, 'registry.example.com/b:1', false)
})

test('matchRepository wants the repository alone', () => {
  const rule: SignedIdentity = { type: 'matchRepository' }
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a', true)
  check(rule, 'registry.example.com/a:1', `registry.example.com/a@${OTHER}`, true)
  check(rule, 'registry.example.com/a:1', 'registry.example.com/a/b:1', false)
  check(rule, 'registry.example.com/a:1', 'registry.example.com:443/a:1', false)
})

test('exactReference and exactRepository say themselves what was signed', () => {
  const reference: SignedIdentity = { type: 'exactReference', reference: exactReference }
  check(reference, 'mirror.example.com/x:7', 'registry.example.com/a:1', true)
  check(reference, 'registry.example.com/a:2', 'registry.example.com/a:2', false)
  const repository: SignedIdentity = { type: 'exactRepository', reference: exactReference }
  check(repository, 'mirror.example.com/x:7', 'registry.example.com/a:2', true)
  check(repository, 'mirror.example.com/x:7', 'mirror.example.com/x:7', false)
})

test('remapIdentity replaces a prefix, at its parts only', () => {
  const rule: SignedIdentity = {
    type: 'remapIdentity',
    prefix: 'mirror.example.com/vendor',
    signedPrefix: 'vendor.example.com',
  }
  check(rule, 'mirror.example.com/vendor/a:1', 'vendor.example.com/a:1', true)
  check(rule, 'mirror.example.com/vendor/a:1', 'mirror.example.com/vendor/a:1', false)
  check(rule, 'mirror.example.com/vendor2/a:1', 'vendor.example.com2/a:1', false)
  check(rule, 'mirror.example.com/vendor2/a:1', 'mirror.example.com/vendor2/a:1', true)
  check(rule, `mirror.example.com/vendor/a@${DIGEST}`, 'vendor.example.com/a:9', true)
  const broken: SignedIdentity = { type: 'remapIdentity', prefix: 'mirror.example.com/a', signedPrefix: 'example' }
  expect(whyNotFor(broken, named(parseRegistryReference('mirror.example.com/a:1')), 'example:1')).toContain(
    'remapIdentity',
  )
})

test('what is no reference is for no image', () => {
  const rule: SignedIdentity = { type: 'matchRepository' }
  const digits = 'a'.repeat(64)
  for (const text of ['', ':', 'UPPER:1', 'registry.example.com/A:1', 'Registry.example.com/a:1', digits]) {
    check(rule, 'registry.example.com/a:1', text, false)
    expect(parseNamed(text), text).toBeUndefined()
  }
  expect(parseNamed('a/'.repeat(5000))).toBeUndefined()
})

test('a reference stays as it was written, but for its full name', () => {
  const written: [string, string][] = [
    ['debian', 'docker.io/library/debian'],
    ['index.docker.io/library/debian:12', 'docker.io/library/debian:12'],
    [`user/app:1@${DIGEST}`, `docker.io/user/app:1@${DIGEST}`],
    ['registry.example.com:5000/a/b', 'registry.example.com:5000/a/b'],
    ['localhost/a:1', 'localhost/a:1'],
  ]
  for (const [text, want] of written) {
    const found = parseNamed(text)
    expect(found && namedText(found), text).toBe(want)
  }
})

test('scopes go from the reference to the domains above its host', () => {
  const of = (text: string) => scopes(named(parseRegistryReference(text)))
  expect(of('registry.example.com:5000/a/b:1')).toEqual([
    'registry.example.com:5000/a/b:1',
    'registry.example.com:5000/a/b',
    'registry.example.com:5000/a',
    'registry.example.com:5000',
    '*.example.com',
    '*.com',
  ])
  expect(of(`debian@${DIGEST}`)).toEqual([
    ...['docker.io', 'index.docker.io', 'registry-1.docker.io'].map((host) => `${host}/library/debian@${DIGEST}`),
    ...['docker.io', 'index.docker.io', 'registry-1.docker.io'].map((host) => `${host}/library/debian`),
    ...['docker.io', 'index.docker.io', 'registry-1.docker.io'].map((host) => `${host}/library`),
    ...['docker.io', 'index.docker.io', 'registry-1.docker.io'],
    '*.io',
  ])
  expect(of('localhost/a:1')).toEqual(['localhost/a:1', 'localhost/a', 'localhost'])
})
