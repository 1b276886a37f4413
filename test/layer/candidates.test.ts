import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Blob } from '../../src/image/blob.ts'
import { digestOf } from '../../src/image/digest.ts'
import { Copies, PATIENCE_MS } from '../../src/layer/candidates.ts'

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
const originOf = (name: string) => `${name}.example.com`

/** Copies that were added in this order, of an origin each unless it is named; and who was asked for all of it. */
function asking(names: readonly string[], origin = originOf) {
  const [first, ...others] = names.map((name) => copy(name)) as [Named, ...Named[]]
  const copies = new Copies(first, origin(first.name))
  for (const each of others) copies.add(each, origin(each.name))
  const asked: string[] = []
  const running = new Map<string, PromiseWithResolvers<void> & { moved(): void }>()
  const whole = () =>
    copies.whole(({ name }, moved) => {
      asked.push(name)
      const end = { ...Promise.withResolvers<void>(), moved }
      running.set(name, end)
      return end.promise
    })
  const end = (name: string) => running.get(name)?.resolve()
  const fail = async (name: string) => {
    running.get(name)?.reject(new Error(name))
    await vi.advanceTimersByTimeAsync(0)
  }
  /** Something of it comes now and then, for that long. */
  const flow = async (name: string, forMs: number) => {
    for (let at = 0; at < forMs; at += PATIENCE_MS / 2) {
      running.get(name)?.moved()
      await vi.advanceTimersByTimeAsync(PATIENCE_MS / 2)
    }
  }
  return { copies, asked, whole, end, fail, flow }
}

describe('all of a blob', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] }))
  afterEach(() => void vi.useRealTimers())

  test('is asked of the newest copy, and of nobody else while it comes', async () => {
    const { asked, whole, end } = asking(['old', 'new'])
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS - 1)
    end('new')
    await brought
    expect(asked).toEqual(['new'])
    expect(vi.getTimerCount()).toBe(0)
  })

  test('comes from the next copy when one fails; the first failure counts when all fail', async () => {
    const { asked, whole, fail } = asking(['old', 'middle', 'new'])
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
    const { asked, whole, end } = asking(['old', 'new'])
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    expect(asked).toEqual(['new', 'old'])
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    end('old')
    await brought
    expect(asked).toEqual(['new', 'old'])
  })

  test('a copy that was asked, failed or slow, is not asked again; one that is added meanwhile is', async () => {
    const { copies, asked, whole, fail, end } = asking(['old'])
    const brought = whole()
    await vi.advanceTimersByTimeAsync(3 * PATIENCE_MS)
    expect(asked).toEqual(['old'])
    copies.add(copy('added'), originOf('added'))
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    expect(asked).toEqual(['old', 'added'])
    await fail('added')
    end('old')
    await brought
    expect(asked).toEqual(['old', 'added'])
  })

  test('is asked of nobody else while something of it moves, however long that takes', async () => {
    const { asked, whole, end, flow } = asking(['old', 'new'])
    const brought = whole()
    await flow('new', 100 * PATIENCE_MS)
    expect(asked).toEqual(['new'])
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    expect(asked).toEqual(['new', 'old'])
    end('new')
    await brought
  })

  test('is asked of one registry once at a time, however many copies it has and however slow it is', async () => {
    const { asked, whole, end, fail } = asking(['oldest', 'old', 'newer', 'newest'], () => 'slow.example.com')
    const brought = whole()
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    expect(asked).toEqual(['newest'])
    await fail('newest')
    expect(asked).toEqual(['newest', 'newer'])
    await vi.advanceTimersByTimeAsync(10 * PATIENCE_MS)
    expect(asked).toEqual(['newest', 'newer'])
    end('newer')
    await brought
  })

  test('is asked of each registry before it is asked of one again; the one that brought it is asked first then', async () => {
    const { asked, whole, end, fail } = asking(['b1', 'a1', 'a2'], (name) => originOf(name.charAt(0)))
    const brought = whole()
    for (const each of ['a2', 'b1']) await fail(each)
    expect(asked).toEqual(['a2', 'b1', 'a1'])
    end('a1')
    await brought
    void whole().catch(() => {})
    expect(asked).toEqual(['a2', 'b1', 'a1', 'a1'])
    end('a1')
  })

  test('what is slow and fails after all asks nobody', async () => {
    const { asked, whole, end, fail } = asking(['oldest', 'old', 'new'])
    const brought = whole()
    await vi.advanceTimersByTimeAsync(PATIENCE_MS)
    end('old')
    await brought
    await fail('new')
    expect(asked).toEqual(['new', 'old'])
  })
})

describe('a range', () => {
  const HERE = 'registry.example.com'
  const RANGE = { start: 0, end: 1 }
  const gives = (name: string): Named => ({ ...copy(name), read: async () => new TextEncoder().encode(name) })

  test('comes from a copy that was added while the others failed', async () => {
    const failing = Promise.withResolvers<never>()
    const copies = new Copies<Named>({ ...copy('old'), read: () => failing.promise }, HERE)
    const read = copies.read(RANGE)
    copies.add(gives('added'), HERE)
    failing.reject(new Error('old'))
    expect(new TextDecoder().decode(await read)).toBe('added')
  })

  test('is asked of no copy twice, nor of one that made room for another; what the newest says counts', async () => {
    const failing = Promise.withResolvers<never>()
    const asked: string[] = []
    const fails = (name: string): Named => ({
      ...copy(name),
      read: async () => {
        asked.push(name)
        throw new Error(name)
      },
    })
    const copies = new Copies<Named>(fails('was there first'), HERE)
    copies.add({ ...copy('asked first'), read: () => failing.promise }, HERE)
    const read = expect(copies.read(RANGE)).rejects.toThrow('4')
    for (const name of ['1', '2', '3', '4']) copies.add(fails(name), HERE)
    failing.reject(new Error('asked first'))
    await read
    expect(asked).toEqual(['4', '1', 'was there first'])
  })

  test('is asked of nobody else when its reader gave up', async () => {
    const reader = new AbortController()
    const copies = new Copies<Named>(gives('old'), HERE)
    const givesUp = async () => {
      reader.abort()
      throw new Error('gave up')
    }
    copies.add({ ...copy('new'), read: givesUp }, HERE)
    await expect(copies.read(RANGE, { signal: reader.signal })).rejects.toThrow('gave up')
  })
})
