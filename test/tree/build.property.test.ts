// Random layers with hostile shapes: an image or a Failure; and an image shows what a naive unpacking of the entries would.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { buildTree } from '../../src/tree/build.ts'
import { mergeImages } from '../../src/tree/merge.ts'
import { fsck, NO_FSCK } from '../fixtures/fsck.ts'
import { runs } from '../fixtures/runs.ts'
import { hostile, specs } from './arbitrary.ts'
import { fillDevice, layer, type Spec } from './layer.ts'
import { overlay, type Shown, shownLines, unpack } from './model.ts'
import { show } from './show.ts'

function built(of: readonly Spec[]) {
  const source = layer(of)
  const tree = buildTree(source)
  return { image: tree.image, device: fillDevice(tree, source.decoded) }
}

/** What the model says: lines, or that it refuses. */
function modelled(of: readonly Spec[]): Shown | 'refused' {
  try {
    return unpack(of)
  } catch (error) {
    if (error instanceof Failure) throw error
    return 'refused'
  }
}

test('a layer shows what unpacking it would, or is refused where that would fail', () => {
  let accepted = 0
  fc.assert(
    fc.property(specs, (of) => {
      const model = modelled(of)
      let result: ReturnType<typeof built> | undefined
      try {
        result = built(of)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        expect(['corrupt', 'unsupported']).toContain(error.code)
        expect(error.message).toMatch(/"/)
      }
      expect(result === undefined).toBe(model === 'refused')
      if (result === undefined || model === 'refused') return
      accepted++
      expect(show(result.image, { devices: [result.device], mtime: true })).toEqual(shownLines(model))
    }),
    { numRuns: runs(400) },
  )
  expect(accepted).toBeGreaterThan(runs(60))
})

test('merged layers show what overlayfs would', () => {
  fc.assert(
    fc.property(fc.array(specs, { maxLength: 4 }), (layers) => {
      const usable = layers.filter((of) => modelled(of) !== 'refused')
      const results = usable.map((of) => built(of))
      const image = mergeImages(results.map((each) => each.image))
      const model = overlay(usable.map((of) => unpack(of)))
      expect(show(image, { devices: results.map(({ device }) => device), mtime: true })).toEqual(shownLines(model))
    }),
    { numRuns: runs(250) },
  )
})

test('whatever the entries are, there is an image or a Failure', () => {
  fc.assert(
    fc.property(fc.array(hostile, { maxLength: 6 }), (of) => {
      try {
        show(buildTree(layer(of)).image)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
        expect(error.message.length).toBeGreaterThan(10)
      }
    }),
    { numRuns: runs(600) },
  )
})

test.skipIf(NO_FSCK !== undefined)(
  `fsck.erofs accepts random layers${NO_FSCK ? ` (skipped: ${NO_FSCK})` : ''}`,
  async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(specs, { minLength: 1, maxLength: 3 }), async (layers) => {
        const images = layers.filter((of) => modelled(of) !== 'refused').map((of) => built(of).image)
        for (const image of [...images, mergeImages(images)]) await fsck(image)
      }),
      { numRuns: runs(20) },
    )
  },
)
