import { expect, test } from 'vitest'
import { store } from '../../../src/cli/doctor/store.ts'
import type { Seen } from '../../../src/engines/machine.ts'
import { DIRECTORY, files, summary } from './machine.ts'

const ROOT = '/srv/lazy/store'
const open: Seen = { ...DIRECTORY, mode: 0o755 }

test.each<[string, Record<string, Seen>, 'ok' | 'warning' | 'problem', RegExp]>([
  ['not there', {}, 'ok', /is not there/],
  ['hung', { [ROOT]: { ...DIRECTORY, kind: 'hung' } }, 'ok', /not to be looked at/],
  ['closed itself', { [ROOT]: DIRECTORY, '/srv/lazy': open, '/srv': open, '/': open }, 'ok', /closed to other users$/],
  ['closed above', { [ROOT]: open, '/srv/lazy': DIRECTORY, '/srv': open, '/': open }, 'ok', /users by \/srv\/lazy$/],
  ['closed far above', { [ROOT]: open, '/srv/lazy': open, '/srv': DIRECTORY, '/': open }, 'ok', /users by \/srv$/],
  ['listed, not entered', { [ROOT]: { ...open, mode: 0o744 }, '/srv/lazy': open, '/': open }, 'ok', /closed to other/],
  [
    'open',
    { [ROOT]: open, '/srv/lazy': open, '/srv': open, '/': open },
    'warning',
    /\(0755\).*private.*without --store-mode/,
  ],
  ['open to a group', { [ROOT]: { ...open, mode: 0o750 }, '/srv/lazy': open, '/': open }, 'warning', /\(0750\)/],
  ['of somebody else', { [ROOT]: { ...DIRECTORY, uid: 9 } }, 'problem', /belongs to user 9/],
])('a store that is %s', async (_, seen, state, text) => {
  const found = summary(await store.run({ real: ROOT, uid: 0, files: files({ seen }) }))
  expect(found).toEqual({ state, text: expect.stringMatching(text) })
})
