import { deflateRawSync, deflateSync } from 'node:zlib'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { signedMessage } from '../../src/policy/openpgp-packets.ts'
import { runs } from '../fixtures/runs.ts'

const SIGNATURE = 2
const ONE_PASS = 4
const COMPRESSED = 8
const LITERAL = 11

/** A packet in the current format with a length of five bytes. */
function packet(tag: number, body: Uint8Array): Uint8Array {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length)
  return Buffer.concat([Buffer.from([0xc0 | tag, 255]), length, body])
}

const body = (text: string) => Buffer.from(text)
const message = Buffer.concat([
  packet(ONE_PASS, body('once')),
  packet(LITERAL, body('the text')),
  packet(SIGNATURE, body('signed')),
])
const compressed = (algorithm: number, bytes: Uint8Array) =>
  packet(COMPRESSED, Buffer.concat([Buffer.from([algorithm]), bytes]))

function refuse(bytes: Uint8Array, code: string, why: RegExp): void {
  expect(() => signedMessage(bytes)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(why) }))
}

test('a one-pass signature, a text and a signature are a message', () => {
  expect(Buffer.from(signedMessage(message))).toEqual(message)
})

test('it may be compressed as a whole, once', () => {
  const zip = compressed(1, deflateRawSync(message))
  expect(Buffer.from(signedMessage(zip))).toEqual(message)
  expect(Buffer.from(signedMessage(compressed(2, deflateSync(message))))).toEqual(message)
  // as gpg writes it: the legacy format, without a length
  expect(Buffer.from(signedMessage(Buffer.concat([Buffer.from([0xa3, 1]), deflateRawSync(message)])))).toEqual(message)
  refuse(compressed(1, deflateRawSync(zip)), 'corrupt', /one signed text and one signature/)
  refuse(Buffer.concat([zip, message]), 'corrupt', /one signed text and one signature/)
  refuse(compressed(3, message), 'unsupported', /algorithm 3/)
  refuse(compressed(1, message), 'corrupt', /compressed part is damaged/)
  refuse(packet(COMPRESSED, Buffer.alloc(0)), 'unsupported', /algorithm undefined/)
})

test('lengths may be written in every way', () => {
  const long = Buffer.alloc(700, 0x20)
  const two = Buffer.concat([Buffer.from([0xc0 | LITERAL, 192 + ((700 - 192) >> 8), (700 - 192) & 255]), long])
  const parts = Buffer.concat([
    Buffer.from([0xc0 | LITERAL, 224 + 9]),
    long.subarray(0, 512),
    Buffer.from([188]),
    long.subarray(512),
  ])
  const legacy = Buffer.concat([Buffer.from([0x80 | (LITERAL << 2) | 1, 700 >> 8, 700 & 255]), long])
  for (const literal of [two, parts, legacy]) {
    const whole = Buffer.concat([packet(ONE_PASS, body('1')), literal, packet(SIGNATURE, body('2'))])
    expect(Buffer.from(signedMessage(whole))).toEqual(whole)
  }
})

test('more, fewer or other packets are no message', () => {
  const once = packet(ONE_PASS, body('1'))
  const literal = packet(LITERAL, body('text'))
  const signature = packet(SIGNATURE, body('2'))
  const marker = packet(10, body('PGP'))
  for (const packets of [
    [literal],
    [literal, literal],
    [once, literal],
    [signature, literal],
    [once, once, literal, signature, signature],
    [once, literal, signature, literal],
    [once, literal, signature, signature],
    [marker, once, literal, signature],
    [once, compressed(1, deflateRawSync(literal)), signature],
    [packet(18, body('encrypted'))],
  ]) {
    refuse(Buffer.concat(packets), 'corrupt', /one signed text and one signature/)
  }
  refuse(new Uint8Array(0), 'corrupt', /ends in the middle/)
  refuse(body('-----BEGIN PGP MESSAGE-----'), 'corrupt', /ASCII-armored/)
  refuse(body('{}'), 'corrupt', /does not begin as/)
})

test('a message that ends early is none, wherever it ends', () => {
  for (let length = 0; length < message.length; length++) {
    expect(() => signedMessage(message.subarray(0, length)), `${length}`).toThrow(Failure)
  }
})

test('a packet cannot claim more than there is', () => {
  refuse(Buffer.from([0xc4, 255, 255, 255, 255, 255]), 'corrupt', /ends in the middle/)
  refuse(Buffer.from([0xc4, 254]), 'corrupt', /ends in the middle/)
  refuse(Buffer.from([0x92, 0xff, 0xff, 0xff, 0xff]), 'corrupt', /ends in the middle/)
})

test('a bomb is not unpacked', () => {
  const bomb = compressed(1, deflateRawSync(Buffer.alloc(32 << 20)))
  expect(bomb.length).toBeLessThan(64 << 10)
  refuse(bomb, 'limit', /more than 65536 bytes/)
  refuse(Buffer.alloc((64 << 10) + 1, 0xc4), 'limit', /at most 65536/)
})

test('any bytes are a message or a Failure', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), fc.boolean(), (bytes, wrapped) => {
      try {
        signedMessage(wrapped ? compressed(1, deflateRawSync(bytes)) : bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
      }
    }),
    { numRuns: runs(600) },
  )
})
