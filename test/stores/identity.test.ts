import { expect, test } from 'vitest'
import type { OpenLayer, Verdict } from '../../src/layer/layer.ts'
import { believeAll, believeNone, diffIdOf, identityOf } from '../../src/stores/identity.ts'
import { digest, proven, refuted } from './store.ts'

const claimed = digest('claimed')
const indexDigest = digest('index')

const layer = (verdict: Verdict | undefined, index: OpenLayer['indexDigest'] = indexDigest) =>
  ({ indexDigest: index, verdict: async () => verdict }) as unknown as OpenLayer // what naming uses of it

const check = (
  title: string,
  of: OpenLayer,
  believed: true | string,
  { alone, either }: { alone: string | RegExp; either: string | RegExp },
) =>
  test(title, async () => {
    const text = (name: Awaited<ReturnType<typeof identityOf>>) => ('why' in name ? name.why : name.digest)
    expect(text(await diffIdOf(of, claimed, believed))).toMatch(alone)
    expect(text(await identityOf(of, claimed, believed))).toMatch(either)
  })

check('an unproven layer goes by its index', layer(undefined), 'not proven', {
  alone: /not proven/,
  either: indexDigest,
})
check('a believed one by its DiffID', layer(undefined), true, { alone: claimed, either: claimed })
check('a proven one by its DiffID', layer(proven(claimed)), 'not proven', { alone: claimed, either: claimed })
check('a false claim by nothing', layer(proven(digest('else'))), true, { alone: /claims/, either: /claims/ })
check('a refuted one by nothing', layer(refuted(claimed)), true, { alone: /quarantined/, either: /quarantined/ })
test('one without an index that is not proven by nothing', async () => {
  const bare = { ...layer(undefined), indexDigest: undefined } as OpenLayer
  expect(await identityOf(bare, claimed, 'not proven')).toEqual({ why: 'not proven' })
})

test('all claims are believed, or none, and then it is said what to do', async () => {
  const image = {} as Parameters<typeof believeAll>[0] // neither looks at it
  expect(await believeAll(image)).toBe(true)
  expect(await believeNone(image)).toContain('pull --prove')
})
