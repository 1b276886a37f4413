import { expect, test } from 'vitest'
import { bytesBeforeLandmark, LANDMARK, NO_LANDMARK } from '../../../src/format/toc/landmarks.ts'

const landmark = (more: object) => ({ name: LANDMARK, type: 'reg', size: 1, ...more })

function before(...entries: unknown[]) {
  return bytesBeforeLandmark(new TextEncoder().encode(JSON.stringify({ version: 1, entries }, null, '\t')))
}

test('the stored bytes before the landmark are found without parsing the table', () => {
  const files = Array.from({ length: 1000 }, (_, i) => ({ name: `file ${i}`, type: 'reg', xattrs: { a: 'eA==' } }))
  expect(before(...files, landmark({ offset: 4711 }), ...files)).toEqual({ start: 0, end: 4711 })
})

test.each([
  ['there is none', [{ name: 'a', offset: 5 }]],
  ['nothing is known to be needed', [landmark({ offset: 5 }), { name: NO_LANDMARK }]],
  ['it stands at the beginning', [landmark({ offset: 0 })]],
  ['it has no place', [landmark({})]],
  ['its place is no number', [landmark({ offset: '5' })]],
  ['its place is no whole number', [landmark({ offset: 5.5 })]],
  ['its place is negative', [landmark({ offset: -5 })]],
  ['its place is beyond what counts', [landmark({ offset: 2 ** 60 })]],
  ['another file links to it', [{ name: 'a', type: 'symlink', linkName: LANDMARK }]],
  ['its entry holds an object', [landmark({ xattrs: {}, offset: 5 })]],
])('nothing is found where %s', (_, entries) => {
  expect(before(...entries)).toBeUndefined()
})

test('a table that is cut off anywhere tells nothing else, and is no error', () => {
  const whole = Buffer.from(JSON.stringify({ entries: [landmark({ offset: 4711 }), { name: 'a' }] }))
  for (let end = 0; end < whole.length; end++) {
    expect([undefined, 4711]).toContain(bytesBeforeLandmark(whole.subarray(0, end))?.end)
  }
})
