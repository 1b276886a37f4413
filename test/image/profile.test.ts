import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf } from '../../src/image/digest.ts'
import { encodeProfile, PROFILE_MAX_BYTES, type Profile, parseProfile } from '../../src/image/profile.ts'
import { runs } from '../fixtures/runs.ts'

const utf8 = new TextEncoder()
const layer = (text: string) => digestOf(utf8.encode(text))
const LAYER = layer('a')
const text = (value: unknown) => utf8.encode(JSON.stringify(value))
const plain = { version: 1, layers: [LAYER], folders: ['usr/bin', ''], files: [[0, 0, 'env']] }

function encoded(profile: Profile): Uint8Array {
  const bytes = encodeProfile(profile)
  if (bytes === undefined) throw new Error('there is nothing to say')
  return bytes
}

test('a profile is read as it was written, in its order', () => {
  const files = [
    { layer: LAYER, path: 'usr/lib/python3/os.py', ranges: [] },
    { layer: layer('b'), path: 'start', ranges: [{ start: 0, end: 4096 }] },
    {
      layer: LAYER,
      path: 'usr/lib/python3/abc.py',
      ranges: [
        { start: 0, end: 1 },
        { start: 5, end: 9 },
      ],
    },
  ]
  const stored = [
    {
      layer: LAYER,
      ranges: [
        { start: 512, end: 70_000 },
        { start: 90_000, end: 100_000 },
      ],
    },
  ]
  expect(parseProfile(encoded({ files, stored }), 'p')).toEqual({ files, stored })
  // of a layer of which no file is wanted nothing is
  expect(parseProfile(encoded({ files, stored: [{ layer: layer('c'), ranges: [] }] }), 'p').stored).toEqual([])
})

test('where something is stored takes no more than a quarter of it', () => {
  const files = ['a', 'b'].map((each) => ({ layer: layer(each), path: 'p', ranges: [] }))
  const ranges = Array.from({ length: 512 }, (_, i) => ({ start: 1e9 + i * 10, end: 1e9 + i * 10 + 5 }))
  const stored = files.map(({ layer }) => ({ layer, ranges }))
  expect(parseProfile(encoded({ files, stored }), 'p')).toEqual({ files, stored: stored.slice(0, 1) })
})

test('what does not fit is left out from the end', () => {
  const file = (i: number) => ({ layer: LAYER, path: `folder-${i}/${'n'.repeat(200)}`, ranges: [] })
  const files = Array.from({ length: 1000 }, (_, i) => file(i))
  const bytes = encoded({ files, stored: [] })
  const read = parseProfile(bytes, 'p').files
  expect(bytes.length).toBeLessThanOrEqual(PROFILE_MAX_BYTES)
  expect(bytes.length).toBeGreaterThan(PROFILE_MAX_BYTES - 500)
  expect(read).toEqual(files.slice(0, read.length))
})

test('of no files there is no profile', () => {
  expect(encodeProfile({ files: [], stored: [] })).toBeUndefined()
})

describe('refused is one', () => {
  const check = (title: string, bytes: Uint8Array, code: string) =>
    test(title, () => expect(() => parseProfile(bytes, 'p')).toThrow(expect.objectContaining({ code })))
  const having = (change: object) => text({ ...plain, ...change })

  check('that is no JSON', utf8.encode('{'), 'corrupt')
  check('that is a list', text([plain]), 'corrupt')
  check('of another version', having({ version: 2 }), 'unsupported')
  check('with a key that nobody knows', having({ more: 1 }), 'corrupt')
  check('of more than 64 KiB', utf8.encode(`${JSON.stringify(plain)}${' '.repeat(PROFILE_MAX_BYTES)}`), 'limit')
  check('of more layers than images have', having({ layers: Array(1025).fill('') }), 'corrupt')
  check('with another digest', having({ layers: ['sha512:00'] }), 'corrupt')
  check('with a folder above the root', having({ folders: ['..'] }), 'corrupt')
  check('with an absolute folder', having({ folders: ['/etc'] }), 'corrupt')
  check('with a path for a name', having({ files: [[0, 0, 'a/b']] }), 'corrupt')
  check('with a name of half a character', having({ files: [[0, 0, '\ud800']] }), 'corrupt')
  check('with a NUL in a name', having({ files: [[0, 0, 'a\0']] }), 'corrupt')
  check('with a path that no system takes', having({ files: [[0, 0, 'x'.repeat(4096)]] }), 'limit')
  check('of a layer that is not listed', having({ files: [[1, 0, 'a']] }), 'corrupt')
  check('of a folder that is not listed', having({ files: [[0, 2, 'a']] }), 'corrupt')
  check('of half a layer', having({ files: [[0.5, 0, 'a']] }), 'corrupt')
  check('with a file twice', having({ files: [plain.files[0], [0, 0, 'env', 0, 1]] }), 'corrupt')
  check('with half a range', having({ files: [[0, 0, 'a', 1]] }), 'corrupt')
  check('with an empty range', having({ files: [[0, 0, 'a', 1, 1]] }), 'corrupt')
  check('with ranges that overlap', having({ files: [[0, 0, 'a', 0, 9, 8, 10]] }), 'corrupt')
  check('with a range before the file', having({ files: [[0, 0, 'a', -1, 9]] }), 'corrupt')
  check('with a range of no number', having({ files: [[0, 0, 'a', 0, '9']] }), 'corrupt')
  check('with what is stored of a layer that is not listed', having({ stored: [[1, 0, 9]] }), 'corrupt')
  check(
    'with what is stored of a layer twice',
    having({
      stored: [
        [0, 0, 9],
        [0, 10, 19],
      ],
    }),
    'corrupt',
  )
  check('with half of where something is stored', having({ stored: [[0, 9]] }), 'corrupt')
  check('with more places than are kept', having({ stored: [[0, ...Array(1026).keys()]] }), 'limit')
  check('with more ranges than a file may have', having({ files: [[0, 0, 'a', ...Array(34).keys()]] }), 'limit')
})

test('whatever the document, it is read or refused, and what is read can be written', () => {
  const number: fc.Arbitrary<unknown> = fc.oneof(
    fc.nat(3),
    fc.double(),
    fc.constantFrom<unknown>(-1, 2 ** 53, null, '0'),
  )
  const file = fc.oneof(
    fc.tuple(fc.nat(1), fc.nat(2), fc.constantFrom('a', 'b', '..', '')),
    fc.tuple(fc.nat(1), fc.nat(2), fc.string(), fc.nat(9), fc.nat(9)),
    fc.array(number),
  )
  const document = fc.record({
    version: fc.constantFrom(1, 1, 1, 2),
    layers: fc.array(fc.constantFrom(LAYER, layer('b'), ''), { maxLength: 3 }),
    folders: fc.array(fc.constantFrom('', 'a', 'a/b', '/', '.'), { maxLength: 3 }),
    files: fc.array(file, { maxLength: 6 }),
    stored: fc.array(fc.array(number, { maxLength: 5 }), { maxLength: 2 }),
  })
  fc.assert(
    fc.property(fc.oneof(document, fc.anything()), (value) => {
      let read: Profile
      try {
        read = parseProfile(utf8.encode(`${JSON.stringify(value)}`), 'p')
      } catch (error) {
        expect(error).toBeInstanceOf(Failure)
        return
      }
      if (read.files.length === 0) return
      const shown = new Set(read.files.map(({ layer }) => layer))
      const stored = read.stored.filter(({ layer }) => shown.has(layer))
      expect(parseProfile(encoded(read), 'p')).toEqual({ ...read, stored })
    }),
    { numRuns: runs(500) },
  )
})
