import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { expect, test } from 'vitest'
import { isSignedBy, readPublicKey } from '../../src/policy/sigstore-keys.ts'

const PAYLOAD = Buffer.from('what is signed')
const pem = (key: KeyObject, type: 'spki' | 'pkcs1' = 'spki') => Buffer.from(key.export({ type, format: 'pem' }))

interface Pair {
  privateKey: KeyObject
  publicKey: KeyObject
}

function check({ privateKey, publicKey }: Pair, hash: string | null): void {
  const key = readPublicKey(pem(publicKey))
  const signature = sign(hash, PAYLOAD, privateKey)
  expect(isSignedBy(key, PAYLOAD, signature)).toBe(true)
  expect(isSignedBy(key, Buffer.from('what is Signed'), signature)).toBe(false)
  for (const spoilt of [
    new Uint8Array(0),
    signature.subarray(1),
    Buffer.from('signature'),
    Buffer.alloc(signature.length),
  ])
    expect(isSignedBy(key, PAYLOAD, spoilt)).toBe(false)
}

test('ECDSA, RSA and Ed25519 keys verify what their other halves signed', () => {
  for (const namedCurve of ['P-256', 'P-384', 'P-521']) check(generateKeyPairSync('ec', { namedCurve }), 'sha256')
  check(generateKeyPairSync('rsa', { modulusLength: 2048 }), 'sha256')
  check(generateKeyPairSync('ed25519'), null)
})

test('a signature over another hash is none', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  expect(isSignedBy(readPublicKey(pem(publicKey)), PAYLOAD, sign('sha384', PAYLOAD, privateKey))).toBe(false)
})

test('a signature in another encoding is none', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const signature = sign('sha256', PAYLOAD, { key: privateKey, dsaEncoding: 'ieee-p1363' })
  expect(isSignedBy(readPublicKey(pem(publicKey)), PAYLOAD, signature)).toBe(false)
})

test('an RSA key may be written in PKCS #1', () => {
  const { publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  expect(readPublicKey(pem(publicKey, 'pkcs1')).equals(publicKey)).toBe(true)
})

test('weak and unknown keys are refused', () => {
  const refuse = ({ publicKey }: { publicKey: KeyObject }) =>
    expect(() => readPublicKey(pem(publicKey))).toThrow(expect.objectContaining({ code: 'unsupported' }))
  refuse(generateKeyPairSync('rsa', { modulusLength: 1024 }))
  refuse(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }))
  refuse(generateKeyPairSync('rsa-pss', { modulusLength: 2048 }))
  refuse(generateKeyPairSync('x25519'))
})

test('only one public key is a public key', () => {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const secret = Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const one = pem(publicKey)
  const certificate = Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
  const damaged = Buffer.from('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n')
  for (const file of [
    secret,
    Buffer.concat([one, one]),
    Buffer.concat([one, secret]),
    certificate,
    damaged,
    Buffer.alloc(0),
  ])
    expect(() => readPublicKey(file)).toThrow(expect.objectContaining({ code: 'corrupt' }))
})
