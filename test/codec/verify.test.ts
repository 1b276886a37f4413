import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { blake3 } from '../../src/codec/blake3.ts'
import { digestsOf, type Piece } from '../../src/codec/digests.ts'
import { verify } from '../../src/codec/verify.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import { type Check, type Chunk, NONE } from '../../src/tree/chunk.ts'
import { chunkOf, store, text } from './fixture.ts'

const bytes = text(10_000)
const gzip = store('gzip', bytes)

const decodedCheck = (start: number, end: number): Check => ({
  of: 'decoded',
  range: { start, end },
  digest: digestOf(bytes.subarray(start, end)),
})
const storedCheck = (of: Uint8Array, start: number, end: number): Check => ({
  of: 'stored',
  range: { start, end },
  digest: digestOf(of.subarray(start, end)),
})
const digests = (pieces: readonly Piece[]) =>
  digestsOf(pieces, { sha256: (all) => all.map((each) => digestOf(each)), blake3 })
const place = (from: number, length: number, at = 0) => ({ from, length, at })

function check(changes: Partial<Chunk>, want: RegExp | 'passes', stored: Uint8Array | 'gone' = gzip) {
  const chunk = chunkOf('gzip', bytes, stored === 'gone' ? gzip : stored, changes)
  if (want === 'passes') expect(verify(chunk, bytes, stored, digests)).toBe(bytes)
  else expect(() => verify(chunk, bytes, stored, digests)).toThrow(want)
}

describe('every byte of every place is covered by a check that passed', () => {
  test('one check over all, or several that meet', () => {
    check({}, 'passes')
    check({ checks: [decodedCheck(5000, 10_000), decodedCheck(0, 5000)] }, 'passes')
    check({ checks: [decodedCheck(0, 6000), decodedCheck(4000, 10_000)] }, 'passes')
  })

  test('a gap, a missing beginning or a missing end is refused', () => {
    check({ checks: [decodedCheck(0, 4999), decodedCheck(5000, 10_000)] }, /no check covers bytes 0-10000/)
    check({ checks: [decodedCheck(1, 10_000)] }, /no check covers/)
    check({ checks: [decodedCheck(0, 9999)] }, /no check covers/)
    check({ checks: [decodedCheck(0, 0)] }, /no check covers/)
    check({ checks: [] }, /nothing to check it with/)
  })

  test('bytes that no place uses need no check', () => {
    const checks = [decodedCheck(100, 200), decodedCheck(9000, 9001)]
    check({ checks, places: [place(100, 100), place(150, 50), place(9000, 1)] }, 'passes')
    check({ checks, places: [place(100, 100), place(8999, 2)] }, /no check covers bytes 8999-9001/)
  })

  test('checks of all stored bytes cover all decoded bytes, of a part none', () => {
    check({ checks: [storedCheck(gzip, 0, gzip.length)] }, 'passes')
    check({ checks: [storedCheck(gzip, 0, 100), storedCheck(gzip, 100, gzip.length)] }, 'passes')
    check({ checks: [storedCheck(gzip, 0, gzip.length - 1)] }, /no check covers/)
    check({ checks: [storedCheck(gzip, 1, gzip.length)] }, /no check covers/)
  })

  test('with codec none a check of stored bytes covers the same decoded bytes', () => {
    const checks = [storedCheck(bytes, 0, 5000), decodedCheck(5000, 10_000)]
    check({ codec: NONE, checks }, 'passes', bytes)
    check({ codec: NONE, checks: checks.slice(1) }, /no check covers/, bytes)
  })

  test('any checks and places: accepted exactly when each byte of each place lies in a check', () => {
    const range = fc.tuple(fc.nat(40), fc.nat(40)).map(([a, b]) => ({ start: Math.min(a, b), end: Math.max(a, b) }))
    fc.assert(
      fc.property(
        fc.array(range, { minLength: 1, maxLength: 6 }),
        fc.array(range, { maxLength: 5 }),
        (checked, used) => {
          const some = bytes.subarray(0, 40)
          const covered = new Set(
            checked.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i)),
          )
          const places = used
            .filter(({ start, end }) => end > start)
            .sort((a, b) => a.start - b.start)
            .map(({ start, end }) => place(start, end - start))
          const want = places.every(({ from, length }) =>
            Array.from({ length }, (_, i) => from + i).every((i) => covered.has(i)),
          )
          const checks = checked.map(({ start, end }) => decodedCheck(start, end))
          const chunk = chunkOf('gzip', some, gzip, { checks, places })
          let got = true
          try {
            verify(chunk, some, gzip, digests)
          } catch {
            got = false
          }
          expect(got).toBe(want)
        },
      ),
    )
  })
})

describe('what contradicts itself is corrupt', () => {
  test('a digest that differs is told with both digests', () => {
    const wrong: Check = { ...decodedCheck(0, 10_000), digest: digestOf(gzip) }
    check(
      { checks: [wrong] },
      new RegExp(`chunk at 4096: decoded bytes 0-10000: want ${wrong.digest}, got ${digestOf(bytes)}`),
    )
    check(
      { checks: [decodedCheck(0, 10_000), { ...storedCheck(gzip, 0, 1), digest: wrong.digest }] },
      /stored bytes 0-1: want/,
    )
  })

  test.each([
    [-1, 5],
    [0, 10_001],
    [5, 4],
    [0.5, 5],
    [Number.NaN, 5],
  ])('a check of %d to %d', (start, end) => {
    check({ checks: [decodedCheck(0, 10_000), { ...decodedCheck(0, 1), range: { start, end } }] }, /a check of/)
  })

  test.each([
    [-1, 5, 0],
    [9999, 2, 0],
    [0, 0, 0],
    [0, -1, 0],
    [0, 5, -1],
    [0, 5, 0.5],
    [0, 5, Number.MAX_SAFE_INTEGER],
    [Number.NaN, 5, 0],
  ])('a place from %d of %d bytes at %d', (from, length, at) => {
    check({ places: [place(from, length, at)] }, /a place of/)
  })

  test('places out of order', () => {
    check({ places: [place(5, 5), place(0, 5)] }, /a place of/)
  })

  test('a decoded length that differs', () => {
    expect(() => verify(chunkOf('gzip', bytes, gzip), bytes.subarray(1), gzip, digests)).toThrow(
      /want 10000 bytes, got 9999/,
    )
  })
})

test('checks that cover the same bytes again and again are a limit', () => {
  const checks = Array.from({ length: 9 }, () => decodedCheck(0, 10_000))
  check({ checks: checks.slice(0, 4) }, 'passes')
  check({ checks }, /overlap more than 4 times/)
})

test('a digest counts by its own algorithm only', () => {
  const right = decodedCheck(0, 10_000)
  const digest = `blake3:${Buffer.from(blake3(bytes)).toString('hex')}` as const
  check({ checks: [{ ...right, digest }] }, 'passes')
  check({ checks: [decodedCheck(0, 5000), { ...right, digest }, decodedCheck(5000, 10_000)] }, 'passes')
  check({ checks: [{ ...right, digest: `blake3:${hex(right.digest)}` }] }, new RegExp(`got ${digest}`))
  check({ checks: [{ ...right, digest: `sha256:${hex(digest)}` }] }, new RegExp(`got ${right.digest}`))
  check({ checks: [right, { ...right, digest: `blake3:${hex(right.digest)}` }] }, /want blake3/)
})

describe('of bytes read back from a device', () => {
  test('checks are repeated where places keep all that they are about', () => {
    check({}, 'passes', 'gone')
    check({ checks: [decodedCheck(100, 200)], places: [place(100, 60), place(150, 50)] }, 'passes', 'gone')
    check({ codec: NONE, checks: [storedCheck(bytes, 0, 10_000)] }, 'passes', 'gone')
  })

  test('they cannot be where it is gone', () => {
    check({ checks: [storedCheck(gzip, 0, gzip.length)] }, /not everything was kept/, 'gone')
    check({ places: [place(0, 9999)] }, /not everything was kept/, 'gone')
    check({ places: [place(0, 10), place(11, 9989)] }, /not everything was kept/, 'gone')
  })
})
