import { expect, test } from 'vitest'
import { parsePolicy, type Requirement } from '../../src/policy/requirements.ts'

const parse = (value: unknown) =>
  parsePolicy(Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)), 'policy.json')

/** As the default's only requirement. */
function check(requirement: object, want: object): void {
  expect(parse({ default: [requirement] }).default).toEqual([want])
}

function refuse(value: unknown, why: RegExp): void {
  expect(() => parse(value), JSON.stringify(value)).toThrow(
    expect.objectContaining({
      code: 'usage',
      message: 'policy.json is no valid policy',
      why: expect.stringMatching(why),
    }),
  )
}

const identity = { type: 'matchRepoDigestOrExact' }
const keyPath = '/etc/pki/key.gpg'

test('each requirement is read', () => {
  check({ type: 'reject' }, { type: 'reject' })
  check({ type: 'insecureAcceptAnything' }, { type: 'insecureAcceptAnything' })
  check({ type: 'signedBaseLayer', baseLayerIdentity: { type: 'matchExact' } }, { type: 'signedBaseLayer' })
  const signedBy = { type: 'signedBy', keyType: 'GPGKeys' }
  check({ ...signedBy, keyPath }, { ...signedBy, keys: { paths: [keyPath] }, identity })
  check({ ...signedBy, keyPaths: [keyPath, '/b'] }, { ...signedBy, keys: { paths: [keyPath, '/b'] }, identity })
  check({ ...signedBy, keyData: 'AQI=' }, { ...signedBy, keys: { contents: [new Uint8Array([1, 2])] }, identity })
  const sigstore = { type: 'sigstoreSigned' }
  check({ ...sigstore, keyPath }, { ...sigstore, keys: { paths: [keyPath] }, rekor: undefined, identity })
  check(
    { ...sigstore, keyDatas: ['AQ==', 'Ag=='], rekorPublicKeyPath: '/rekor' },
    {
      ...sigstore,
      keys: { contents: [new Uint8Array([1]), new Uint8Array([2])] },
      rekor: { paths: ['/rekor'] },
      identity,
    },
  )
  const fulcio = { caPath: '/ca', oidcIssuer: 'https://issuer.example.com', subjectEmail: 'a@example.com' }
  check(
    { ...sigstore, fulcio, rekorPublicKeyData: 'AQ==' },
    { ...sigstore, keys: 'fulcio', rekor: { contents: [new Uint8Array([1])] }, identity },
  )
  const pki = { caRootsPath: '/ca', subjectHostname: 'example.com' }
  check({ ...sigstore, pki }, { ...sigstore, keys: 'pki', rekor: undefined, identity })
})

test('each identity is read', () => {
  const of = (signedIdentity: object) => {
    const [only] = parse({ default: [{ type: 'signedBy', keyType: 'GPGKeys', keyPath, signedIdentity }] }).default
    return (only as Extract<Requirement, { type: 'signedBy' }>).identity
  }
  for (const type of ['matchExact', 'matchRepoDigestOrExact', 'matchRepository']) expect(of({ type })).toEqual({ type })
  const name = 'registry.example.com/a'
  expect(of({ type: 'exactReference', dockerReference: `${name}:1` })).toEqual({
    type: 'exactReference',
    reference: { name, tag: '1', digest: undefined },
  })
  expect(of({ type: 'exactRepository', dockerRepository: name })).toEqual({
    type: 'exactRepository',
    reference: { name, tag: undefined, digest: undefined },
  })
  const remap = { type: 'remapIdentity', prefix: 'mirror.example.com:5000', signedPrefix: 'example.com/vendor' }
  expect(of(remap)).toEqual(remap)
})

test('scopes are kept by transport, those of transports unknown here, too', () => {
  const reject = [{ type: 'reject' }]
  const transports = { docker: { '': reject, 'registry.example.com': reject }, future: { anything: reject } }
  const parsed = parse({ default: reject, transports })
  expect([...(parsed.transports.get('docker') ?? [])].map(([scope]) => scope)).toEqual(['', 'registry.example.com'])
  expect(parsed.transports.get('future')?.get('anything')).toEqual(reject)
})

test('what is empty, unknown, doubled or contradictory makes the file invalid', () => {
  const one = (requirement: object) => ({ default: [requirement] })
  const gpg = { type: 'signedBy', keyType: 'GPGKeys', keyPath }
  refuse('', /no JSON/)
  refuse([], /no JSON object/)
  refuse({}, /lacks "default"/)
  refuse({ default: [] }, /at least one/)
  refuse({ default: [{ type: 'reject' }], more: 1 }, /unknown key "more"/)
  refuse('{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}', /the key "type" twice/)
  refuse(one({ type: 'accept' }), /unknown type "accept"/)
  refuse(one({ type: 'reject', keyPath }), /unknown key "keyPath"/)
  refuse(one({ type: 'signedBy', keyType: 'GPGKeys' }), /lacks one of keyPath/)
  refuse(one({ ...gpg, keyData: 'AQ==' }), /both keyPath and keyData/)
  refuse(one({ ...gpg, keyDatas: ['AQ=='] }), /unknown key "keyDatas"/)
  refuse(one({ ...gpg, keyType: 'PGP' }), /unknown keyType/)
  refuse(one({ ...gpg, keyPath: '' }), /keyPath is empty/)
  refuse(one({ ...gpg, signedIdentity: null }), /no JSON object/)
  refuse(
    one({ ...gpg, signedIdentity: { type: 'exactReference', dockerReference: 'a.example.com/b' } }),
    /neither a tag/,
  )
  refuse(one({ ...gpg, signedIdentity: { type: 'exactRepository', dockerRepository: '/' } }), /no image reference/)
  refuse(one({ ...gpg, signedIdentity: { type: 'remapIdentity', prefix: 'a', signedPrefix: 'b/' } }), /no prefix/)
  refuse(one({ type: 'sigstoreSigned', keyPath, pki: { caRootsPath: '/a' } }), /exactly one of/)
  refuse(one({ type: 'sigstoreSigned', fulcio: { caPath: '/a' } }), /fulcio needs a rekorPublicKey/)
  refuse(one({ type: 'sigstoreSigned', pki: {}, rekorPublicKeyPath: '/a' }), /pki goes with no/)
  refuse({ default: Array.from({ length: 65 }, () => ({ type: 'reject' })) }, /more than 64 requirements/)
  refuse(one({ ...gpg, keyPath: undefined, keyPaths: Array.from({ length: 65 }, () => '/a') }), /more than 64 members/)
})
