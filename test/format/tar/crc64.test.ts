import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Crc64 } from '../../../src/format/tar/crc64.ts'

const hexOf = (...pieces: Uint8Array[]) => {
  const crc = new Crc64()
  for (const piece of pieces) crc.update(piece)
  return Buffer.from(crc.digest()).toString('hex')
}

/** By the book: a bit at a time. */
function slowly(bytes: Uint8Array): string {
  const all = 0xffff_ffff_ffff_ffffn
  let crc = all
  for (const byte of bytes) {
    crc ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800_0000_0000_0000n : crc >> 1n
  }
  return (crc ^ all).toString(16).padStart(16, '0')
}

test('the check value of the catalogue of CRCs', () => {
  expect(hexOf(Buffer.from('123456789'))).toBe('b90956c775a41001')
  expect(hexOf()).toBe('0000000000000000')
})

test('whatever the bytes, and however they come', () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 6 })
  fc.assert(fc.property(pieces, (each) => hexOf(...each) === slowly(Buffer.concat(each))))
})
