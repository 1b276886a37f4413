import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { collectSoon } from '../../src/format/memory.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

test('a thread collects its garbage once, when it has had nothing to do for a while, and so that the system gets it back', () => {
  const gc = vi.fn()
  vi.stubGlobal('gc', gc)
  collectSoon()
  vi.advanceTimersByTime(900)
  collectSoon()
  vi.advanceTimersByTime(900)
  expect(gc).not.toHaveBeenCalled()
  vi.advanceTimersByTime(60_000)
  expect(gc.mock.calls).toEqual([[{ type: 'major', execution: 'sync', flavor: 'last-resort' }]])
})

test('where V8 does not say how, nothing is collected', () => {
  vi.stubGlobal('gc', undefined)
  collectSoon()
  expect(vi.getTimerCount()).toBe(0)
})
