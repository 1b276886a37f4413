import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { digestOf, finish, hex, isDigest, parseDigest } from '../../src/image/digest.ts'

// FIPS 180-2, B.1
const ABC = 'sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'

test('a digest is the SHA-256 of the bytes', () => {
  const bytes = new TextEncoder().encode('abc')
  expect(digestOf(bytes)).toBe(ABC)
  expect(finish(createHash('sha256').update(bytes))).toBe(ABC)
  expect(hex(digestOf(bytes))).toBe(ABC.slice(7))
})

test('only sha256 and 64 lower-case hex digits are a digest', () => {
  expect(isDigest(ABC)).toBe(true)
  for (const text of [
    ABC.toUpperCase(),
    ABC.slice(0, -1),
    `${ABC}0`,
    `${ABC}\n`,
    `\n${ABC}`,
    `sha256:${'../'.repeat(21)}a`,
    `sha512:${'0'.repeat(128)}`,
    ABC.slice(7),
    '',
    7,
    null,
    undefined,
    [ABC],
  ]) {
    expect(isDigest(text), String(text)).toBe(false)
    expect(() => parseDigest(text, 'layer')).toThrow(expect.objectContaining({ code: 'corrupt' }))
  }
})
