import { expect, test } from 'vitest'
import { Shelf } from '../../src/fetch/shelf.ts'
import { ByteLimit } from '../../src/limit.ts'

function piece(dropped: string[], name: string, length: number) {
  return { bytes: new Uint8Array(length), dropped: () => void dropped.push(name) }
}

test('the oldest make room, and are told', () => {
  const dropped: string[] = []
  const shelf = new Shelf(() => () => {}, 100)
  for (const name of ['a', 'b', 'c']) shelf.put(piece(dropped, name, 40))
  expect(dropped).toEqual(['a'])
  expect(shelf.bytes).toBe(80)
  shelf.put(piece(dropped, 'd', 70))
  expect(dropped).toEqual(['a', 'b', 'c'])
  expect(shelf.bytes).toBe(70)
})

test('what is larger than the shelf does not stay on it', () => {
  const dropped: string[] = []
  const shelf = new Shelf(() => () => {}, 100)
  shelf.put(piece(dropped, 'a', 101))
  expect(dropped).toEqual(['a'])
  expect(shelf.bytes).toBe(0)
})

test('what was taken away is not dropped, and is counted once', () => {
  const dropped: string[] = []
  const shelf = new Shelf(() => () => {}, 100)
  const a = piece(dropped, 'a', 60)
  shelf.put(a)
  shelf.remove(a)
  shelf.remove(a)
  expect(shelf.bytes).toBe(0)
  shelf.put(piece(dropped, 'b', 60))
  expect(dropped).toEqual([])
})

test('what there is no memory for is dropped, and what goes gives its memory back', () => {
  const memory = new ByteLimit([100])
  const dropped: string[] = []
  const shelf = new Shelf((bytes) => memory.tryTake(bytes, 0), 90)
  const a = piece(dropped, 'a', 40)
  shelf.put(a)
  memory.count(50)
  shelf.put(piece(dropped, 'b', 40))
  expect([dropped, memory.taken]).toEqual([['b'], 90])
  shelf.remove(a)
  expect(memory.taken).toBe(50)
  expect(shelf.dropOldest()).toBe(false)
})
