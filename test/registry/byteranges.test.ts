import fc from 'fast-check'
import { expect, test } from 'vitest'
import { byteRanges } from '../../src/build/byte-ranges.ts'
import { ByteRanges, boundaryOf } from '../../src/registry/byteranges.ts'

const SIZE = 1000
const BYTES = Uint8Array.from({ length: SIZE }, (_, i) => i % 251)

/** What comes of an answer that arrives in pieces of so many bytes: what lies where. */
function taken(answer: Uint8Array, step: number, boundary = 'x'): Map<number, number> {
  const ranges = new ByteRanges(boundary, SIZE)
  const found = new Map<number, number>()
  for (let at = 0; at < answer.length; at += step) {
    for (const { at: place, bytes } of ranges.take(answer.subarray(at, at + step))) {
      for (const [i, byte] of bytes.entries()) found.set(place + i, byte)
    }
  }
  expect(ranges.isOver).toBe(true)
  return found
}

const part = (headers: string, bytes: string) => `--x\r\n${headers}\r\n\r\n${bytes}`

/** A malformed answer. */
function check(answer: string) {
  const ranges = new ByteRanges('x', SIZE)
  expect(() => [...ranges.take(Buffer.from(answer, 'latin1'))], answer.slice(0, 80)).toThrow(
    expect.objectContaining({ code: 'corrupt' }),
  )
}

test('a content type of several ranges says what stands between them', () => {
  expect(boundaryOf('multipart/byteranges; boundary=abc')).toBe('abc')
  expect(boundaryOf('Multipart/ByteRanges; charset=x; boundary="a b;c"')).toBe('a b;c')
  for (const other of [undefined, '', 'application/octet-stream', 'multipart/byteranges', 'text/plain; boundary=a'])
    expect(boundaryOf(other)).toBeUndefined()
})

test('however an answer is cut, each range gets its own bytes', async () => {
  const range = fc.tuple(fc.nat(SIZE - 1), fc.integer({ min: 1, max: 200 }))
  const all = fc.array(range, { minLength: 1, maxLength: 8 })
  const property = fc.asyncProperty(all, fc.integer({ min: 1, max: 400 }), async (wanted, step) => {
    const ranges = wanted.map(([start, length]) => ({ start, end: Math.min(SIZE, start + length) }))
    const { headers, body } = byteRanges(ranges, 'a/b', SIZE, async function* (start, end) {
      yield BYTES.subarray(start, end)
    })
    const parts: Uint8Array[] = []
    for await (const each of body) parts.push(each)
    const answer = Buffer.concat(parts)
    expect(headers['content-length']).toBe(`${answer.length}`)
    const found = taken(answer, step, boundaryOf(headers['content-type']))
    const places = ranges.flatMap(({ start, end }) => Array.from({ length: end - start }, (_, i) => start + i))
    expect(new Set(found.keys())).toEqual(new Set(places))
    expect([...found].every(([place, byte]) => byte === BYTES[place])).toBe(true)
  })
  await fc.assert(property)
})

test('parts may have other headers, an unknown length, and a line before the first', () => {
  const answer = `\r\n${part('Content-Type: a/b\r\nContent-Range: bytes 3-4/*', 'ab')}\r\n${part('X: y\r\ncontent-range:  bytes  0-0/1000 ', 'c')}\r\n--x--\r\nmore`
  expect([...taken(Buffer.from(answer, 'latin1'), 5)]).toEqual([
    [3, 97],
    [4, 98],
    [0, 99],
  ])
})

test('what is no answer of several ranges of the blob is refused', () => {
  check('hello')
  check('--y\r\n')
  check(part('Content-Range: bytes 0-1000/1001', ''))
  check(part('Content-Range: bytes 5-4/1000', ''))
  check(part('Content-Range: bytes 0-1000/1000', ''))
  check(part('Content-Range: bytes 0-0/2', ''))
  check(part('Content-Type: a/b', ''))
  check(`${part('Content-Range: bytes 0-0/1000', 'ab')}`)
  check(`--x\r\n${'a'.repeat(5000)}`)
})
