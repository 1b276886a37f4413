import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PlaceIndex } from '../../src/mount/place-index.ts'

type Place = readonly [at: number, length: number, chunk: number]

function indexOf(places: readonly Place[]): PlaceIndex {
  const view = new DataView(new ArrayBuffer(places.length * 24))
  places.forEach(([at, length, chunk], i) => {
    view.setBigUint64(i * 24, BigInt(at), true)
    view.setBigUint64(i * 24 + 8, BigInt(length), true)
    view.setUint32(i * 24 + 16, chunk, true)
  })
  return new PlaceIndex({ packedPlaces: () => new Uint8Array(view.buffer) })
}

test('a range has the chunks that it touches, each once', () => {
  const index = indexOf([
    [0, 100, 7],
    [4096, 4096, 3],
    [8192, 10, 7],
    [2 ** 40, 5, 1],
  ])
  const check = (start: number, end: number, ...chunks: number[]) =>
    expect([...index.chunksAt(start, end)]).toEqual(chunks)
  check(0, 1, 7)
  check(99, 4096, 7)
  check(100, 4096)
  check(8191, 8192, 3)
  check(0, 10_000, 7, 3)
  check(8202, 2 ** 40)
  check(2 ** 40 + 4, 2 ** 41, 1)
})

test('nothing is nowhere', () => {
  expect(indexOf([]).chunksAt(0, 1e9).size).toBe(0)
})

test('halving finds what looking at every place finds', () => {
  const gaps = fc.array(fc.tuple(fc.nat(50), fc.integer({ min: 1, max: 50 }), fc.nat(5)), { maxLength: 30 })
  fc.assert(
    fc.property(gaps, fc.nat(1500), fc.integer({ min: 1, max: 200 }), (steps, start, length) => {
      let at = 0
      const places = steps.map(([gap, length, chunk]): Place => {
        const place = [at + gap, length, chunk] as const
        at += gap + length
        return place
      })
      const end = start + length
      const wanted = places.filter(([at, length]) => at < end && at + length > start)
      expect(indexOf(places).chunksAt(start, end)).toEqual(new Set(wanted.map(([, , chunk]) => chunk)))
    }),
  )
})
