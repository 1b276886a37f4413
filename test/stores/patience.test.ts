import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { LOOKUP_PATIENCE, patiently } from '../../src/stores/patience.ts'

const PATIENCE = { stallMs: 1000, totalMs: 5000 }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
})
afterEach(() => {
  vi.useRealTimers()
})

test('what comes in time is passed on, and no timer stays', async () => {
  const { promise, resolve } = Promise.withResolvers<string>()
  const waiting = patiently(promise, () => 0, PATIENCE)
  await vi.advanceTimersByTimeAsync(900)
  resolve('here')
  expect(await waiting).toBe('here')
  expect(vi.getTimerCount()).toBe(0)
})

test('what fails in time fails as itself', async () => {
  const error = new Error('its own')
  await expect(patiently(Promise.reject(error), () => 0, PATIENCE)).rejects.toBe(error)
  expect(vi.getTimerCount()).toBe(0)
})

test('what makes no progress times out', async () => {
  const outcome = expect(patiently(new Promise(() => {}), () => 7, PATIENCE)).rejects.toMatchObject({
    code: 'timeout',
    message: 'no progress for 1000 ms',
  })
  await vi.advanceTimersByTimeAsync(1200)
  await outcome
  expect(vi.getTimerCount()).toBe(0)
})

test('progress buys time, but not for ever', async () => {
  let progress = 0
  const settled: string[] = []
  const waiting = patiently(new Promise(() => {}), () => progress, PATIENCE).catch((error) =>
    settled.push(error.message),
  )
  for (let i = 0; i < 6; i++) {
    progress++
    await vi.advanceTimersByTimeAsync(800)
    expect(settled).toEqual([])
  }
  await vi.advanceTimersByTimeAsync(400)
  await waiting
  expect(settled).toEqual(['not ready after 5000 ms'])
})

test('what fails after nobody waits any more is no unhandled rejection', async () => {
  const { promise, reject } = Promise.withResolvers<never>()
  const unhandled = vi.fn()
  process.on('unhandledRejection', unhandled)
  const outcome = expect(patiently(promise, () => 0, PATIENCE)).rejects.toMatchObject({ code: 'timeout' })
  await vi.advanceTimersByTimeAsync(1200)
  await outcome
  reject(new Error('late'))
  vi.useRealTimers()
  await new Promise((done) => setTimeout(done, 10))
  process.off('unhandledRejection', unhandled)
  expect(unhandled).not.toHaveBeenCalled()
})

test('a lookup ends before the native side gives it up', () => {
  expect(LOOKUP_PATIENCE).toEqual({ stallMs: 2000, totalMs: 10_000 })
})
