// How what comes of a range is told of.
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Filling } from '../../src/registry/filling.ts'

const KIB = 1 << 10
const SIZE = 200 * KIB

/** Parts of a range whose bytes are their own place in it, modulo 251. */
function* parts(size: number): Generator<Uint8Array> {
  for (let at = 0; at < SIZE; at += size)
    yield Uint8Array.from({ length: Math.min(size, SIZE - at) }, (_, i) => (at + i) % 251)
}

function told() {
  const parts: { at: number; bytes: Uint8Array }[] = []
  const onPart = (bytes: Uint8Array, at: number) => void parts.push({ at, bytes })
  return { parts, onPart }
}

test.each([1000, 8 * KIB, 150 * KIB])('parts of %i bytes are told of in order, whole and few', (size) => {
  const { parts: heard, onPart } = told()
  const bytes = new Uint8Array(SIZE)
  const filling = new Filling(bytes, onPart)
  for (const each of parts(size)) expect(filling.take(each)).toBeUndefined()
  filling.tell()
  expect(filling.filled).toBe(SIZE)
  expect(bytes).toEqual(Uint8Array.from({ length: SIZE }, (_, i) => i % 251))
  expect(heard.length).toBeLessThanOrEqual(4)
  let at = 0
  for (const each of heard) {
    expect(each.at).toBe(at)
    expect(each.bytes.buffer).toBe(bytes.buffer)
    at += each.bytes.length
  }
  expect(at).toBe(SIZE)
})

test('a little that came is told of when nothing more has arrived, and once', async () => {
  const { parts: heard, onPart } = told()
  const filling = new Filling(new Uint8Array(SIZE), onPart)
  void filling.take(new Uint8Array(10))
  void filling.take(new Uint8Array(20))
  expect(heard).toEqual([])
  await turn()
  expect(heard.map(({ at, bytes }) => [at, bytes.length])).toEqual([[0, 30]])
  filling.tell()
  await turn()
  expect(heard).toHaveLength(1)
})

test('whoever was told and wants to be waited for is, wherever he was told', async () => {
  const goOn: (() => void)[] = []
  const filling = new Filling(new Uint8Array(SIZE), () => new Promise<void>((resolve) => goOn.push(resolve)))
  expect(filling.take(new Uint8Array(10))).toBeUndefined()
  await turn() // he is told of the first 10
  const held = filling.take(new Uint8Array(64 * KIB)) // and here of the rest
  expect(goOn).toHaveLength(2)
  let isOver = false
  const over = held?.then(() => {
    isOver = true
  })
  goOn[1]?.()
  await turn()
  expect(isOver).toBe(false)
  goOn[0]?.()
  await over
  expect(filling.take(new Uint8Array(10))).toBeUndefined()
  filling.tell()
})
