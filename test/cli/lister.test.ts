import { expect, test } from 'vitest'
import { lister } from '../../src/cli/lister.ts'
import { Failure } from '../../src/errors.ts'
import { referenceText } from '../../src/image/reference.ts'
import type { Outcome } from '../../src/stores/ais.ts'

const NOTHING: Outcome = { listed: [], left: [] }
const YES = { ok: true, outcome: NOTHING }
const LATE = { ok: false, what: expect.stringContaining('no progress'), late: true }
const app = { op: 'list' as const, reference: 'r.example/app:1' }
const other = { op: 'list' as const, reference: 'r.example/other:1' }

/** Whoever asks is not kept waiting; a listing ends when the test says so. */
function door() {
  const messages: string[] = []
  const running = new Map<string, PromiseWithResolvers<Outcome>>()
  const remembered: unknown[] = []
  const ask = lister({
    store: {
      list(reference) {
        const key = referenceText(reference)
        const listing = running.get(key) ?? Promise.withResolvers<Outcome>()
        running.set(key, listing)
        return listing.promise
      },
    },
    remember: async ({ repository }, credentials) => void remembered.push([repository, credentials]),
    progress: () => 0,
    patience: { stallMs: 0, totalMs: 60_000 },
    log: (message) => messages.push(message),
  })
  const end = (key: string, how: (listing: PromiseWithResolvers<Outcome>) => void) => {
    const listing = running.get(key)
    if (listing === undefined) throw new Error(`${key} was not asked for`)
    running.delete(key)
    how(listing)
  }
  return { ask, messages, remembered, end }
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

test('one that failed is logged each time, with the reason; the answer has what to do', async () => {
  const { ask, messages, end } = door()
  for (let i = 1; i <= 2; i++) {
    await ask(app)
    const last = ask(app)
    end(app.reference, ({ reject }) => reject(Failure.denied('the registry refuses', { why: '401', fix: 'Log in.' })))
    expect(await last).toEqual({ ok: false, what: 'the registry refuses: 401', fix: 'Log in.', late: false })
  }
  expect(messages).toEqual(
    [1, 2].flatMap(() => [
      expect.stringMatching(/^r\.example\/app:1: its layers are not listed yet: /),
      'r.example/app:1: its layers are not listed: the registry refuses: 401',
    ]),
  )
})

test('credentials are kept for a registry, before it is asked', async () => {
  const { ask, remembered } = door()
  const credentials = { username: 'ada', password: 'x' }
  await ask({ ...app, credentials })
  await ask({ op: 'list', reference: 'oci:/nowhere:1', credentials })
  expect(remembered).toEqual([['app', credentials]])
})
