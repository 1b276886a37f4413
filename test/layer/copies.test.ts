import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Blob } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import { Copies } from '../../src/layer/copies.ts'

interface Named extends Blob {
  name: string
}

const SIZE = 1_250_000
const copy = (name: string, size = SIZE): Named => ({
  name,
  digest: digestOf(new Uint8Array()),
  size,
  read: () => Promise.reject(new Error(name)),
})
/** Patience with one of that size: 10 s, and its bytes at 10 Mbit/s. */
const PATIENCE_MS = 11_000

/** Copies that were added in this order, and who was asked for all of it; each ends when it is told to. */
function asking(...names: string[]) {
  return askingFor(SIZE, ...names)
}

/** The same, of a blob of that size. */
function askingFor(size: number, ...names: string[]) {
  const [first, ...others] = names.map((name) => copy(name, size)) as [Named, ...Named[]]
  const copies = new Copies(first)
  for (const each of others) copies.add(each)
  const asked: string[] = []
  const ends = new Map<string, PromiseWithResolvers<void>>()
  const whole = () =>
    copies.whole(({ name }) => {
      asked.push(name)
      const end = Promise.withResolvers<void>()
      ends.set(name, end)
      return end.promise
    })
  const end = (name: string) => ends.get(name)?.resolve()
  const fail = async (name: string) => {
    ends.get(name)?.reject(new Error(name))
    await vi.advanceTimersByTimeAsync(0)
  }
  return { copies, asked, whole, end, fail }
}

describe('all of a blob', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }))
  afterEach(() => void vi.useRealTimers())

  test('is asked of the newest copy, and of nobody else while it comes', async () => {
    const { asked, whole, end } = asking('old', 'new')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS - 1)
    end('new')
    await brought
    expect(asked).toEqual(['new'])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('comes from the next copy when one fails; the first failure counts when all fail', async () => {
    const { asked, whole, fail } = asking('old', 'middle', 'new')
    const brought = whole()
    const refused = expect(brought).rejects.toThrow('new')
    await fail('new')
    expect(asked).toEqual(['new', 'middle'])
    await fail('middle')
    await fail('old')
    await refused
    expect(asked).toEqual(['new', 'middle', 'old'])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('is asked of the next copy as well when one takes too long, and comes from whichever is first', async () => {
    const { asked, whole, end } = asking('old', 'new')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    expect(asked).toEqual(['new', 'old'])
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    end('old')
    await brought
    expect(asked).toEqual(['new', 'old'])
  })

  test('a copy that was asked, failed or slow, is not asked again; one that is added meanwhile is', async () => {
    const { copies, asked, whole, fail, end } = asking('old')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(3 * PATIENCE_MS)
    expect(asked).toEqual(['old'])
    copies.add(copy('added'))
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    expect(asked).toEqual(['old', 'added'])
    await fail('added')
    end('old')
    await brought
    expect(asked).toEqual(['old', 'added'])
  })

  test('is asked of the next copy after 30 s, however large it is: a read waits 120 s', async () => {
    const { asked, whole, end } = askingFor(10e9, 'old', 'new')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(29_999)
    expect(asked).toEqual(['new'])
    await vi.advanceTimersByTimeAsync(1)
    expect(asked).toEqual(['new', 'old'])
    end('new')
    await brought
  })

  test('what is slow and fails after all asks nobody', async () => {
    const { asked, whole, end, fail } = asking('oldest', 'old', 'new')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    end('old')
    await brought
    await fail('new')
    expect(asked).toEqual(['new', 'old'])
  })
})

describe('a range', () => {
  const RANGE = { start: 0, end: 1 }
  const gives = (name: string): Named => ({ ...copy(name), read: async () => new TextEncoder().encode(name) })

  test('comes from a copy that was added while the others failed', async () => {
    const failing = Promise.withResolvers<never>()
    const copies = new Copies<Named>({ ...copy('old'), read: () => failing.promise })
    const read = copies.read(RANGE)
    copies.add(gives('added'))
    failing.reject(new Error('old'))
    expect(new TextDecoder().decode(await read)).toBe('added')
  })

  test('is asked of no copy twice, nor of one that made room for another meanwhile; the first failure counts', async () => {
    const failing = Promise.withResolvers<never>()
    const asked: string[] = []
    const fails = (name: string): Named => ({
      ...copy(name),
      read: async () => {
        asked.push(name)
        throw new Error(name)
      },
    })
    const copies = new Copies<Named>(fails('pushed out'))
    copies.add({ ...copy('first'), read: () => failing.promise })
    const read = expect(copies.read(RANGE)).rejects.toThrow('first')
    for (const name of ['1', '2', '3', '4']) copies.add(fails(name))
    failing.reject(new Error('first'))
    await read
    expect(asked).toEqual(['4', '3', '2', '1'])
  })

  test('is asked of nobody else when its reader gave up', async () => {
    const reader = new AbortController()
    const copies = new Copies<Named>(gives('old'))
    copies.add({
      ...copy('new'),
      read: async () => {
        reader.abort()
        throw new Error('gave up')
      },
    })
    await expect(copies.read(RANGE, { signal: reader.signal })).rejects.toThrow('gave up')
  })
})
