// What images say of DiffIDs and blobs, and who is right.
import { describe, expect, test } from 'vitest'
import { areRivals, type NameClaim } from '../../src/stores/name-claim.ts'
import { NameClaims } from '../../src/stores/name-claims.ts'
import { digest, proven, refuted } from './store.ts'

const claim = (diffId: string, blob: string, index?: string, tree?: string): NameClaim => ({
  diffId: digest(diffId),
  blob: digest(blob),
  index: index === undefined ? undefined : digest(index),
  tree: tree === undefined ? undefined : digest(tree),
  together: false,
})
const good = claim('tar', 'good', 'index', 'tree')

/** Claims with a door, and what it was told. */
function watched(max?: number) {
  const claims = new NameClaims(max)
  const told: string[] = []
  const name = ({ blob }: NameClaim) => ['good', 'evil', 'other'].find((each) => digest(each) === blob)
  claims.watch({
    hide: (of, why) => void told.push(`${name(of)} ${why}`),
    prove: (of) => void told.push(`${name(of)} proven`),
  })
  return { claims, told }
}

describe('two images are rivals about a layer when', () => {
  const check = (what: string, other: NameClaim, expected: boolean, one = good) =>
    test(`${what}${expected ? '' : ': no'}`, () => {
      expect([areRivals(one, other), areRivals(other, one)]).toEqual([expected, expected])
    })
  check('one DiffID is of two blobs', claim('tar', 'evil', 'index', 'tree'), true)
  check('one blob has two DiffIDs', claim('another tar', 'good', 'index', 'tree'), true)
  check('one blob is two trees', claim('tar', 'good', 'index', 'another tree'), true)
  check('one blob is read by two indexes, as far as is known', claim('tar', 'good', 'another index'), true)
  check('one blob is unpacked by one of them, and read by the other', claim('tar', 'good'), true)
  check('one of them shows it together with other layers', { ...good, together: true }, true)
  check('they say the same', { ...good }, false)
  check('two indexes make one tree', claim('tar', 'good', 'another index', 'tree'), false)
  check('the tree is not known yet that one index makes', claim('tar', 'good', 'index'), false)
  check('they have nothing in common', claim('x', 'evil', 'index', 'tree'), false)
})

test('a layer is contested as long as another image is not known to be wrong', () => {
  const { claims } = watched()
  claims.show(good, false)
  expect(claims.isContested(good)).toBe(false)
  claims.tell(claim('tar', 'evil', 'evil index', 'evil tree'))
  expect(claims.isContested(good)).toBe(true)
  claims.judged({ blob: digest('evil'), tree: digest('evil tree') }, proven(digest('its own tar')))
  expect(claims.isContested(good)).toBe(false)
})

test('what a whole blob says decides every claim about it: of its DiffID whatever is shown, of a tree for that tree', () => {
  const { claims, told } = watched()
  const lie = claim('tar', 'good', 'lie', 'lying tree')
  const thief = claim('stolen', 'good', 'index', 'tree')
  const unopened = claim('stolen', 'good')
  for (const each of [good, lie, thief, unopened]) claims.show(each, false)
  claims.judged({ blob: digest('good'), tree: digest('tree') }, proven(digest('tar')))
  expect([good, lie, thief, unopened].map((each) => claims.standing(each))).toEqual([
    'proven',
    'said',
    'false',
    'false',
  ])
  claims.judged({ blob: digest('good'), tree: digest('lying tree') }, refuted(digest('tar')))
  expect(claims.standing(lie)).toBe('false')
  expect(told).toEqual(['good proven', 'good false', 'good false', 'good false'])
})

test('only what is shown and not proven can be withheld, and is until it is proven or found false', () => {
  const { claims, told } = watched()
  claims.tell(good)
  expect(claims.withhold(good)).toBe(false)
  claims.show(good, false)
  expect([claims.withhold(good), claims.withhold(good)]).toEqual([true, false])
  const layer = { descriptor: { digest: good.blob }, tree: digest('tree') }
  expect(claims.statusOf(layer, good.diffId)).toBe('withheld')
  expect(claims.statusOf(layer, digest('another'))).toBeUndefined()
  expect(claims.believedRivals(claim('tar', 'other'))).toEqual([])
  claims.judged({ blob: good.blob, tree: layer.tree }, proven(good.diffId))
  expect(claims.statusOf(layer, good.diffId)).toBeUndefined()
  expect(claims.withhold(good)).toBe(false)
  expect(told).toEqual(['good withheld', 'good proven'])
})

test('what an earlier process withheld is contested, and has no files, until it is proven', () => {
  const { claims } = watched()
  claims.withheldBefore(good)
  claims.show(good, false)
  const layer = { descriptor: { digest: good.blob }, tree: digest('tree') }
  expect([claims.isContested(good), claims.statusOf(layer, good.diffId)]).toEqual([true, 'withheld'])
  claims.show(good, true)
  expect([claims.isContested(good), claims.statusOf(layer, good.diffId)]).toEqual([false, undefined])
})

test('what was said before a layer was open is not said by another', () => {
  const { claims } = watched()
  claims.show(good, false)
  claims.tell(claim('tar', 'good', 'another index'))
  expect(claims.isContested(good)).toBe(true)
  claims.tell(claim('tar', 'good', 'another index', 'tree'))
  expect(claims.isContested(good)).toBe(false)
})

test('what is said the longest ago is forgotten, but nothing that is shown and only believed; then no more is remembered', () => {
  const { claims } = watched(3)
  for (const each of ['a', 'b', 'c', 'd']) expect(claims.tell(claim(each, each))).toBe(true)
  expect(claims.size).toBe(3)
  for (const each of ['b', 'c', 'd']) claims.show(claim(each, each), false)
  expect(claims.tell(claim('e', 'e'))).toBe(false)
  expect(claims.show(claim('e', 'e'), true)).toBe(true)
  claims.judged({ blob: digest('b'), tree: digest('x') }, proven(digest('false')))
  expect(claims.tell(claim('e', 'e'))).toBe(true)
})

test('of one DiffID a bounded number of claims is remembered; of one that has more nothing is believed from then on', () => {
  const { claims } = watched()
  claims.show(good, false)
  for (let i = 0; i < 1000; i++) claims.tell(claim('tar', `evil ${i}`, 'index', `tree ${i}`))
  expect(claims.size).toBe(64)
  for (let i = 0; i < 1000; i++) {
    claims.judged({ blob: digest(`evil ${i}`), tree: digest(`tree ${i}`) }, proven(digest('its own tar')))
  }
  // somebody who is right may be among those that are not remembered
  expect(claims.isContested(good)).toBe(true)
  expect(claims.isContested(claim('another tar', 'another blob'))).toBe(false)
})
