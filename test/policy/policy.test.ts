import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createMessage, generateKey, type PrivateKey, sign as signMessage } from 'openpgp'
import { afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { parseRegistryReference } from '../../src/image/reference.ts'
import { loadPolicy, type PolicyPlaces } from '../../src/policy/policy.ts'
import type { Sources } from '../../src/policy/stored-signatures.ts'
import { json, OCI_MANIFEST } from '../fake/image.ts'

const MANIFEST = json({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers: [] })
const DIGEST = digestOf(MANIFEST)
const REFERENCE = 'registry.example.com/team/app:1'
const COSIGN = 'application/vnd.dev.cosign.simplesigning.v1+json'

let dir: string
let gpg: { privateKey: PrivateKey; armored: string }
const cosign = generateKeyPairSync('ec', { namedCurve: 'P-256' })

beforeAll(async () => {
  const { privateKey, publicKey } = await generateKey({ userIDs: [{ name: 'signer' }], type: 'ecc', format: 'object' })
  gpg = { privateKey, armored: publicKey.armor() }
})

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'lazylayer-policy-'))
  await put('key.gpg', gpg.armored)
  await put('key.pub', cosign.publicKey.export({ type: 'spki', format: 'pem' }) as string)
})

afterEach(async () => {
  await rm(dir, { recursive: true, force: true })
})

async function put(path: string, content: string | Uint8Array): Promise<string> {
  const file = join(dir, path)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, content)
  return file
}

const at = (path: string) => join(dir, path)
const payload = (type: string, reference = REFERENCE, manifest: string = DIGEST) =>
  Buffer.from(
    JSON.stringify({
      critical: {
        type,
        image: { 'docker-manifest-digest': manifest },
        identity: { 'docker-reference': reference },
      },
      optional: {},
    }),
  )

/** Signs for the lookaside that is the default of a plain user. */
async function signSimply(reference = REFERENCE, number = 1): Promise<void> {
  const message = await createMessage({ binary: payload('atomic container signature', reference) })
  const bytes = await signMessage({ message, signingKeys: gpg.privateKey, format: 'binary' })
  await put(`signatures/team/app@sha256=${hex(DIGEST)}/signature-${number}`, new Uint8Array(bytes))
}

function nowhere(): Sources & { asked: string[] } {
  const asked: string[] = []
  return {
    asked,
    async manifest(tag) {
      asked.push(tag)
      return undefined
    },
    async blob({ digest }) {
      throw Failure.missing(digest)
    },
    async file(url) {
      asked.push(url.href)
      return undefined
    },
  }
}

/** A repository in which somebody signed with a key. */
function attached(key: KeyObject, reference?: string): Sources {
  const text = payload('cosign container image signature', reference)
  const annotations = { 'dev.cosignproject.cosign/signature': sign('sha256', text, key).toString('base64') }
  const descriptor = (bytes: Uint8Array, mediaType: string) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  })
  return {
    ...nowhere(),
    manifest: async () =>
      json({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config: descriptor(json({}), 'application/vnd.oci.image.config.v1+json'),
        layers: [{ ...descriptor(text, COSIGN), annotations }],
      }),
    blob: async () => new Uint8Array(text),
  }
}

async function verdict(policy: unknown, options: { reference?: string; sources?: Sources } = {}) {
  const places: PolicyPlaces = { home: at('home'), etc: at('etc'), signatures: at('signatures') }
  await put('etc/containers/policy.json', JSON.stringify(policy))
  const signal = new AbortController().signal
  const reference = parseRegistryReference(options.reference ?? REFERENCE)
  return (await loadPolicy(places, signal)).check(
    { reference, manifest: MANIFEST },
    options.sources ?? nowhere(),
    signal,
  )
}

const signedBy = (more: object = {}) => ({ type: 'signedBy', keyType: 'GPGKeys', keyPath: at('key.gpg'), ...more })
const sigstoreSigned = (more: object = {}) => ({ type: 'sigstoreSigned', keyPath: at('key.pub'), ...more })
const only = (...requirements: object[]) => ({ default: requirements })
const refused = (why: RegExp) => ({ accepted: false, why: expect.stringMatching(why) })

test('a simple signature in the usual place is found without any configuration', async () => {
  await signSimply()
  expect(await verdict(only(signedBy()))).toEqual({
    accepted: true,
    by: expect.stringMatching(/^GPG key [0-9A-F]{40}, file:.*signature-1$/),
  })
})

test('a sigstore signature is found where registries.d says that it may be', async () => {
  const sources = attached(cosign.privateKey)
  expect(await verdict(only(sigstoreSigned()), { sources })).toEqual(refused(/set use-sigstore-attachments: true/))
  await put('etc/containers/registries.d/a.yaml', 'docker: {registry.example.com: {use-sigstore-attachments: true}}')
  expect(await verdict(only(sigstoreSigned()), { sources })).toEqual({
    accepted: true,
    by: `sigstore key 1 of the policy, sha256-${hex(DIGEST)}.sig, layer 1`,
  })
  const other = attached(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
  expect(await verdict(only(sigstoreSigned()), { sources: other })).toEqual(refused(/by none of the policy's keys/))
})

test('a policy that accepts anything vouches for nothing', async () => {
  await signSimply()
  const any = { type: 'insecureAcceptAnything' }
  expect(await verdict(only(any))).toEqual(refused(/nobody vouches for its DiffIDs/))
  expect(await verdict(only(any, signedBy()))).toMatchObject({ accepted: true })
})

test('every requirement must hold', async () => {
  await signSimply()
  expect(await verdict(only(signedBy(), { type: 'reject' }))).toEqual(refused(/rejects this image/))
  expect(await verdict(only(signedBy(), sigstoreSigned()))).toEqual(refused(/sigstore signatures are not looked for/))
  expect(await verdict(only(signedBy(), signedBy()))).toMatchObject({ accepted: true })
})

test('the most telling scope decides alone', async () => {
  await signSimply()
  const reject = [{ type: 'reject' }]
  const accepted = async (scope: string) => {
    const transports = { docker: { '': reject, 'registry.example.com/team/other': reject, [scope]: [signedBy()] } }
    return (await verdict({ default: reject, transports })).accepted
  }
  for (const scope of [
    REFERENCE,
    'registry.example.com/team/app',
    'registry.example.com/team',
    '*.example.com',
    '*.com',
  ])
    expect(await accepted(scope), scope).toBe(true)
  for (const scope of ['registry.example.com/te', 'example.com', '*.registry.example.com', 'docker.io'])
    expect(await accepted(scope), scope).toBe(false)
  const nearer = { 'registry.example.com': [signedBy()], 'registry.example.com/team/app': reject }
  expect(await verdict({ default: [signedBy()], transports: { docker: nearer } })).toEqual(
    refused(/docker "registry.example.com\/team\/app": the policy rejects/),
  )
  expect(await verdict({ default: reject, transports: { docker: { '': [signedBy()] } } })).toMatchObject({
    accepted: true,
  })
  expect(await verdict({ default: reject, transports: { atomic: { '': [signedBy()] } } })).toEqual(refused(/default: /))
})

test('what is not evaluated is refused with the reason, and what to do', async () => {
  const fulcio = { caPath: '/ca', oidcIssuer: 'https://issuer.example.com', subjectEmail: 'a@example.com' }
  const keyless = { type: 'sigstoreSigned', fulcio, rekorPublicKeyPath: '/rekor.pub' }
  expect(await verdict(only(keyless))).toEqual(refused(/by fulcio is not evaluated.*\(Sign with a key/))
  const pki = { type: 'sigstoreSigned', pki: { caRootsPath: '/ca', subjectHostname: 'example.com' } }
  expect(await verdict(only(pki))).toEqual(refused(/by pki is not evaluated/))
  expect(await verdict(only(signedBy({ keyType: 'X509Certificates' })))).toEqual(refused(/keyType X509Certificates/))
  const base = { type: 'signedBaseLayer', baseLayerIdentity: { type: 'matchExact' } }
  expect(await verdict(only(base))).toEqual(refused(/signedBaseLayer is not evaluated/))
})

test('keys that are not there, or are none, are named', async () => {
  expect(await verdict(only(signedBy({ keyPath: at('none') })))).toEqual(
    refused(/key .*none is not there \(Put it there/),
  )
  expect(await verdict(only(signedBy({ keyPath: at('key.pub') })))).toEqual(refused(/key.pub\) cannot be used/))
  expect(await verdict(only(sigstoreSigned({ keyPath: at('key.gpg') })))).toEqual(refused(/key.gpg\) cannot be used/))
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' })
  const rekorPublicKeyData = Buffer.from(rsa as string).toString('base64')
  expect(await verdict(only(sigstoreSigned({ rekorPublicKeyData })))).toEqual(refused(/Rekor public key.* not ECDSA/))
})

test('the bytes of the manifest are what was signed, not what somebody calls them', async () => {
  await signSimply()
  const places = { home: at('home'), etc: at('etc'), signatures: at('signatures') }
  await put('etc/containers/policy.json', JSON.stringify(only(signedBy())))
  const signal = new AbortController().signal
  const reference = parseRegistryReference(REFERENCE)
  const policy = await loadPolicy(places, signal)
  await expect(policy.check({ reference, manifest: json({}) }, nowhere(), signal)).resolves.toEqual(
    refused(/it has no simple signature/),
  )
})

test('the refusal names the first signatures, and counts the others', async () => {
  for (let number = 1; number <= 5; number++) await signSimply('registry.example.com/other:1', number)
  const { accepted, ...rest } = await verdict(only(signedBy()))
  expect(accepted).toBe(false)
  const { why } = rest as { why: string }
  expect(why.match(/it is for "registry.example.com\/other:1", the policy wants registry/g)).toHaveLength(3)
  expect(why).toMatch(/; and 2 more$/)
})

test('the refusal is one short line, whatever a signature says', async () => {
  const wicked = `\u001b[2J\u202e\n${'x'.repeat(5000)}`
  await signSimply(wicked)
  const found = await verdict(only(signedBy()))
  expect(found).toEqual(refused(/it is for "/))
  const why = 'why' in found ? found.why : ''
  expect(why).toMatch(/^[\x20-\x7e]*$/)
  expect(why.length).toBeLessThan(1500)
})

test('signatures that cannot be read are no verdict', async () => {
  await put('etc/containers/registries.d/a.yaml', 'default-docker: {lookaside: "https://signatures.example.com"}')
  const broken: Sources = {
    ...nowhere(),
    async file() {
      throw Failure.unavailable('signatures.example.com does not answer')
    },
  }
  await expect(verdict(only(signedBy()), { sources: broken })).rejects.toMatchObject({ code: 'unavailable' })
})

test('nothing is asked for where the verdict needs no signature', async () => {
  const sources = nowhere()
  await put('etc/containers/registries.d/a.yaml', 'default-docker: {lookaside: "https://signatures.example.com"}')
  await verdict(only({ type: 'reject' }), { sources })
  await verdict(only({ type: 'insecureAcceptAnything' }), { sources })
  expect(sources.asked).toEqual([])
  await verdict(only(signedBy()), { sources })
  expect(sources.asked).toHaveLength(1)
})

test("a user's own policy and registries.d come before the system's", async () => {
  await signSimply()
  const policy = only(signedBy())
  expect(await verdict(policy)).toMatchObject({ accepted: true })
  await put('home/.config/containers/registries.d/a.yaml', 'default-docker: {lookaside: "file:///nowhere"}')
  expect(await verdict(policy)).toEqual(refused(/in file:\/\/\/nowhere/))
  await put('home/.config/containers/policy.json', JSON.stringify(only({ type: 'reject' })))
  expect(await verdict(policy)).toEqual(refused(/home\/.config\/containers\/policy.json, default: the policy rejects/))
})

test('without a policy, or with an invalid one, nothing is decided', async () => {
  const places = { home: at('home'), etc: at('none'), signatures: at('signatures') }
  const signal = new AbortController().signal
  await expect(loadPolicy(places, signal)).rejects.toMatchObject({ code: 'missing' })
  const policy = await put('policy.json', '{}')
  await expect(loadPolicy({ ...places, policy }, signal)).rejects.toMatchObject({ code: 'usage' })
  await expect(loadPolicy({ ...places, policy: dir }, signal)).rejects.toMatchObject({ code: 'usage' })
  await put('big.json', Buffer.alloc((1 << 20) + 1, 0x20))
  await expect(loadPolicy({ ...places, policy: at('big.json') }, signal)).rejects.toMatchObject({ code: 'limit' })
})

test('whoever gave up gets no verdict', async () => {
  const places = { home: at('home'), etc: at('etc'), signatures: at('signatures') }
  await signSimply()
  await put('etc/containers/policy.json', JSON.stringify(only(signedBy())))
  const reference = parseRegistryReference(REFERENCE)
  const policy = await loadPolicy(places, new AbortController().signal)
  const gone = AbortSignal.abort(Failure.aborted('enough'))
  await expect(policy.check({ reference, manifest: MANIFEST }, nowhere(), gone)).rejects.toMatchObject({
    code: 'aborted',
  })
})
