import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { expect, test } from 'vitest'
import { checkReceipt } from '../../src/policy/rekor.ts'

const ec = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const log = ec()
const signer = ec()
const payload = Buffer.from('what is signed')
const signature = sign('sha256', payload, signer.privateKey)
const logged = { payload, signature, key: signer.publicKey }
const pem = (key: KeyObject) => Buffer.from(key.export({ type: 'spki', format: 'pem' })).toString('base64')
const spec = {
  data: { hash: { algorithm: 'sha256', value: createHash('sha256').update(payload).digest('hex') } },
  signature: { content: signature.toString('base64'), publicKey: { content: pem(signer.publicKey) } },
}
const entry = { apiVersion: '0.0.1', kind: 'hashedrekord', spec }
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64')
const promise = { body: encoded(entry), integratedTime: 1_700_000_000, logID: 'ab'.repeat(32), logIndex: 7 }

function bundle(
  of: object = promise,
  by: KeyObject = log.privateKey,
): { SignedEntryTimestamp: string; Payload: object } {
  return { SignedEntryTimestamp: sign('sha256', Buffer.from(JSON.stringify(of)), by).toString('base64'), Payload: of }
}

const check = (value: unknown, about = logged) =>
  checkReceipt(typeof value === 'string' ? value : JSON.stringify(value), [ec().publicKey, log.publicKey], about)

function refuse(value: unknown, why: RegExp, about = logged): void {
  expect(() => check(value, about)).toThrow(
    expect.objectContaining({ name: 'Failure', message: expect.stringMatching(why) }),
  )
}

test('what a log promised to have taken in counts', () => {
  check(bundle())
})

test('the order of its keys does not matter: the log signs them in order', () => {
  const { SignedEntryTimestamp } = bundle()
  const { body, integratedTime, logID, logIndex } = promise
  check({ Payload: { logIndex, logID, integratedTime, body }, SignedEntryTimestamp })
})

test('a promise of nobody, or one that was changed, does not', () => {
  refuse(bundle(promise, ec().privateKey), /signed by no log/)
  refuse({ ...bundle(), Payload: { ...promise, logIndex: 8 } }, /signed by no log/)
  refuse({ ...bundle(), SignedEntryTimestamp: '' }, /signed by no log/)
  refuse({ ...bundle(), SignedEntryTimestamp: 'AAAA' }, /signed by no log/)
})

test('one about something else does not', () => {
  refuse(bundle(), /another payload/, { ...logged, payload: Buffer.from('else') })
  refuse(bundle(), /another signature/, { ...logged, signature: Buffer.from('else') })
  refuse(bundle(), /another key/, { ...logged, key: ec().publicKey })
})

test('an entry of another kind does not', () => {
  const of = (value: unknown) => bundle({ ...promise, body: encoded(value) })
  refuse(of({ ...entry, kind: 'intoto' }), /no hashedrekord 0.0.1/)
  refuse(of({ ...entry, apiVersion: '0.0.2' }), /no hashedrekord 0.0.1/)
  const hash = { ...spec.data.hash, algorithm: 'sha1' }
  refuse(of({ ...entry, spec: { ...spec, data: { hash } } }), /another algorithm/)
  refuse(of({ ...entry, spec: { ...spec, more: 1 } }), /unknown key "more"/)
  const publicKey = { content: encoded('no PEM') }
  refuse(of({ ...entry, spec: { ...spec, signature: { ...spec.signature, publicKey } } }), /no public key in PEM/)
})

test('what is no bundle is refused', () => {
  refuse('', /no JSON/)
  refuse({}, /lacks "SignedEntryTimestamp"/)
  refuse({ ...bundle(), more: 1 }, /unknown key "more"/)
  refuse({ ...bundle(), Payload: { ...promise, more: 1 } }, /unknown key "more"/)
  for (const logIndex of [-1, 1.5, '7', 2 ** 60])
    refuse(bundle({ ...promise, logIndex }), /logIndex is no whole number/)
  refuse(bundle({ ...promise, body: '*' }), /no base64/)
  refuse(' '.repeat((64 << 10) + 1), /more than 65536 bytes/)
})
