import { expect, test } from 'vitest'
import { type ShownImage, unusedImages } from '../../src/stores/forget.ts'
import { digest } from './store.ts'

const shown = (reference: string, ids: string[], askedAt?: number): ShownImage => ({
  image: { reference, manifest: digest(reference), by: ['index'], ...(askedAt === undefined ? {} : { askedAt }) },
  ids,
  blobIds: ids.map((id) => `blob of ${id}`),
  config: digest(`config of ${reference}`),
  known: [],
})

const unused = (images: ShownImage[], used: string[], askedBefore = 10, layers = Number.POSITIVE_INFINITY) =>
  unusedImages(images, new Set(used), { askedBefore, layers }).map(({ image }) => image.reference)

test('an image is unused when no engine refers to one of its layers, and nobody asked for it lately', () => {
  const recent = shown('recent', ['new'], 10)
  expect(unused([shown('used', ['shared', 'own']), shown('idle', ['alone', 'above']), recent], ['shared'])).toEqual([
    'idle',
  ])
  expect(unused([recent], [], 11)).toEqual(['recent'])
  expect(unused([shown('by its blob', ['alone'])], ['blob of alone'])).toEqual([])
})

test('of an image without listed layers nobody knows whether it is used', () => {
  expect(unused([shown('nothing', [])], [])).toEqual([])
})

test('those that were asked for the longest ago go first, until enough layers go with them', () => {
  const images = [
    shown('last', ['base', 'c'], 3),
    shown('first', ['base', 'a'], 1),
    shown('never', ['alone']),
    shown('second', ['base', 'b'], 2),
  ]
  const all = ['never', 'first', 'second', 'last']
  // a layer that another image has stays
  expect([0, 1, 2, 3, 4].map((layers) => unused(images, [], 10, layers).length)).toEqual([0, 1, 2, 3, 4])
  expect(unused(images, [], 10, 5)).toEqual(all)
  expect(unused(images, [], 3)).toEqual(all.slice(0, 3))
})
