import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { LIMITS } from '../../src/registry/limits.ts'
import { isPassing, passing, pauseMs, retry, retryAfterMs } from '../../src/registry/retry.ts'

const limits = { ...LIMITS, pauseMs: 1, pauseMaxMs: 4 }
const stumble = (afterMs = 0) => passing(Failure.unavailable('x'), afterMs)

test('a passing failure is tried again, at most so often', async () => {
  let tries = 0
  let counted = 0
  const attempt = async () => {
    if (++tries < 3) throw stumble()
    return tries
  }
  expect(await retry(attempt, limits, undefined, () => counted++)).toBe(3)
  expect(counted).toBe(2)
  tries = -100
  await expect(retry(attempt, limits, undefined, () => {})).rejects.toMatchObject({
    name: 'Failure',
    code: 'unavailable',
  })
  expect(tries).toBe(-100 + limits.attempts)
})

test('tries do not multiply where one retry runs within another', async () => {
  let tries = 0
  const attempt = async () => {
    tries++
    throw stumble()
  }
  const inner = () => retry(attempt, limits, undefined, () => {})
  const error: unknown = await retry(inner, limits, undefined, () => {}).catch((error: unknown) => error)
  expect(error).toMatchObject({ code: 'unavailable' })
  expect(isPassing(error)).toBe(false)
  expect(tries).toBe(limits.attempts)
})

test('a failure for good is not tried again', async () => {
  let tries = 0
  const attempt = async () => {
    tries++
    throw Failure.missing('x')
  }
  await expect(retry(attempt, limits, undefined, () => {})).rejects.toMatchObject({ code: 'missing' })
  expect(tries).toBe(1)
})

test('a Retry-After is obeyed when bounded, else it is the answer', async () => {
  let tries = 0
  const begun = performance.now()
  await retry(
    async () => (++tries === 1 ? Promise.reject(stumble(60)) : 0),
    limits,
    undefined,
    () => {},
  )
  expect(performance.now() - begun).toBeGreaterThanOrEqual(55)
  tries = 0
  const refuse = async () => {
    tries++
    throw stumble(limits.retryAfterMaxMs + 1)
  }
  const late = retry(refuse, limits, undefined, () => {})
  await expect(late).rejects.toMatchObject({ code: 'unavailable' })
  expect(tries).toBe(1)
})

test('a pause ends when the caller gives up', async () => {
  const stop = new AbortController()
  const waiting = retry(
    async () => Promise.reject(stumble(10_000)),
    limits,
    stop.signal,
    () => {},
  )
  setTimeout(() => stop.abort(), 10)
  await expect(waiting).rejects.toMatchObject({ code: 'aborted' })
})

test('pauses double, are jittered by half, and end growing', () => {
  const of = { ...LIMITS, pauseMs: 100, pauseMaxMs: 300 }
  expect([1, 2, 3, 4].map((tries) => pauseMs(tries, of, 0))).toEqual([50, 100, 150, 150])
  expect([1, 2, 3, 4].map((tries) => pauseMs(tries, of, 1))).toEqual([100, 200, 300, 300])
})

test('Retry-After is seconds or a date', () => {
  const now = Date.parse('2026-03-01T12:00:00Z')
  expect(retryAfterMs('3', now)).toBe(3000)
  expect(retryAfterMs('Sun, 01 Mar 2026 12:00:05 GMT', now)).toBe(5000)
  expect(retryAfterMs('Sun, 01 Mar 2026 11:00:00 GMT', now)).toBe(0)
  for (const header of [undefined, '', 'soon', '-1']) expect(retryAfterMs(header, now), header).toBe(0)
})
