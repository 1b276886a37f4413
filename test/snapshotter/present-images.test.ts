import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type PresentImage, PresentImages } from '../../src/snapshotter/present-images.ts'
import { digest } from '../stores/store.ts'

const imageOf = (name: string, chain: readonly string[]): PresentImage => ({
  digest: digest(name),
  chain,
  said: chain.map((each) => ({ blob: digest(`${each} of ${name}`), index: undefined })),
})
const IMAGES = [imageOf('a', ['base', 'a']), imageOf('b', ['base', 'b', 'top']), imageOf('c', ['c', 'c']), undefined]

test('what images say of a chain is what those say that have a name now, each once', () => {
  const change = fc.record({
    namespace: fc.constantFrom('one', 'two'),
    name: fc.constantFrom('x', 'y', 'registry.example.com/z'),
    image: fc.constantFrom(...IMAGES, 'gone' as const),
  })
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      const present = new PresentImages()
      const model = new Map<string, PresentImage | undefined>()
      for (const { namespace, name, image } of changes) {
        if (image === 'gone') present.drop(namespace, name)
        else present.put(namespace, name, image)
        if (image === 'gone') model.delete(`${namespace} ${name}`)
        else model.set(`${namespace} ${name}`, image)
      }
      for (const namespace of ['one', 'two']) {
        const names = [...model.keys()].filter((each) => each.startsWith(namespace)).map((each) => each.slice(4))
        expect(present.namesIn(namespace).sort()).toEqual(names.sort())
        for (const target of ['base', 'a', 'b', 'top', 'c']) {
          const there = names.flatMap((name) => model.get(`${namespace} ${name}`) ?? [])
          const expected = [...new Set(there)].filter(({ chain }) => chain.includes(target))
          const saying = present.saying(namespace, target)
          expect(new Set(saying.map(({ image }) => image))).toEqual(new Set(expected))
          expect(saying).toHaveLength(expected.length)
          for (const { image, name, said } of saying) {
            expect(model.get(`${namespace} ${name}`)).toBe(image)
            expect(said).toBe(image.said[image.chain.indexOf(target)])
          }
        }
      }
    }),
  )
})

test('an image is asked for by the name that it was pulled by', () => {
  const present = new PresentImages()
  for (const name of ['sha256:ab', 'registry.example.com/a:1']) present.put('one', name, IMAGES[0])
  expect(present.saying('one', 'base')).toMatchObject([{ name: 'registry.example.com/a:1' }])
})
