// Sigstore signatures by keys: whether one of a policy's public keys signed a payload.
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import { Failure } from '../errors.ts'

/** P-256, P-384 and P-521, by OpenSSL's names. */
const CURVES = ['prime256v1', 'secp384r1', 'secp521r1']
const RSA_MIN_BITS = 2048

/** A PEM file with one public key: ECDSA, RSA or Ed25519. @throws Failure corrupt, unsupported */
export function readPublicKey(pem: Uint8Array): KeyObject {
  const text = Buffer.from(pem).toString('latin1')
  // Node would take the public half of a private key, or a certificate whose owner and time nobody checks
  const labels = [...text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----/g)].map(([, label]) => label)
  if (labels.length !== 1 || (labels[0] !== 'PUBLIC KEY' && labels[0] !== 'RSA PUBLIC KEY')) {
    throw Failure.corrupt('it holds not just one PUBLIC KEY in PEM')
  }
  let key: KeyObject
  try {
    key = createPublicKey({ key: text, format: 'pem' })
  } catch (cause) {
    throw Failure.corrupt('its public key cannot be read', { cause })
  }
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'ed25519') return key
  if (type === 'ec' && CURVES.includes(details?.namedCurve ?? '')) return key
  if (type === 'rsa' && (details?.modulusLength ?? 0) >= RSA_MIN_BITS) return key
  throw Failure.unsupported(
    `its key (${type} ${details?.namedCurve ?? details?.modulusLength ?? ''}) is too weak or unknown`,
    {
      fix: 'Use ECDSA with P-256, P-384 or P-521, RSA with 2048 bits or more, or Ed25519.',
    },
  )
}

/** Whether `signature` (ASN.1 for ECDSA, PKCS #1 v1.5 for RSA, both over SHA-256) over `payload` is by `key`. */
export function isSignedBy(key: KeyObject, payload: Uint8Array, signature: Uint8Array): boolean {
  const hash = key.asymmetricKeyType === 'ed25519' ? null : 'sha256'
  try {
    return verify(hash, payload, { key, dsaEncoding: 'der' }, signature)
  } catch {
    return false // a signature that cannot even be read
  }
}
