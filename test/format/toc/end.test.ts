import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { entriesFromEnd } from '../../../src/format/toc/end.ts'
import { json } from '../../fake/image.ts'

const all = (bytes: Uint8Array) => [...entriesFromEnd(bytes)]

test('entries come from the last to the first, whatever their text', () => {
  const text = fc.oneof(fc.string(), fc.constantFrom('"', '\\', '\\"', '{"', '[{', '}]', '\\\\"', '"offset":1'))
  // keys are plain: of such with escapes V8 has been seen to read another one
  const key = fc.constantFrom('name', 'type', 'offset', 'x')
  const entry = fc.dictionary(key, fc.oneof(text, fc.nat(), fc.dictionary(key, text), fc.array(text)))
  fc.assert(
    fc.property(fc.array(entry), fc.boolean(), fc.constantFrom(undefined, 1, '\t'), (entries, first, indent) => {
      const table = first ? { entries, version: 1 } : { version: 1, entries }
      const bytes = Buffer.from(JSON.stringify(table, null, indent))
      expect(all(bytes)).toEqual(JSON.parse(JSON.stringify(entries)).reverse())
    }),
  )
})

test('no bytes do more than fail', () => {
  const pieces = fc.array(
    fc.constantFrom('{', '}', '[', ']', '"', '\\', ',', ':', 'a', '1', ' ', '"a":1', '{"entries":[{'),
  )
  fc.assert(
    fc.property(
      fc.oneof(
        pieces.map((each) => Buffer.from(each.join(''))),
        fc.uint8Array(),
      ),
      (bytes) => {
        try {
          all(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      },
    ),
  )
})

test('no more than the end is looked at, and nothing that begins before it is taken for less than it is', () => {
  const entry = { name: 'x'.repeat(1000), type: 'dir' }
  const read = entriesFromEnd(json({ version: 1, entries: Array(2000).fill(entry) }))
  let count = 0
  expect(() => {
    for (const each of read) {
      expect(each).toEqual(entry)
      count++
    }
  }).toThrow(expect.objectContaining({ code: 'limit' }))
  expect(count).toBe(Math.floor((1 << 20) / (JSON.stringify(entry).length + 1)))
  expect(() => all(json({ version: 1, entries: [{ name: 'x'.repeat(2 << 20) }] }))).toThrow(Failure)
})
