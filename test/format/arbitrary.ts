// Random entries of tables of contents.
import fc from 'fast-check'
import { FILES_END, SOME_DIGEST } from './craft.ts'

const number = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 12 }) },
  { weight: 4, arbitrary: fc.integer({ min: -2, max: FILES_END + 20 }) },
  { weight: 1, arbitrary: fc.oneof(fc.double(), fc.constant(2 ** 53), fc.constant(null), fc.string()) },
)
const optional = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined })
/** An entry of a table of contents: right, wrong, or absurd. */
export const tocEntry = fc.record({
  name: fc.oneof(fc.constantFrom('a', 'b', './a', 'd/e', '.prefetch.landmark', '/', '..', 'a/'), fc.string()),
  type: fc.oneof(
    fc.constantFrom('reg', 'reg', 'reg', 'chunk', 'chunk', 'dir', 'hardlink', 'symlink', 'char'),
    fc.string(),
  ),
  size: number,
  offset: number,
  innerOffset: optional(number),
  chunkOffset: optional(number),
  chunkSize: optional(number),
  chunkDigest: fc.oneof({ weight: 9, arbitrary: fc.constant(SOME_DIGEST) }, { weight: 1, arbitrary: fc.string() }),
  digest: optional(fc.constant(SOME_DIGEST)),
  endOffset: optional(number),
  chunkType: fc.oneof(
    { weight: 9, arbitrary: optional(fc.constantFrom('', 'zeros')) },
    { weight: 1, arbitrary: fc.string() },
  ),
  linkName: optional(fc.constantFrom('a', '../x', '')),
  mode: optional(number),
  uid: optional(number),
})
