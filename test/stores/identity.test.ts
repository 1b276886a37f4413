import { expect, test } from 'vitest'
import { DIFF_ID_POLICIES, type Dialect, type DiffIdPolicy, whyHidden } from '../../src/stores/identity.ts'

test('a layer goes by its index under every policy, by its DiffID only where claims are believed', () => {
  const dialects: Dialect[] = ['index', 'layer']
  const shown = DIFF_ID_POLICIES.flatMap((policy: DiffIdPolicy) =>
    dialects.filter((dialect) => whyHidden(dialect, policy) === undefined).map((dialect) => `${policy} ${dialect}`),
  )
  expect(shown).toEqual(['proven index', 'claimed index', 'claimed layer'])
})

test('who is refused is told what to do', () => {
  expect(whyHidden('layer', 'proven')).toContain('--diffid claimed')
})
