import { expect, test } from 'vitest'
import { type PayloadType, parsePayload } from '../../src/policy/payload.ts'

const MANIFEST = `sha256:${'0123456789abcdef'.repeat(4)}`
const SIMPLE = 'atomic container signature'
const COSIGN = 'cosign container image signature'
const image = { 'docker-manifest-digest': MANIFEST }
const identity = { 'docker-reference': 'registry.example.com/a:1' }
const critical = { type: SIMPLE, image, identity }

const parse = (value: unknown, type: PayloadType = SIMPLE) => parsePayload(Buffer.from(JSON.stringify(value)), type)

function refuse(value: unknown, why: RegExp, type: PayloadType = SIMPLE): void {
  expect(() => parse(value, type)).toThrow(
    expect.objectContaining({ code: 'corrupt', message: expect.stringMatching(why) }),
  )
}

test('a signed text names a manifest and a reference', () => {
  const want = { manifest: MANIFEST, reference: 'registry.example.com/a:1' }
  expect(parse({ critical, optional: {} })).toEqual(want)
  expect(parse({ critical, optional: { creator: 'skopeo', timestamp: 1_700_000_000, more: [1] } })).toEqual(want)
  expect(parse({ critical: { ...critical, type: COSIGN }, optional: null }, COSIGN)).toEqual(want)
})

test('a text of one kind is none of the other', () => {
  refuse({ critical, optional: {} }, /is of the type "atomic/, COSIGN)
  refuse({ critical: { ...critical, type: COSIGN }, optional: {} }, /is of the type "cosign/)
  refuse({ critical, optional: null }, /its optional part is no JSON object/)
})

test('every part has its very keys', () => {
  refuse({ critical }, /lacks "optional"/)
  refuse({ critical, optional: {}, more: 1 }, /unknown key "more"/)
  refuse({ critical: { ...critical, more: 1 }, optional: {} }, /its critical part has the unknown key/)
  refuse({ critical: { ...critical, image: { ...image, more: 1 } }, optional: {} }, /its image has the unknown key/)
  refuse({ critical: { ...critical, identity: {} }, optional: {} }, /its identity lacks/)
  refuse({ critical: { type: SIMPLE, image }, optional: {} }, /lacks "identity"/)
  refuse([], /no JSON object/)
})

test('every part has its type', () => {
  const of = (digest: unknown) => ({
    critical: { ...critical, image: { 'docker-manifest-digest': digest } },
    optional: {},
  })
  for (const digest of [1, '', MANIFEST.toUpperCase(), MANIFEST.slice(1), `${MANIFEST}0`])
    refuse(of(digest), /no sha256 digest/)
  refuse({ critical: { ...critical, identity: { 'docker-reference': 1 } }, optional: {} }, /is no text/)
  refuse({ critical, optional: { creator: 1 } }, /creator/)
  refuse({ critical, optional: { timestamp: 1.5 } }, /timestamp/)
  refuse({ critical, optional: { timestamp: '1' } }, /timestamp/)
})
