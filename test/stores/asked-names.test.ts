import fc from 'fast-check'
import { expect, test } from 'vitest'
import { referenceText } from '../../src/image/reference.ts'
import { decodeDigest, decodeReference } from '../../src/stores/asked-names.ts'
import { character } from '../fixtures/characters.ts'

const encode = (text: string) => Buffer.from(text).toString('base64')
const DIGEST = `sha256:${'a1'.repeat(32)}`

test.each([
  'example.com/app:1',
  'localhost:5000/a/b/c:latest',
  'docker.io/library/alpine:3.20',
  `example.com/app@${DIGEST}`,
  `example.com/app:1@${DIGEST}`,
])('%s is found by its base64', (text) => {
  const found = decodeReference(encode(text))
  expect(found && referenceText(found)).toBe(text)
})

// "example.com/app:1" ends in a letter that has bits to spare
test.each([
  ['without padding', encode('example.com/app:1').replaceAll('=', '')],
  ['with too much padding', `${encode('example.com/app:12')}=`],
  [
    'with stray bits behind the last byte',
    encode('example.com/app:1').replace(/.=$/, (end) => `${next(end[0] as string)}=`),
  ],
  ['with a line break', `${encode('example.com/app:1').slice(0, 8)}\n${encode('example.com/app:1').slice(8)}`],
  ['with junk in between', `${encode('example.com/app:1').slice(0, 8)}!${encode('example.com/app:1').slice(8)}`],
  ['in the alphabet for URLs', encode('example.com/~~~>>>').replaceAll('+', '-')],
  ['of nothing', ''],
  ['of what is no reference', encode('no reference!')],
  ['of a path', encode('../../etc')],
  ['of bytes that are no UTF-8', Buffer.from([0x61, 0xff, 0xfe]).toString('base64')],
  ['of a NUL', encode('example.com/app\0:1')],
])('a spelling %s is no name of the store', (_, name) => {
  expect(decodeReference(name)).toBeUndefined()
})

/** The next letter of the alphabet: differs in the lowest bits. */
function next(letter: string): string {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
  return alphabet[alphabet.indexOf(letter) + 1] as string
}

test('whatever is looked up, there is one name for it, or none', () => {
  fc.assert(
    fc.property(fc.string({ unit: character, maxLength: 60 }), (name) => {
      if (decodeReference(name) !== undefined) {
        expect(Buffer.from(name, 'base64').toString('base64')).toBe(name)
      }
    }),
  )
})

test('a digest is sha256 and 64 lower hexadecimal digits', () => {
  expect(decodeDigest(DIGEST)).toBe(DIGEST)
  for (const name of [
    'use',
    'diff',
    DIGEST.toUpperCase(),
    DIGEST.slice(0, -1),
    `${DIGEST}0`,
    DIGEST.replace('256', '512'),
  ]) {
    expect(decodeDigest(name)).toBeUndefined()
  }
})
