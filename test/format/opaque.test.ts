import fc from 'fast-check'
import { expect, test } from 'vitest'
import { beginsEmpty, beginsTar, whyNotPart } from '../../src/format/opaque.ts'
import { digestOf } from '../../src/image/digest.ts'
import { GNU, header, USTAR, V7 } from './tar/tar-craft.ts'

const NOISE = Uint8Array.from({ length: 512 }, (_, i) => (i * 151 + 7) & 0xff)

/** A header with another checksum field. */
function withField(field: string | Uint8Array, block = header()): Uint8Array {
  const bytes = block.slice()
  bytes.fill(0, 148, 156)
  bytes.set(Buffer.from(field as string), 148)
  return bytes
}

const sum = (block: Uint8Array, signed = false) =>
  block.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 32 : signed && byte > 127 ? byte - 256 : byte), 0)

test('what begins as no tar does can be shown as nothing', () => {
  for (const head of [NOISE, Buffer.from('28b52ffd'.padEnd(1024, '7'), 'hex')]) {
    expect([beginsTar(head), beginsEmpty(head)]).toEqual([false, false])
  }
})

test('a blob that is shorter than a header, or begins with zeros, is an empty layer to engines', () => {
  const heads = [...[0, 1, 511].map((length) => NOISE.subarray(0, length)), new Uint8Array(512)]
  for (const head of heads) expect([beginsTar(head), beginsEmpty(head)]).toEqual([false, true])
})

test.each([
  ['ustar', header({ magic: USTAR })],
  ['GNU', header({ magic: GNU })],
  ['the seventh edition', header({ magic: V7 })],
  ['an unknown dialect', header({ magic: 'nonsense' })],
  ['a PAX header', header({ type: 'x' })],
  ['a size that is no number', header({ size: 'zzzzzzzzzzz' })],
])('a header of %s may begin a tar', (_, block) => {
  expect(beginsTar(block)).toBe(true)
})

test('so may one whose checksum only some readers take for the right one', () => {
  const plain = header()
  const octal = sum(plain).toString(8)
  const name = header({ name: new Uint8Array(50).fill(0xe4) })
  const binary = new Uint8Array(8)
  new DataView(binary.buffer).setUint32(4, sum(plain))
  binary[0] = 0x80
  for (const block of [
    withField(octal),
    withField(`  ${octal}`),
    withField(`\0${octal}`),
    withField(`${octal} x`),
    withField(`${octal}\0${'9'.repeat(2)}`.slice(0, 8)),
    withField(sum(name, true).toString(8), name),
    withField(binary),
  ]) {
    expect(beginsTar(block)).toBe(true)
  }
  expect(beginsTar(withField((sum(plain) + 1).toString(8)))).toBe(false)
})

test('a header of any fields may begin a tar, and no longer when a byte of it is another', () => {
  const text = fc.string({ maxLength: 8 })
  fc.assert(
    fc.property(text, text, fc.nat(511), fc.integer({ min: 1, max: 255 }), (name, linkName, at, by) => {
      const block = header({ name, linkName })
      expect(beginsTar(block)).toBe(true)
      if (at >= 148 && at < 156) return
      const other = block.slice()
      other[at] = ((other[at] ?? 0) + by) & 0xff
      expect(beginsTar(other)).toBe(false)
    }),
    { numRuns: 300 },
  )
})

test('a blob that must end in a header of some name does, or is not what its image says', () => {
  const part = { digest: digestOf(NOISE), ends: 'toc' }
  expect(whyNotPart(header({ name: 'toc' }), part)).toBeUndefined()
  for (const end of [header({ name: 'toc2' }), withField('0', header({ name: 'toc' })), NOISE, NOISE.subarray(1)]) {
    expect(whyNotPart(end, part)).toMatch(/does not end in toc/)
  }
  expect(whyNotPart(NOISE, { digest: part.digest })).toBeUndefined()
})
