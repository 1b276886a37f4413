import { describe, expect, test } from 'vitest'
import { StoredOrder } from '../../src/fetch/order.ts'
import { Rest } from '../../src/fetch/rest.ts'
import { type ChunkAt, row, tableOf } from './layer.ts'

const LIMITS = { gapMaxBytes: 60, runMaxBytes: 300, againMaxBytes: 20 }

/** The rest of a layer of which all is missing, but those that are here. */
function restOf(chunks: readonly ChunkAt[], here = new Set<number>()) {
  const blobs = 1 + Math.max(...chunks.map(({ blob }) => blob))
  const rest = new Rest(new Uint8Array(chunks.length).fill(1), {
    order: new StoredOrder(tableOf(chunks)),
    blobs,
    missing: (some) => some.filter((each) => !here.has(each)),
  })
  const ranges = () => {
    const all: number[][] = []
    for (let next = rest.next(LIMITS); next !== undefined; next = rest.next(LIMITS)) all.push([...next.chunks])
    return all
  }
  return { rest, ranges }
}

describe('what is missing of a layer is given out', () => {
  test('in stored order, as much as one request takes, each chunk once', () => {
    const { ranges } = restOf(row(7, 100, 5))
    expect(ranges()).toEqual([[0, 1], [2, 3], [4, 5], [6]])
  })

  test('with what lies between files, but nothing larger', () => {
    const chunks = [...row(2, 80, 60), { blob: 0, stored: { start: 281, end: 300 } }]
    expect(restOf(chunks).ranges()).toEqual([[0, 1], [2]])
  })

  test('a chunk that is larger than a request in one of its own', () => {
    expect(restOf(row(2, 1000)).ranges()).toEqual([[0], [1]])
  })

  test('with what is here between them, if it is little', () => {
    const chunks = [50, 60, 110].map((end, i) => ({ blob: 0, stored: { start: [0, 50, 60][i] as number, end } }))
    expect(restOf(chunks, new Set([1])).ranges()).toEqual([[0, 2]])
  })

  test('around what came meanwhile', () => {
    expect(restOf(row(6, 50), new Set([2])).ranges()).toEqual([
      [0, 1],
      [3, 4, 5],
    ])
  })

  test('from where somebody misses something, to the end, and then from the beginning', () => {
    const { rest, ranges } = restOf(row(6, 150))
    rest.near(0, 600)
    expect(ranges()).toEqual([
      [4, 5],
      [0, 1],
      [2, 3],
    ])
  })

  test('of all blobs', () => {
    const chunks = [...row(2, 150), ...row(2, 150).map((each) => ({ ...each, blob: 2 }))]
    const { rest, ranges } = restOf(chunks)
    rest.near(2, 0)
    expect(ranges()).toEqual([
      [2, 3],
      [0, 1],
    ])
  })

  test('again when it failed', () => {
    const { rest, ranges } = restOf(row(2, 150))
    expect(rest.next(LIMITS)?.chunks).toEqual([0, 1])
    expect(rest.next(LIMITS)).toBeUndefined()
    rest.giveBack([1])
    expect(ranges()).toEqual([[1]])
  })
})
