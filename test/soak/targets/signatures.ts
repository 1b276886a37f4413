// What stands in signatures, as they are stored beside images.
import { strict as assert } from 'node:assert'
import { signedMessage } from '../../../src/policy/openpgp-packets.ts'
import { parsePayload } from '../../../src/policy/payload.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'
import { utf8 } from './text.ts'

const TYPE = 'atomic container signature'
const payload: Target = {
  name: 'payload',
  seeds: [
    utf8(
      JSON.stringify({
        critical: {
          type: TYPE,
          image: { 'docker-manifest-digest': `sha256:${'ab'.repeat(32)}` },
          identity: { 'docker-reference': 'registry.example.com/app:1' },
        },
        optional: { creator: 'writer 1.0', timestamp: 1_700_000_000 },
      }),
    ),
  ],
  run: (bytes) => attempt(() => parsePayload(bytes, TYPE)),
}

/** A packet with a length of one byte (RFC 9580 4.2.1). */
const packet = (tag: number, ...body: number[]) => [0xc0 | tag, body.length, ...body]
const literal = [0x62, 0, 0, 0, 0, 0, ...utf8('text')]

const message: Target = {
  name: 'openpgp-message',
  seeds: [
    Uint8Array.from([
      ...packet(4, ...Array(13).fill(3)),
      ...packet(11, ...literal),
      ...packet(2, ...Array(40).fill(4)),
    ]),
  ],
  run: (bytes) => attempt(() => assert(signedMessage(bytes).length > 0)),
}

export const signatures: readonly Target[] = [payload, message]
