import { expect, test } from 'vitest'
import type { Unit } from '../../src/format/format.ts'
import type { Digest } from '../../src/image/digest.ts'
import { type Descriptor, DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import type { Verdict } from '../../src/layer/layer.ts'
import { decide, diffIdOf, type Evidence, type LayerEvidence, trustAll, trustNone } from '../../src/stores/identity.ts'
import { OCI_MANIFEST } from '../fake/image.ts'
import { digest, lazy, plain, proven, refuted } from './store.ts'

const claimed = digest('claimed')
const indexDigest = digest('index of layer')

const open = (
  verdict: Verdict | undefined,
  trusted: true | string,
  index: Digest | undefined = indexDigest,
): LayerEvidence => ({
  is: 'open',
  indexDigest: index,
  verdict,
  together: undefined,
  trusted,
})

/** An image of layers that claim this DiffID, all of them. */
const imageOf = (layers: readonly Descriptor[], mediaType = OCI_MANIFEST) => ({
  manifest: { mediaType, layers },
  config: { diffIds: layers.map(() => claimed) },
})

function decided(opened: LayerEvidence, facts: Partial<Evidence> = {}, image = imageOf([lazy('layer')])): string {
  const { names, why } = decide(image, { layers: [opened], isAmbiguous: () => false, ...facts })
  return why ?? `${names[0]?.by} ${names[0]?.digest}`
}

const check = (
  title: string,
  verdict: Verdict | undefined,
  trusted: true | string,
  { alone, either }: { alone: string | RegExp; either: string | RegExp },
) =>
  test(title, () => {
    const name = diffIdOf({ verdict, together: undefined }, claimed, trusted)
    expect('why' in name ? name.why : name.digest).toMatch(alone)
    expect(decided(open(verdict, trusted))).toMatch(either)
  })

check('an unproven layer goes by its index', undefined, 'not proven', {
  alone: /not proven/,
  either: `index ${indexDigest}`,
})
const byDiffId = { alone: claimed, either: `diffid ${claimed}` }
check('a trusted one by its DiffID', undefined, true, byDiffId)
check('a proven one by its DiffID', proven(claimed), 'not proven', byDiffId)
check('a false claim by nothing', proven(digest('else')), true, { alone: /claims/, either: /claims/ })
check('a refuted one by nothing', refuted(claimed), true, { alone: /quarantined/, either: /quarantined/ })

test('one without an index that is not proven by nothing', () => {
  const { names, why } = decide(imageOf([plain('layer')]), {
    layers: [{ ...open(undefined, 'not proven'), indexDigest: undefined } as LayerEvidence],
    isAmbiguous: () => false,
  })
  expect([names, why]).toEqual([[], 'not proven'])
})

test('an index is no name where engines cannot tell images apart by it, or look for none', () => {
  const unproven = open(undefined, 'not proven')
  expect(decided(unproven, { isAmbiguous: (index) => index === indexDigest })).toContain('cannot tell images apart')
  expect(decided(unproven, {}, imageOf([lazy('layer')], DOCKER_MANIFEST))).toContain('in a Docker manifest')
  // who bears its DiffID needs none
  expect(decided(open(proven(claimed), 'no'), { isAmbiguous: () => true })).toBe(`diffid ${claimed}`)
})

test('layers of which the index of their tree says nothing go by nothing, whatever is trusted', () => {
  const unit = { layers: [lazy('layer'), lazy('top')], shown: lazy('top') } as unknown as Unit
  const together = { unit, shows: false, hasChunks: true, parts: undefined }
  expect(decided({ ...open(undefined, true), together } as LayerEvidence)).toContain('one tree for several layers')
})

test('what was listed before is named as it was, or not at all', () => {
  const as = (by: 'diffid' | 'index', ...proven: boolean[]) => ({ before: { by: [by], proven } })
  expect(decided(open(proven(claimed), 'no'), as('index'))).toBe(`index ${indexDigest}`)
  expect(decided(open(undefined, 'no'), { ...as('index'), isAmbiguous: () => true })).toBe(`index ${indexDigest}`)
  expect(decided(open(undefined, 'not proven'), as('diffid'))).toBe('not proven')
  expect(decided({ is: 'quarantined', index: indexDigest }, as('diffid'))).toBe(`diffid ${claimed}`)
  expect(decided({ is: 'quarantined', index: indexDigest }, as('index'))).toBe(`index ${indexDigest}`)
  expect(decided({ is: 'quarantined', index: indexDigest })).toBe('it is quarantined')
})

test('a chain ends below the first layer without a name, and tells whether another try may bring more', () => {
  const image = imageOf(['base', 'middle', 'top'].map((name) => lazy(name)))
  const named = (name: string) => open(undefined, 'not proven', digest(`index of ${name}`))
  const layers: LayerEvidence[] = [named('base'), { is: 'closed', why: 'it is away', passing: true }, named('top')]
  const isAmbiguous = () => false
  expect(decide(image, { layers, isAmbiguous })).toEqual({
    names: [{ by: 'index', digest: digest('index of base') }],
    why: 'it is away',
    passing: true,
  })
  const lost = { by: ['diffid', 'diffid'], proven: [false, true] } as const
  const trusted = open(undefined, true)
  expect(decide(image, { layers: [trusted, open(undefined, 'no')], isAmbiguous, before: lost })).toEqual({
    names: [{ by: 'diffid', digest: claimed }],
    why: 'no',
    passing: true, // its proof was lost
  })
  expect(decide(image, { layers: [named('base')], isAmbiguous }).why).toBeUndefined()
})

test('all claims are trusted, or none, and then it is said what to do', async () => {
  const image = {} as Parameters<typeof trustAll>[0] // neither looks at it
  expect(await trustAll(image)).toBe(true)
  expect(await trustNone(image)).toContain('pull --prove')
})
