import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { expect, test } from 'vitest'
import { diffIdTrust } from '../../src/agent/diff-id-trust.ts'
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
