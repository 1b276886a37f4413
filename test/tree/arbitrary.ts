// Random entries of layers.
import fc from 'fast-check'
import { character } from '../fixtures/characters.ts'
import type { Spec } from './layer.ts'

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
/** One entry of such a layer. */
export const spec: fc.Arbitrary<Spec> = fc.oneof(
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
/** Layers as they may come from a registry: whiteouts, links and types that contradict each other. */
export const specs = fc.array(spec, { maxLength: 12 })

/** Anything at all, as a broken parser might yield it. */
export const hostile: fc.Arbitrary<Spec> = fc.record(
  {
    path: fc.oneof(
      path,
      fc.string({ unit: character, maxLength: 20 }),
      fc.constantFrom('', '/', '..', 'a/../b', '\ud800', `${'x'.repeat(256)}`),
    ),
    mode: fc.oneof(fc.nat(0o177777), fc.double(), fc.integer()),
    uid: fc.oneof(fc.nat(), fc.double()),
    gid: fc.oneof(fc.nat(), fc.double()),
    mtime: fc.bigInt(),
    size: fc.oneof(fc.nat(10), fc.double(), fc.integer()),
    rdev: fc.tuple(fc.integer(), fc.double()),
    target: fc.string({ unit: character, maxLength: 20 }),
    link: fc.oneof(path, fc.string({ unit: character, maxLength: 20 })),
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
