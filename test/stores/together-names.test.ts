import { expect, test } from 'vitest'
import type { Unit } from '../../src/format/format.ts'
import { DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import { whyNotTogether } from '../../src/stores/together-names.ts'
import { OCI_MANIFEST } from '../fake/image.ts'
import { digest, plain } from './store.ts'

const [base, one, two, tree] = ['base', 'one', 'two', 'tree'].map((name) => plain(name)) as [
  ReturnType<typeof plain>,
  ReturnType<typeof plain>,
  ReturnType<typeof plain>,
  ReturnType<typeof plain>,
]

const small = plain('small', 511)

interface Case {
  unit?: readonly (typeof base)[]
  shown?: typeof base
  image?: readonly (typeof base)[]
  parts?: readonly (typeof base)[] | undefined
  diffIds?: readonly (typeof base.digest)[]
  mediaType?: string
}

function why({ unit = [one, two, tree], shown = tree, image = unit, mediaType = OCI_MANIFEST, ...more }: Case) {
  const parts = 'parts' in more ? more.parts : [one, two]
  const { diffIds = image.map((each) => (each === tree ? digest('its tar') : each.digest)) } = more
  const together = { unit: { layers: unit, shown } as unknown as Unit, shows: true, hasChunks: false, parts }
  return whyNotTogether({ manifest: { mediaType, layers: image }, config: { diffIds } }, together)
}

test('layers that are no tars, as the index names them, and the tree that stands on them may have names', () => {
  expect(why({})).toBeUndefined()
  expect(why({ parts: [two, one] })).toBeUndefined()
  expect(why({ unit: [one, one, tree], parts: [one] })).toBeUndefined()
  expect(why({ unit: [one, two, tree], image: [one, two, tree, base] })).toBeUndefined()
})

test.each<[string, Case, RegExp]>([
  ['nothing is below the tree', { unit: [tree], parts: [] }, /stands on none/],
  ['another layer is on top', { unit: [one, tree, two] }, /stands on none/],
  ['an ordinary layer is below', { image: [base, one, two, tree] }, /others are below/],
  ['an ordinary layer is between', { image: [one, base, two, tree] }, /others are below/],
  ['the index does not name one of them', { parts: [one] }, /is none of the blobs/],
  ['the index names another blob', { parts: [one, two, base] }, /none of its image's layers/],
  ['the index names none', { parts: undefined }, /one tree for several layers/],
  ['one has another DiffID', { diffIds: [one.digest, base.digest, tree.digest] }, /is no tar/],
  ['one is shorter than a header of a tar', { unit: [one, small, tree], parts: [one, small] }, /so short/],
  ['engines refuse the image', { mediaType: DOCKER_MANIFEST }, /engines refuse/],
])('they have none where %s', (_, of, reason) => {
  expect(why(of)).toMatch(reason)
})
