import { expect, test, vi } from 'vitest'
import { lister } from '../../src/agent/lister.ts'
import { Failure } from '../../src/errors.ts'
import { referenceText } from '../../src/image/reference.ts'
import type { Outcome } from '../../src/stores/image-store.ts'
import type { Patience } from '../../src/stores/patience.ts'

/** Of what comes about by itself; not a duration that matters. */
const WAIT_MS = 120_000

const NOTHING: Outcome = { listed: [], left: [] }
const YES = { ok: true, outcome: NOTHING }
const LATE = { ok: false, what: expect.stringContaining('no progress'), code: 'timeout', late: true }
const app = { op: 'list' as const, reference: 'r.example/app:1' }
const other = { op: 'list' as const, reference: 'r.example/other:1' }

/** Whoever asks is not kept waiting; a listing ends when the test says so. */
function door(patience: Patience = { stallMs: 0, totalMs: 60_000 }) {
  const messages: string[] = []
  const running = new Map<string, PromiseWithResolvers<Outcome>>()
  const remembered: unknown[] = []
  const counts = new Map<string, number>()
  const ask = lister({
    store: {
      list(reference) {
        const key = referenceText(reference)
        const listing = running.get(key) ?? Promise.withResolvers<Outcome>()
        running.set(key, listing)
        counts.set(key, (counts.get(key) ?? 0) + 1)
        return listing.promise
      },
    },
    remember: async ({ repository }, credentials) => void remembered.push([repository, credentials]),
    progress: () => 0,
    patience,
    log: (message) => messages.push(message),
  })
  const end = (key: string, how: (listing: PromiseWithResolvers<Outcome>) => void) => {
    const listing = running.get(key)
    if (listing === undefined) throw new Error(`${key} was not asked for`)
    running.delete(key)
    how(listing)
  }
  return { ask, messages, remembered, end, count: (key: string) => counts.get(key) ?? 0 }
}

test('an image that is late is logged once, however often it is asked for, until it is listed', async () => {
  const { ask, messages, end } = door()
  expect([await ask(app), await ask(app), await ask(app)]).toEqual([LATE, LATE, LATE])
  expect(messages).toEqual([expect.stringMatching(/^r\.example\/app:1: its layers are not listed yet: no progress/)])
  await ask(other)
  expect(messages).toHaveLength(2)
  const last = ask(app)
  end(app.reference, ({ resolve }) => resolve(NOTHING))
  expect(await last).toEqual(YES)
  await ask(app)
  expect(messages).toHaveLength(3)
})

test('what came of a listing that read layers whole is known afterwards, and asking for it begins none', async () => {
  const { ask, end, count } = door()
  const known = { ...app, known: true as const }
  expect(await ask(known)).toEqual({ ok: true })
  await ask(app) // as the auth helper asks
  end(app.reference, ({ resolve }) => resolve(NOTHING))
  await vi.waitFor(async () => expect(await ask(known)).toEqual({ ok: true }), WAIT_MS)
  expect(count(app.reference)).toBe(1)
  await ask({ ...app, prove: 'needed' })
  const left: Outcome = { listed: [], left: [`sha256:${'a'.repeat(64)}`], why: 'it is no tar' }
  end(app.reference, ({ resolve }) => resolve(left))
  await vi.waitFor(async () => expect(await ask(known)).toEqual({ ok: true, outcome: left }), WAIT_MS)
  expect([await ask({ ...other, known: true }), count(app.reference), count(other.reference)]).toEqual([
    { ok: true },
    2,
    0,
  ])
})

test('one that failed is logged each time, with the reason; the answer has what to do', async () => {
  const { ask, messages, end } = door()
  for (let i = 1; i <= 2; i++) {
    await ask(app)
    const last = ask(app)
    end(app.reference, ({ reject }) => reject(Failure.denied('the registry refuses', { why: '401', fix: 'Log in.' })))
    expect(await last).toEqual({
      ok: false,
      what: 'the registry refuses: 401',
      code: 'denied',
      fix: 'Log in.',
      late: false,
    })
  }
  expect(messages).toEqual(
    [1, 2].flatMap(() => [
      expect.stringMatching(/^r\.example\/app:1: its layers are not listed yet: /),
      'r.example/app:1: its layers are not listed: the registry refuses: 401',
    ]),
  )
})

test('one that was late and then fails is logged, though nobody waits for it any more', async () => {
  const { ask, messages, end } = door()
  await ask(app)
  end(app.reference, ({ reject }) => reject(Failure.unavailable('the registry is gone')))
  await ask(other)
  expect(messages).toContain('r.example/app:1: its layers are not listed: the registry is gone')
})

const ada = { username: 'ada', password: 'x' }
const denied = Failure.denied('the registry refuses')

test('credentials that join a listing that was begun without them have it done once more when it is denied', async () => {
  const { ask, messages, end, count } = door({ stallMs: 60_000, totalMs: 60_000 })
  const first = ask(app)
  const second = ask({ ...app, credentials: ada })
  await Promise.resolve()
  expect(count(app.reference)).toBe(1)
  end(app.reference, ({ reject }) => reject(denied))
  expect(await first).toMatchObject({ ok: false, code: 'denied' })
  await vi.waitFor(() => expect(count(app.reference)).toBe(2), WAIT_MS)
  end(app.reference, ({ resolve }) => resolve(NOTHING))
  expect(await second).toEqual(YES)
  expect(messages).toEqual([])
})

test('what was refused twice is logged once, and what failed otherwise before it was tried again, too', async () => {
  const { ask, messages, end, count } = door({ stallMs: 60_000, totalMs: 60_000 })
  for (const error of [denied, Failure.missing('no such image')]) {
    const before = count(app.reference)
    const both = [ask(app), ask({ ...app, credentials: ada })]
    await vi.waitFor(() => expect(count(app.reference)).toBe(before + 1), WAIT_MS)
    await Promise.resolve()
    end(app.reference, ({ reject }) => reject(error))
    if (error === denied) {
      await vi.waitFor(() => expect(count(app.reference)).toBe(before + 2), WAIT_MS)
      end(app.reference, ({ reject }) => reject(Failure.denied('the registry refuses ada')))
    }
    for (const each of both) expect(await each).toMatchObject({ ok: false, code: error.code })
  }
  expect(messages).toEqual(
    ['the registry refuses ada', 'no such image'].map((why) => `r.example/app:1: its layers are not listed: ${why}`),
  )
})

test('credentials that are refused themselves, and listings that fail otherwise, are not tried again', async () => {
  const { ask, end, count } = door({ stallMs: 60_000, totalMs: 60_000 })
  const own = ask({ ...app, credentials: ada })
  await vi.waitFor(() => expect(count(app.reference)).toBe(1), WAIT_MS)
  end(app.reference, ({ reject }) => reject(denied))
  expect(await own).toMatchObject({ ok: false, code: 'denied' })
  const first = ask(app)
  const joined = ask({ ...app, credentials: ada })
  const gone = Failure.missing('no such image')
  await vi.waitFor(() => expect(count(app.reference)).toBe(2), WAIT_MS)
  await Promise.resolve()
  end(app.reference, ({ reject }) => reject(gone))
  expect(await Promise.all([first, joined])).toEqual(
    [first, joined].map(() => expect.objectContaining({ code: 'missing' })),
  )
  expect(count(app.reference)).toBe(2)
})

test('images that are listed at once have a bound; one that is under way may still be asked for', async () => {
  const { ask, messages } = door()
  const images = Array.from({ length: 1_000 }, (_, i) => ({ ...app, reference: `r.example/app:${i}` }))
  await Promise.all(images.map((each) => ask(each)))
  messages.length = 0
  expect(await ask(other)).toEqual({
    ok: false,
    what: expect.stringContaining('1000 images'),
    code: 'limit',
    fix: expect.any(String),
    late: false,
  })
  expect(await ask(app)).toEqual(LATE)
  expect(messages).toEqual([expect.stringContaining('r.example/other:1: its layers are not listed: 1000 images')])
})

test('credentials are kept for a registry, before it is asked', async () => {
  const { ask, remembered } = door()
  const credentials = { username: 'ada', password: 'x' }
  await ask({ ...app, credentials })
  await ask({ op: 'list', reference: 'oci:/nowhere:1', credentials })
  expect(remembered).toEqual([['app', credentials]])
})
