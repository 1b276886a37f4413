import fc from 'fast-check'
import { expect, test } from 'vitest'
import { asRecord, fromBase64, parseStrictJson, type StrictJson } from '../../src/policy/strict-json.ts'
import { character } from '../fixtures/characters.ts'
import { runs } from '../fixtures/runs.ts'

const parse = (text: string) => parseStrictJson(Buffer.from(text), 'it')

function refuse(text: string, why: RegExp): void {
  expect(() => parse(text), text).toThrow(
    expect.objectContaining({ code: 'corrupt', message: expect.stringMatching(why) }),
  )
}

/** Maps as plain objects. */
function plain(value: StrictJson): unknown {
  if (Array.isArray(value)) return value.map(plain)
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, each]) => [key, plain(each)]))
  return value
}

test('what JSON.parse reads is read the same', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8, stringUnit: character }), fc.nat(4), (text, indent) => {
      const value: unknown = JSON.parse(text)
      // JSON itself knows no -0 of its own, and a key named __proto__ is a key
      expect(JSON.stringify(plain(parse(JSON.stringify(value, null, indent))))).toBe(JSON.stringify(value))
    }),
  )
})

test('any text is read as JSON.parse reads it, or refused', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'{}[]:,"\\ab01-.eE \n\u0000tru') }), (text) => {
      let mine: StrictJson
      try {
        mine = parse(text)
      } catch (error) {
        expect(error).toMatchObject({ code: 'corrupt' })
        return
      }
      expect(plain(mine)).toEqual(JSON.parse(text))
    }),
    { numRuns: runs(800) },
  )
})

test('a key may stand only once, however it is written', () => {
  refuse('{"a":1,"a":1}', /the key "a" twice/)
  refuse('{"a":1,"\\u0061":1}', /the key "a" twice/)
  refuse('[{"b":{"a":1,"a":2}}]', /the key "a" twice/)
  expect(plain(parse('{"a":{"a":1}}'))).toEqual({ a: { a: 1 } })
})

test('nothing may stand behind it, and no byte order mark before it', () => {
  refuse('{} {}', /goes on behind its end/)
  refuse('1 x', /goes on behind its end/)
  refuse('\ufeff{}', /is no JSON/)
  refuse('', /is no JSON/)
})

test('it is not nested without end', () => {
  refuse('['.repeat(100_000), /nested more than 32 deep/)
  refuse(`${'{"a":'.repeat(40)}1${'}'.repeat(40)}`, /nested more than 32 deep/)
  expect(parse(`${'['.repeat(30)}${']'.repeat(30)}`)).toBeInstanceOf(Array)
})

test('bytes that are no UTF-8 are refused', () => {
  expect(() => parseStrictJson(new Uint8Array([0x22, 0xff, 0x22]), 'it')).toThrow('it is no UTF-8')
})

test('a record has its keys, and no others', () => {
  const record = (text: string) => asRecord(parse(text), 'it', ['a'], ['b'])
  expect(record('{"a":1}').get('a')).toBe(1)
  expect(record('{"a":1,"b":2}').get('b')).toBe(2)
  expect(() => record('{"b":2}')).toThrow('it lacks "a"')
  expect(() => record('{"a":1,"c":2}')).toThrow('it has the unknown key "c"')
  expect(() => record('[]')).toThrow('it is no JSON object')
})

test('base64 is whole', () => {
  expect([...fromBase64('AQI=', 'it')]).toEqual([1, 2])
  expect([...fromBase64('AQ\nI=\n', 'it')]).toEqual([1, 2])
  for (const text of ['AQI', 'A===', 'A-==', 'AQI=AQI=', ' AQ=']) {
    expect(() => fromBase64(text, 'it'), text).toThrow('it is no base64')
  }
})
