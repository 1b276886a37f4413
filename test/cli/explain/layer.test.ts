import { expect, test } from 'vitest'
import { type LayerFacts, type LayerWay, waysOf } from '../../../src/cli/explain/layer.ts'
import { ERAS, type Era } from '../../../src/engines/versions.ts'

const UNBELIEVED = { why: 'the DiffID is nobody’s', fix: 'Have it proven.' }
const LAZY: LayerFacts = { format: { name: 'a format' }, proven: false, believed: UNBELIEVED }
const PLAIN: LayerFacts = { ...LAZY, format: { why: 'a plain layer' } }
const UNNAMED = { why: 'no index names it', fix: 'Do something about it' }
const NAMELESS: LayerFacts = { ...LAZY, format: { name: 'a format', unnamed: UNNAMED } }
const FETCHED: LayerFacts = { ...LAZY, format: { name: 'a format', unnamed: { ...UNNAMED, whole: true } } }
const claimed = (of: LayerFacts): LayerFacts => ({ ...of, believed: 'claimed' })
const signed = (of: LayerFacts): LayerFacts => ({ ...of, believed: 'signed' })
const belied = (of: LayerFacts): LayerFacts => ({ ...of, believed: { ...UNBELIEVED, false: true } })
const proven = (of: LayerFacts) => ({ ...of, proven: true })

const short = (way: LayerWay) =>
  way.door === undefined ? 'pulled' : `${way.door} ${way.identity}${way.lazy ? '' : ' whole'}`
const column = (layers: readonly LayerFacts[], era: Era) => waysOf(layers).map((each) => short(each[era]))

test.each<[string, LayerFacts, string, string, string]>([
  ['an index, nothing proven', LAZY, 'pulled', 'layers index', 'images index'],
  ['an index, DiffIDs believed', claimed(LAZY), 'layers claimed', 'layers index', 'images claimed'],
  ['an index, DiffIDs signed', signed(LAZY), 'layers signed', 'layers index', 'images signed'],
  ['an index, proven', proven(LAZY), 'layers proven', 'layers index', 'images proven'],
  ['an index, proven, DiffIDs believed', proven(claimed(LAZY)), 'layers proven', 'layers index', 'images proven'],
  ['an index, a DiffID that is known to be another', belied(LAZY), 'pulled', 'layers index', 'pulled'],
  ['an index that does not name it', NAMELESS, 'pulled', 'pulled', 'pulled'],
  ['such an index, DiffIDs believed', claimed(NAMELESS), 'layers claimed', 'images claimed', 'images claimed'],
  ['such an index, proven', proven(NAMELESS), 'layers proven', 'images proven', 'images proven'],
  ['such an index, a DiffID that is known to be another', belied(NAMELESS), 'pulled', 'pulled', 'pulled'],
  ['such an index, fetched', FETCHED, 'images proven whole', 'images proven whole', 'images proven whole'],
  ['such an index, fetched, DiffIDs signed', signed(FETCHED), 'layers signed', 'images signed', 'images signed'],
  ['such an index, fetched, another DiffID', belied(FETCHED), 'pulled', 'pulled', 'pulled'],
  ['a plain layer', PLAIN, 'pulled', 'pulled', 'pulled'],
  ['a plain layer, DiffIDs believed', claimed(PLAIN), 'pulled', 'pulled', 'pulled'],
  ['a plain layer, DiffIDs signed', signed(PLAIN), 'pulled', 'pulled', 'pulled'],
  ['a plain layer, proven', proven(PLAIN), 'layers proven whole', 'images proven whole', 'images proven whole'],
])('%s: old, middle and new engines get it so', (_, facts, ...expected) => {
  expect(ERAS.map((era) => column([facts], era)[0])).toEqual(expected)
})

test('a small layer that is fetched for lazy ones above it ends no chain in the image store, and is in no layer store', () => {
  const layers = [{ ...PLAIN, format: { why: 'a plain layer', small: true as const } }, LAZY]
  expect(column(layers, 'image')).toEqual(['images proven whole', 'images index'])
  expect(column(layers, 'index')).toEqual(['images proven whole', 'layers index'])
})

test('what is believed and was not listed is in the layer store alone, and ends the chain in the image store, with the reason', () => {
  const unlisted = { why: 'another image claims it', fix: 'Have it proven.' }
  const layers = [{ ...claimed(LAZY), unlisted }, claimed(LAZY)]
  expect(column(layers, 'layer')).toEqual(['layers claimed', 'layers claimed'])
  expect(column(layers, 'image')).toEqual(['pulled', 'pulled'])
  const [first, second] = waysOf(layers)
  expect(first?.image).toEqual({
    door: undefined,
    why: 'another image claims it, so the engine pulls it',
    fix: 'Have it proven.',
  })
  expect(second?.image.why).toContain('a layer below it')
})

test('the image store has nothing above a layer that it has not; the layer store has', () => {
  const layers = [LAZY, PLAIN, LAZY, proven(PLAIN)]
  expect(column(layers, 'image')).toEqual(['images index', 'pulled', 'pulled', 'pulled'])
  expect(column(layers, 'index')).toEqual(['layers index', 'pulled', 'layers index', 'pulled'])
})

test('a layer that comes through the layer store is in the image store too, so that the next can be', () => {
  expect(column([LAZY, proven(PLAIN)], 'index')).toEqual(['layers index', 'images proven whole'])
})

test('a layer that is in no store ends the chain in the image store, not in the layer store', () => {
  expect(column([LAZY, proven(PLAIN)], 'layer')).toEqual(['pulled', 'layers proven whole'])
  expect(column([PLAIN, proven(PLAIN)], 'image')).toEqual(['pulled', 'pulled'])
})

test('whatever is pulled has a reason and something to do', () => {
  for (const ways of waysOf([NAMELESS, belied(LAZY), PLAIN, LAZY, proven(PLAIN), claimed(PLAIN)])) {
    for (const era of ERAS) {
      const way = ways[era]
      if (way.door !== undefined) continue
      expect(way.why).toMatch(/, so the engine pulls it/)
      expect(way.fix).toMatch(/^[A-Z].*\.$/)
    }
  }
})

test('what to do about a layer is to convert it, unless something else is known', () => {
  const [plain, quarantined] = waysOf([PLAIN, { ...LAZY, format: { why: 'quarantined', fix: 'Ask who made it.' } }])
  expect(plain?.layer).toMatchObject({ fix: expect.stringMatching(/Convert.*lazylayer pull IMAGE\.$/) })
  expect(quarantined?.layer).toMatchObject({ why: expect.stringContaining('quarantined'), fix: 'Ask who made it.' })
})

test('where no index names a layer, that is said, and how one would, or that the agent fetches it', () => {
  const [nameless] = waysOf([NAMELESS])
  expect(nameless?.image).toEqual({
    door: undefined,
    why: 'no index names it, so the engine pulls it',
    fix: expect.stringMatching(/^Do something about it, or .*lazylayer pull IMAGE\.$/),
  })
  expect(nameless?.index).toEqual(nameless?.image)
  expect(nameless?.layer).toMatchObject({ fix: UNBELIEVED.fix })
  const [fetched] = waysOf([FETCHED])
  expect(fetched?.image.why).toBe('no index names it, so the agent fetches it whole when the image is listed')
})

test('above a layer that no index names nothing is in the image store, unless the agent fetches it', () => {
  expect(column([NAMELESS, proven(PLAIN)], 'index')).toEqual(['pulled', 'pulled'])
  expect(column([FETCHED, proven(PLAIN)], 'index')).toEqual(['images proven whole', 'images proven whole'])
})

test('the reason names what is wrong with the layer itself', () => {
  const [first, second] = waysOf([PLAIN, LAZY])
  expect(first?.image.why).toContain('a plain layer')
  expect(second?.image.why).toContain('a layer below it')
  expect(second?.layer).toMatchObject({ why: expect.stringContaining('the DiffID is nobody’s'), fix: UNBELIEVED.fix })
})
