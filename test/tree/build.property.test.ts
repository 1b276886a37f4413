// Random layers with hostile shapes: an image or a Failure; and an image shows what a naive unpacking of the entries would.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { buildTree } from '../../src/tree/build.ts'
import { mergeImages } from '../../src/tree/merge.ts'
import { fsck, NO_FSCK } from '../fixtures/fsck.ts'
import { fillDevice, layer, type Spec } from './layer.ts'
import { overlay, type Shown, shownLines, unpack } from './model.ts'
import { show } from './show.ts'

// few names, so that entries meet
const component = fc.constantFrom('a', 'b', 'c', 'é', '\u{1f600}', '.wh.a', '.wh.b', '.wh..wh..opq', '.wh..wh.plnk')
const path = fc.array(component, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'))
const metadata = {
  uid: fc.nat(3),
  gid: fc.nat(3),
  mtime: fc.bigInt({ min: -5_000_000_000n, max: 5_000_000_000n }),
}
const xattrs = fc
  .array(
    fc.tuple(fc.constantFrom('user.a', 'user.b', 'trusted.overlay.opaque', 'com.apple.x'), fc.constantFrom('1', 'y')),
    { maxLength: 2 },
  )
  .map((pairs) => new Map(pairs.map(([name, value]) => [name, new TextEncoder().encode(value)])))
const spec: fc.Arbitrary<Spec> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      path,
      mode: fc.constantFrom(0o100644, 0o104755),
      ...metadata,
      xattrs,
      bytes: fc.constantFrom('', 'x', 'y', 'z'.repeat(5000)),
    }),
  },
  { weight: 3, arbitrary: fc.record({ path, mode: fc.constantFrom(0o40755, 0o41777), ...metadata, xattrs }) },
  {
    weight: 1,
    arbitrary: fc.record({ path, mode: fc.constant(0o120777), ...metadata, target: fc.constantFrom('a', '../b') }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      path,
      mode: fc.constantFrom(0o020666, 0o060600),
      ...metadata,
      rdev: fc.constantFrom<[number, number]>([1, 3], [0, 0], [8, 300]),
    }),
  },
  { weight: 1, arbitrary: fc.record({ path, mode: fc.constant(0o010600), ...metadata }) },
  { weight: 2, arbitrary: fc.record({ path, mode: fc.constant(0o100644), ...metadata, link: path }) },
)
const specs = fc.array(spec, { maxLength: 12 })

/** Anything at all, as a broken parser might yield it. */
const hostile: fc.Arbitrary<Spec> = fc.record(
  {
    path: fc.oneof(
      path,
      fc.string({ unit: 'binary', maxLength: 20 }),
      fc.constantFrom('', '/', '..', 'a/../b', '\ud800', `${'x'.repeat(256)}`),
    ),
    mode: fc.oneof(fc.nat(0o177777), fc.double(), fc.integer()),
    uid: fc.oneof(fc.nat(), fc.double()),
    gid: fc.oneof(fc.nat(), fc.double()),
    mtime: fc.bigInt(),
    size: fc.oneof(fc.nat(10), fc.double(), fc.integer()),
    rdev: fc.tuple(fc.integer(), fc.double()),
    target: fc.string({ unit: 'binary', maxLength: 20 }),
    link: fc.oneof(path, fc.string({ unit: 'binary', maxLength: 20 })),
    xattrs: xattrs,
    extents: fc.array(
      fc.record({
        at: fc.integer(),
        chunk: fc.integer({ min: -1, max: 3 }),
        offset: fc.integer(),
        length: fc.double(),
      }),
      { maxLength: 3 },
    ),
  },
  { requiredKeys: ['path', 'mode', 'uid', 'gid', 'mtime', 'size'] },
)

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
    { numRuns: 1500 },
  )
  expect(accepted).toBeGreaterThan(300)
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
    { numRuns: 700 },
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
    { numRuns: 2000 },
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
      { numRuns: 40 },
    )
  },
)
