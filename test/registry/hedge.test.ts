import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { Hedge, type Way } from '../../src/registry/hedge.ts'

const AFTER_MS = 1000

beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] }))
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0)
  vi.useRealTimers()
})

/** A read whose ways end as they are told to, and when they are given up. */
function reading(hedge = new Hedge(AFTER_MS)) {
  const ways: (Way & PromiseWithResolvers<string>)[] = []
  const stop = new AbortController()
  const read = () =>
    hedge.run(
      (way) => {
        const end = { ...way, ...Promise.withResolvers<string>() }
        way.signal.addEventListener('abort', () => end.reject(way.signal.reason))
        ways.push(end)
        return end.promise
      },
      stop.signal,
      () => {},
    )
  return { read, ways, stop, way: (i: number) => ways[i] as (typeof ways)[0] }
}

test('a read that brings something in time is asked for once', async () => {
  const { read, ways, way } = reading()
  const bytes = read()
  for (let i = 0; i < 10; i++) {
    await vi.advanceTimersByTimeAsync(AFTER_MS - 1)
    way(0).claim()
  }
  way(0).resolve('here')
  expect(await bytes).toBe('here')
  expect(ways).toHaveLength(1)
})

test.each([0, 1])('of two ways the one that brings something first goes on, the other ends (%d)', async (first) => {
  const { read, ways, way } = reading()
  const bytes = read()
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  expect(ways.map(({ aside }) => aside)).toEqual([false, true])
  way(first).claim()
  expect(ways.map(({ signal }) => signal.aborted)).toEqual([first === 1, first === 0])
  expect(() => way(1 - first).claim()).toThrow('another connection')
  await vi.advanceTimersByTimeAsync(10 * AFTER_MS)
  way(first).claim()
  way(first).resolve('here')
  expect(await bytes).toBe('here')
  expect(ways).toHaveLength(2)
})

test('a host is asked aside for one read at a time', async () => {
  const hedge = new Hedge(AFTER_MS)
  const [one, two] = [reading(hedge), reading(hedge)]
  const bytes = [one.read(), two.read()]
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  expect([one.ways.length, two.ways.length]).toEqual([2, 1])
  one.way(1).claim()
  one.way(1).resolve('first')
  expect(await bytes[0]).toBe('first')
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  expect(two.ways).toHaveLength(2)
  two.way(0).resolve('second')
  expect(await bytes[1]).toBe('second')
})

test('where one way fails before anything came, the other counts; where both do, the first', async () => {
  const { read, way } = reading()
  const bytes = read()
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  way(1).reject(Failure.unavailable('the second'))
  await vi.advanceTimersByTimeAsync(0)
  way(0).claim()
  way(0).resolve('here')
  expect(await bytes).toBe('here')
  const other = reading()
  const failing = expect(other.read()).rejects.toThrow('the first')
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  other.way(0).reject(Failure.unavailable('the first'))
  other.way(1).reject(Failure.unavailable('the second'))
  await failing
})

test('what fails after something came is not waited for on the other way', async () => {
  const { read, way } = reading()
  const failing = expect(read()).rejects.toThrow('broken')
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  way(1).claim()
  way(1).reject(Failure.unavailable('broken'))
  await failing
})

test('whoever gives up ends both', async () => {
  const { read, ways, stop } = reading()
  const failing = expect(read()).rejects.toThrow('given up')
  await vi.advanceTimersByTimeAsync(AFTER_MS)
  stop.abort(new Error('given up'))
  await failing
  expect(ways.map(({ signal }) => signal.aborted)).toEqual([true, true])
})
