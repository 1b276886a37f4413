// Layers of our own writer, read on both ways: by their table of contents, and as the tar that they are.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { Failure } from '../../src/errors.ts'
import { runs } from '../fixtures/runs.ts'
import { difference, scanned, type TarSide, written } from './compare-sides.ts'

const names = ['a', 'b', 'd/a', 'd/.wh.b', 'd/.wh..wh..opq', 'd/é', 'd/e/f', `d/${'long'.repeat(40)}`]
const metadata = {
  mode: fc.constantFrom(0o644, 0o4755, 0o1777),
  uid: fc.constantFrom(0, 5, 3_000_000),
  gid: fc.nat(3),
  mtime: fc.constantFrom(0n, 1_700_000_000n * 1_000_000_000n, 1_700_000_000_123_456_789n, -1_500_000_000n),
}
const content = fc.oneof(
  fc.constantFrom('', 'x', 'alpha', 'bravo', 'z'.repeat(3000)).map((text) => new TextEncoder().encode(text)),
  fc.uint8Array({ minLength: 1, maxLength: 2000 }),
)
const xattrs = fc.constantFrom(
  new Map<string, Uint8Array>(),
  new Map([['user.a', Uint8Array.of(0, 255)]]),
  new Map([['trusted.overlay.opaque', Uint8Array.of(0x79)]]),
)
const entry: fc.Arbitrary<SourceEntry> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ path: fc.constant(''), type: fc.constant('file' as const), ...metadata, content, xattrs }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ path: fc.constant(''), type: fc.constant('dir' as const), ...metadata, xattrs }),
  },
  { weight: 1, arbitrary: fc.record({ path: fc.constant(''), type: fc.constant('fifo' as const), ...metadata }) },
  {
    weight: 1,
    arbitrary: fc.record({
      path: fc.constant(''),
      type: fc.constant('symlink' as const),
      ...metadata,
      target: fc.constantFrom('a', '../é', 't'.repeat(200)),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      path: fc.constant(''),
      type: fc.constantFrom('char' as const, 'block' as const),
      ...metadata,
      rdev: fc.constantFrom<[number, number]>([1, 3], [8, 300]),
    }),
  },
)
/** Each path once, as every tool writes it; the last may be a hard link to the first file. */
const entries = fc
  .tuple(fc.array(entry, { minLength: 1, maxLength: names.length }), fc.boolean())
  .map(([of, linked]) => {
    const named = of.map((each, i) => ({ ...each, path: names[i] as string }))
    const to = named.find((each) => each.type === 'file')
    if (linked && to && !to.path.includes('.wh.'))
      named.push({ path: 'zz', type: 'hardlink', target: to.path } as SourceEntry & { path: string })
    return named
  })
const options = fc.record({
  chunkSize: fc.constantFrom(1 << 20, 1000, 100),
  minChunkSize: fc.constantFrom(0, 2500, 50_000),
})

test('a layer is the same on both ways', async () => {
  await fc.assert(
    fc.asyncProperty(entries, options, async (of, how) => {
      const { lazy, tar } = await written(of, how)
      expect(await difference(lazy, tar)).toBeUndefined()
    }),
    { numRuns: runs(50) },
  )
})

test('a bit of the tar makes a difference exactly where it makes one in its tree, or the tar is refused', async () => {
  const count = { refused: 0, same: 0, contents: 0, metadata: 0 }
  await fc.assert(
    fc.asyncProperty(entries, options, fc.array(fc.nat(), { minLength: 20, maxLength: 20 }), async (of, how, bits) => {
      const { lazy, tar } = await written(of, how)
      for (const bit of bits) {
        const bytes = tar.bytes.slice()
        const at = (bit >> 3) % bytes.length
        bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit & 7))
        repairSum(bytes, at)
        let other: TarSide
        try {
          other = await scanned(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
          count.refused++
          continue
        }
        const found = await difference(lazy, other)
        expect(found === undefined).toBe(Buffer.compare(other.image, tar.image) === 0)
        count[found === undefined ? 'same' : found.includes('contents differ') ? 'contents' : 'metadata']++
      }
    }),
    { numRuns: runs(50) },
  )
  for (const each of Object.values(count)) expect(each).toBeGreaterThan(5)
})

/** Where a header was hit its sum is put right, so that more than the sum is tested. */
function repairSum(bytes: Uint8Array, at: number): void {
  const block = bytes.subarray(at - (at % 512), at - (at % 512) + 512)
  if (Buffer.from(block.subarray(257, 262)).toString('latin1') !== 'ustar') return
  if (at % 512 >= 148 && at % 512 < 156) return
  const sum = block.reduce((total, byte, i) => total + (i >= 148 && i < 156 ? 0x20 : byte), 0)
  block.set(Buffer.from(`${sum.toString(8).padStart(6, '0')}\0 `, 'latin1'), 148)
}
