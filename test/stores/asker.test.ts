import { expect, test } from 'vitest'
import { UNKNOWN_UID } from '../../src/mount/native.ts'
import { ASK_BURST } from '../../src/stores/ask-limit.ts'
import { askers, onlyRootAsks } from '../../src/stores/asker.ts'

test('somebody who is not seen is one user, root asks as it likes, and in a closed store everybody is root', () => {
  const asker = askers(() => {})
  for (let i = 0; i < ASK_BURST; i++) expect(asker(UNKNOWN_UID)).toBe('user')
  expect(asker(UNKNOWN_UID)).toBe('refused')
  expect(asker(1000)).toBe('user')
  expect(asker(0)).toBe('root')
  expect(onlyRootAsks(UNKNOWN_UID)).toBe('root')
})
