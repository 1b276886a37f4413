import { expect, test } from 'vitest'
import { ASK_BURST, ASK_EVERY_MS, AskLimit } from '../../src/stores/ask-limit.ts'

function make() {
  const messages: string[] = []
  let now = 5_000
  const limit = new AskLimit(
    (message) => void messages.push(message),
    () => now,
  )
  return {
    messages,
    pass: (ms: number) => {
      now += ms
    },
    /** How many of `times` this user may ask. */
    ask: (uid: number, times: number) => Array.from({ length: times }, () => limit.takes(uid)).filter(Boolean).length,
  }
}

test('root asks as it likes', () => {
  const { ask, messages } = make()
  expect(ask(0, 100_000)).toBe(100_000)
  expect(messages).toEqual([])
})

test('a user asks so often at once, then as time passes; no other user notices, and root does not', () => {
  const { ask, pass, messages } = make()
  expect(ask(1000, ASK_BURST + 50)).toBe(ASK_BURST)
  expect(ask(1001, ASK_BURST)).toBe(ASK_BURST)
  expect(ask(0, 1_000)).toBe(1_000)
  pass(ASK_EVERY_MS - 1)
  expect(ask(1000, 5)).toBe(0)
  pass(1)
  expect(ask(1000, 5)).toBe(1)
  pass(7 * ASK_EVERY_MS)
  expect(ask(1000, 50)).toBe(7)
  expect(messages).toEqual([expect.stringContaining('user 1000 asks for too many layers')])
})

test('it heals by itself, and is said again when it comes again', () => {
  const { ask, pass, messages } = make()
  for (let i = 0; i < 3; i++) {
    expect(ask(1000, ASK_BURST + 50)).toBe(ASK_BURST)
    pass(1_000 * ASK_BURST * ASK_EVERY_MS) // never more than at first
  }
  expect(messages).toHaveLength(3)
})

test('a user with thousands of user IDs gets no more than ten users', () => {
  const { ask, pass, messages } = make()
  let asked = 0
  for (let uid = 100_000; uid < 165_536; uid++) asked += ask(uid, 1)
  expect(asked).toBe(10 * ASK_BURST)
  expect(messages).toEqual([expect.stringContaining('users other than root ask')])
  expect(ask(0, 10)).toBe(10)
  pass(ASK_EVERY_MS)
  expect(ask(1000, 20)).toBe(10)
})

test('a clock that stands still or is asked in vain changes nothing', () => {
  const { ask, pass } = make()
  for (let i = 0; i < 10 * ASK_BURST; i++) {
    ask(1000, 1)
    pass(0)
  }
  expect(ask(1000, 1)).toBe(0)
})
