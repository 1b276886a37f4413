import { expect, test } from 'vitest'
import { ASK_BURST } from '../../src/stores/ask-limit.ts'
import { askers, onlyRootAsks, userIn } from '../../src/stores/asker.ts'

const status = (uids: string) => `Name:\tls\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t${uids}\nGid:\t9\t9\t9\t9\n`

test.each([
  ['root', status('0\t0\t0\t0'), 0],
  ['a user', status('1000\t1000\t1000\t1000'), 1000],
  ["a user's set-user-ID program", status('1000\t0\t0\t0'), 1000],
  ['a server of root that looks for a user', status('0\t0\t0\t33'), 33],
  ['a program that drops root for a while', status('0\t33\t0\t33'), 33],
  ['one that calls itself as its user', `Name:\tUid:\t0\n${status('7\t7\t7\t7')}`, 7],
  ['nobody that can be seen', '', -1],
  ['something else', 'Uid:\t0\n', -1],
])('the user of %s', (_, text, uid) => {
  expect(userIn(text)).toBe(uid)
})

test('a thread that is not seen is a user; this one is whose it is; in a closed store everybody is root', async () => {
  const asker = askers(() => {})
  const own = process.geteuid?.()
  expect(await asker(process.pid)).toBe(own)
  for (let i = 0; i < ASK_BURST; i++) expect(await asker(0)).toBe(-1)
  expect(await asker(0)).toBe('refused')
  expect(await asker(process.pid)).toBe(own)
  expect(await onlyRootAsks(0)).toBe(0)
})
