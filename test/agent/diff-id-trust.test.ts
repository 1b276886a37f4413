import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { beliefOf, diffIdTrust } from '../../src/agent/diff-id-trust.ts'
import { Failure } from '../../src/errors.ts'
import { digestOf } from '../../src/image/digest.ts'
import { parseReference } from '../../src/image/reference.ts'
import type { Store } from '../../src/store/store.ts'
import type { TrustsDiffIds } from '../../src/stores/identity.ts'
import { json } from '../fake/image.ts'
import { simpleSignature } from '../policy/simple-signature.ts'
import { folder } from '../store/folder.ts'

const REFERENCE = 'registry.example.com/team/app:1'
const manifestBytes = json({ schemaVersion: 2, layers: [] })
const image: Parameters<TrustsDiffIds>[0] = {
  reference: parseReference(REFERENCE),
  manifestBytes,
  digest: digestOf(manifestBytes),
}

/** A machine whose policy wants signatures, and a signed image; `asked` counts looks at the repository. */
async function machine() {
  const dir = await folder()
  const put = async (path: string, content: string | Uint8Array) => {
    await mkdir(dirname(join(dir, path)), { recursive: true })
    await writeFile(join(dir, path), content)
  }
  const { key, place, signature } = await simpleSignature('team/app', REFERENCE, image.digest)
  await put('key', key)
  await put(join('signatures', place), signature)
  const policy = (type: string) =>
    put(
      'etc/containers/policy.json',
      JSON.stringify({
        default: [{ type, ...(type === 'signedBy' ? { keyType: 'GPGKeys', keyPath: join(dir, 'key') } : {}) }],
      }),
    )
  await policy('signedBy')
  const kept = new Set<string>()
  const store: Pick<Store, 'accepted' | 'keepAccepted'> = {
    accepted: async (...of) => kept.has(of.join(' ')),
    keepAccepted: async (...of) => void kept.add(of.join(' ')),
  }
  const nothing = async () => undefined
  const registries = {
    verifies: async () => true,
    signatures: () => ({ manifest: nothing, blob: () => Promise.reject(Failure.missing('x')), file: nothing }),
  }
  const places = { home: join(dir, 'home'), etc: join(dir, 'etc'), signatures: join(dir, 'signatures') }
  const start = () => diffIdTrust({ policy: 'signed', trust: [] }, registries, store, places)
  return { dir, policy, start, forget: () => rm(join(dir, 'signatures'), { recursive: true }) }
}

test('the DiffIDs of an image that a key of the policy signed are believed; those of another are not, with the reason', async () => {
  const { start } = await machine()
  const trustsDiffIds = await start()
  expect(await trustsDiffIds(image)).toBe(true)
  const other = json({ schemaVersion: 2, layers: [], annotations: {} })
  const unsigned = await trustsDiffIds({ ...image, manifestBytes: other, digest: digestOf(other) })
  expect(unsigned).toMatch(/only claimed by the image.*it has no simple signature/)
  const layout = { transport: 'oci', dir: '/x' } as const
  expect(await trustsDiffIds({ ...image, reference: layout })).toMatch(/only images of registries/)
})

test('what was accepted stays so under the same policy, when nobody can be asked; not under another', async () => {
  const { start, policy, forget } = await machine()
  expect(await (await start())(image)).toBe(true)
  await forget()
  expect(await (await start())(image)).toBe(true)
  await policy('reject')
  expect(await (await start())(image)).toMatch(/the policy rejects this image/)
})

test('without a valid policy nothing is served', async () => {
  const { dir, start } = await machine()
  await writeFile(join(dir, 'etc/containers/policy.json'), '{"default": []}')
  await expect(start()).rejects.toMatchObject({ code: 'usage' })
  await rm(join(dir, 'etc/containers/policy.json'))
  await expect(start()).rejects.toMatchObject({ code: 'missing' })
})

const named = (text: string) => ({ ...image, reference: parseReference(text) })

test('--trust narrows what is believed to its repositories, and never to what may come from anybody', async () => {
  const answers = { verified: true as boolean | Failure }
  const registries = {
    signatures: () => Promise.reject(new Error('nobody asks for signatures')) as never,
    verifies: async () => {
      if (answers.verified instanceof Failure) throw answers.verified
      return answers.verified
    },
  }
  const none = { accepted: async () => false, keepAccepted: async () => {} }
  for (const policy of ['guarded', 'claimed'] as const) {
    answers.verified = true
    const belief = beliefOf(policy, ['registry.example.com/team/*', 'registry.example.com/other/app'])
    const trustsDiffIds = await diffIdTrust(belief, registries, none)
    expect(await trustsDiffIds(image)).toBe(true)
    expect(await trustsDiffIds(named('registry.example.com/other/app'))).toBe(true)
    expect(await trustsDiffIds(named('registry.example.com/other/app2'))).toMatch(/no --trust names its repository/)
    expect(await trustsDiffIds(named('oci:/registry.example.com/team/app'))).toMatch(/an image of a folder/)
    answers.verified = false
    expect(await trustsDiffIds(image)).toMatch(/without TLS that is verified/)
    answers.verified = Failure.usage('registries.conf is no TOML')
    expect(await trustsDiffIds(image)).toMatch(/is not believed: registries.conf is no TOML/)
    await expect(trustsDiffIds(image, 'throw')).rejects.toMatchObject({ code: 'usage' })
    // without a pattern every image is believed
    expect(await (await diffIdTrust(beliefOf(policy, []), registries, none))(named('oci:/a'))).toBe(true)
  }
})

test('--trust is refused where nothing is believed that it could narrow', () => {
  for (const policy of ['proven', 'signed'] as const) {
    expect(() => beliefOf(policy, ['registry.example.com/team/*'])).toThrow(`--diffid ${policy}`)
  }
  expect(() => beliefOf('guarded', ['registry.example.com'])).toThrow('names no repositories')
})
