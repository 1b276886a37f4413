import fc from 'fast-check'
import {
  createMessage,
  enums,
  generateKey,
  type PartialConfig,
  type PrivateKey,
  type PublicKey,
  readKey,
  revokeKey,
  sign,
} from 'openpgp'
import { beforeAll, expect, test } from 'vitest'
import { readGpgKeys } from '../../src/policy/gpg-keys.ts'
import { runs } from '../fixtures/runs.ts'

const TEXT = 'what is signed'
/** Any time before now, when keys of these tests are made. */
const THEN = new Date('2020-01-01T00:00:00Z')

interface Pair {
  privateKey: PrivateKey
  publicKey: PublicKey
}

let good: Pair
let other: Pair

beforeAll(async () => {
  good = await pair('good')
  other = await pair('other')
})

async function pair(name: string, more: { keyExpirationTime?: number } = {}): Promise<Pair> {
  return await generateKey({ userIDs: [{ name }], type: 'ecc', date: THEN, format: 'object', ...more })
}

async function signed(
  by: PrivateKey | PrivateKey[],
  options: { date?: Date; config?: PartialConfig } = {},
): Promise<Uint8Array> {
  const message = await createMessage({ binary: Buffer.from(TEXT) })
  const made = await sign({ message, signingKeys: by, format: 'binary', ...options })
  return new Uint8Array(made)
}

const verify = async (keys: PublicKey[], signature: Uint8Array) =>
  (await readGpgKeys(keys.map((key) => key.write()))).verify(signature)

test('a signature by a key names the key and gives the text', async () => {
  const { signed: text, fingerprint } = await verify([other.publicKey, good.publicKey], await signed(good.privateKey))
  expect(Buffer.from(text).toString()).toBe(TEXT)
  expect(fingerprint).toBe(good.publicKey.getFingerprint().toUpperCase())
})

test('keys may be armored, several to a file', async () => {
  const file = Buffer.from(`# ours\n${other.publicKey.armor()}\n${good.publicKey.armor()}`)
  const keys = await readGpgKeys([file])
  await expect(keys.verify(await signed(good.privateKey))).resolves.toBeDefined()
  await expect(keys.verify(await signed(other.privateKey))).resolves.toBeDefined()
})

test('the key of somebody else is refused by its name', async () => {
  await expect(verify([other.publicKey], await signed(good.privateKey))).rejects.toMatchObject({
    code: 'denied',
    message: expect.stringMatching(/by key [0-9A-F]{16}, which is none of the policy's/),
    fix: expect.stringContaining('add this one to the policy'),
  })
})

test('a key that has expired since is refused, though it was valid when it signed', async () => {
  const short = await pair('short', { keyExpirationTime: 3600 })
  const signature = await signed(short.privateKey, { date: new Date(THEN.getTime() + 60_000) })
  await expect(verify([short.publicKey], signature)).rejects.toMatchObject({
    code: 'denied',
    why: expect.stringMatching(/expired/),
  })
})

test('a key that was revoked is refused, whatever it signed before', async () => {
  const signature = await signed(good.privateKey)
  for (const flag of [enums.reasonForRevocation.keyRetired, enums.reasonForRevocation.keyCompromised]) {
    const { publicKey } = await revokeKey({ key: good.privateKey, reasonForRevocation: { flag }, format: 'object' })
    await expect(verify([publicKey], signature)).rejects.toMatchObject({
      code: 'denied',
      why: expect.stringMatching(/revoked/),
    })
    // an older copy of the key beside it does not know that
    await expect(verify([good.publicKey, publicKey], signature)).rejects.toMatchObject({
      why: expect.stringMatching(/revoked/),
    })
    await expect(verify([publicKey, good.publicKey], signature)).rejects.toMatchObject({
      why: expect.stringMatching(/revoked/),
    })
  }
})

test('a signature from the future is refused', async () => {
  const signature = await signed(good.privateKey, { date: new Date(Date.now() + 366 * 86_400_000) })
  await expect(verify([good.publicKey], signature)).rejects.toMatchObject({
    why: expect.stringMatching(/in the future/),
  })
})

test('two signatures over one text are refused', async () => {
  const signature = await signed([good.privateKey, other.privateKey])
  await expect(verify([good.publicKey, other.publicKey], signature)).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringContaining('one signed text and one signature'),
  })
})

test('a text signed as text is refused: its line ends are not signed', async () => {
  const message = await createMessage({ text: TEXT })
  const signature = new Uint8Array(await sign({ message, signingKeys: good.privateKey, format: 'binary' }))
  await expect(verify([good.publicKey], signature)).rejects.toMatchObject({ code: 'denied' })
})

test('whatever byte is changed, no other text comes out', async () => {
  const signature = await signed(good.privateKey)
  const keys = await readGpgKeys([good.publicKey.write()])
  await fc.assert(
    fc.asyncProperty(fc.nat(signature.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const changed = signature.slice()
      changed[at] = (changed[at] ?? 0) ^ change
      const outcome = await keys.verify(changed).catch((error: unknown) => error)
      if (outcome instanceof Error) expect(outcome).toMatchObject({ name: 'Failure' })
      else expect(outcome).toMatchObject({ signed: new Uint8Array(Buffer.from(TEXT)) })
    }),
    { numRuns: runs(60) },
  )
})

test('a file without public keys is refused', async () => {
  for (const file of ['', 'no key', '-----BEGIN PGP PRIVATE KEY BLOCK-----', '-----BEGIN PGP PUBLIC KEY BLOCK-----']) {
    await expect(readGpgKeys([Buffer.from(file)]), file).rejects.toMatchObject({ code: 'corrupt' })
  }
  await expect(readGpgKeys([])).rejects.toMatchObject({ code: 'corrupt' })
})

test('of a private key, the public half is used', async () => {
  const key = await readKey({ binaryKey: good.privateKey.write() })
  await expect(verify([key], await signed(good.privateKey))).resolves.toBeDefined()
})
