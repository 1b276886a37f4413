// The receipt of a Rekor log in a sigstore signature (its "bundle"): the log promised, with its key, to have taken in this very
// signature, payload and public key. The log is not asked; that it keeps its promises is up to those who watch it.
import { createHash, type KeyObject, verify } from 'node:crypto'
import { Failure } from '../errors.ts'
import { asRecord, asText, fromBase64, parseStrictJson, type StrictJson, type StrictObject } from './strict-json.ts'

/** A public key in an entry has some hundred bytes, a certificate some thousand. */
export const BUNDLE_MAX_BYTES = 64 << 10

/** What the entry must be about. */
export interface Logged {
  payload: Uint8Array
  signature: Uint8Array
  key: KeyObject
}

/** @throws Failure corrupt, limit, denied: why `bundle` is no receipt of one of the logs for `logged` */
export function checkReceipt(bundle: string, logs: readonly KeyObject[], logged: Logged): void {
  if (bundle.length > BUNDLE_MAX_BYTES) throw Failure.limit(`its Rekor bundle has more than ${BUNDLE_MAX_BYTES} bytes`)
  const what = 'its Rekor bundle'
  const root = asRecord(parseStrictJson(Buffer.from(bundle), what), what, ['SignedEntryTimestamp', 'Payload'])
  const promise = asRecord(root.get('Payload'), what, ['body', 'integratedTime', 'logIndex', 'logID'])
  const body = asText(promise.get('body'), `${what}: body`)
  const stamp = fromBase64(asText(root.get('SignedEntryTimestamp'), `${what}: SignedEntryTimestamp`), what)
  const signed = Buffer.from(canonical(promise, body))
  if (!logs.some((log) => verifies(log, signed, stamp))) {
    throw Failure.denied('its Rekor bundle is signed by no log of the policy')
  }
  checkEntry(fromBase64(body, `${what}: body`), logged)
}

/** RFC 8785: keys in order, no white space; whole numbers and texts as JSON.stringify writes them. */
function canonical(promise: StrictObject, body: string): string {
  const whole = (key: string): number => {
    const value = promise.get(key)
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
    throw Failure.corrupt(`its Rekor bundle: ${key} is no whole number`)
  }
  const logID = asText(promise.get('logID'), 'its Rekor bundle: logID')
  return JSON.stringify({ body, integratedTime: whole('integratedTime'), logID, logIndex: whole('logIndex') })
}

function verifies(log: KeyObject, signed: Uint8Array, stamp: Uint8Array): boolean {
  try {
    return verify('sha256', signed, { key: log, dsaEncoding: 'der' }, stamp)
  } catch {
    return false // a stamp that cannot even be read
  }
}

/** An entry of the kind hashedrekord 0.0.1, which is what cosign writes for images. */
function checkEntry(body: Uint8Array, { payload, signature, key }: Logged): void {
  const what = 'its Rekor entry'
  const entry = asRecord(parseStrictJson(body, what), what, ['apiVersion', 'kind', 'spec'])
  if (entry.get('kind') !== 'hashedrekord' || entry.get('apiVersion') !== '0.0.1') {
    throw Failure.unsupported('its Rekor entry is no hashedrekord 0.0.1')
  }
  const spec = asRecord(entry.get('spec'), what, ['data', 'signature'])
  const { hash } = Object.fromEntries(asRecord(spec.get('data'), what, ['hash']))
  const { algorithm, value } = Object.fromEntries(asRecord(hash, what, ['algorithm', 'value']))
  if (algorithm !== 'sha256') throw Failure.unsupported('its Rekor entry hashes by another algorithm than sha256')
  if (value !== createHash('sha256').update(payload).digest('hex')) throw other('payload')
  const of = asRecord(spec.get('signature'), what, ['content', 'publicKey'])
  if (!same(base64(of.get('content')), signature)) throw other('signature')
  const publicKey = asRecord(of.get('publicKey'), what, ['content'])
  if (!same(derOf(base64(publicKey.get('content'))), key.export({ type: 'spki', format: 'der' }))) throw other('key')
}

function base64(value: StrictJson | undefined): Uint8Array {
  return fromBase64(asText(value, 'its Rekor entry'), 'its Rekor entry')
}

function derOf(pem: Uint8Array): Uint8Array {
  const match = /^\s*-----BEGIN PUBLIC KEY-----([A-Za-z0-9+/=\s]*)-----END PUBLIC KEY-----\s*$/.exec(
    Buffer.from(pem).toString('latin1'),
  )
  if (match === null) throw Failure.corrupt('its Rekor entry holds no public key in PEM')
  return fromBase64((match[1] ?? '').replace(/\s/g, ''), 'its Rekor entry')
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0
}

function other(part: string): Failure {
  return Failure.denied(`its Rekor entry is about another ${part}`)
}
