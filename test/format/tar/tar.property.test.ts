// What is packed is what is read; what is damaged is refused, or read as something.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { encodeHeader, padding, type TarHeader, type TarType, tarName } from '../../../src/build/tar.ts'
import { Failure } from '../../../src/errors.ts'
import { buildTree } from '../../../src/tree/build.ts'
import { type Entry, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../../src/tree/entry.ts'
import { runs } from '../../fixtures/runs.ts'
import { archive, assemble, scan } from './tar-craft.ts'

const FORMATS: Readonly<Record<Exclude<TarType, 'hardlink'>, number>> = {
  file: S_IFREG,
  dir: S_IFDIR,
  symlink: S_IFLNK,
  char: S_IFCHR,
  block: S_IFBLK,
  fifo: S_IFIFO,
}

const name = fc
  .oneof(
    { weight: 3, arbitrary: fc.constantFrom('a', 'b', 'é', '日本', 'n'.repeat(99), 'n'.repeat(101), '.wh.a', '<&>') },
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }),
  )
  .map((text) => text.replace(/[/\0]/g, '_'))
  .filter((text) => text !== '.' && text !== '..' && text.isWellFormed())
const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join('/'))

interface Packed {
  header: TarHeader
  contents: Uint8Array
}

const packed: fc.Arbitrary<Packed> = fc
  .record({
    path,
    type: fc.constantFrom<Exclude<TarType, 'hardlink'>>('file', 'file', 'dir', 'symlink', 'char', 'block', 'fifo'),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    uid: fc.oneof(fc.integer({ min: 0, max: 0o7777777 }), fc.integer({ min: 0, max: 0xfffffffe })),
    gid: fc.oneof(fc.integer({ min: 0, max: 0o7777777 }), fc.integer({ min: 0, max: 0xfffffffe })),
    mtime: fc.oneof(
      fc.bigInt({ min: 0n, max: 10n ** 10n }).map((seconds) => seconds * 10n ** 9n),
      fc.bigInt({ min: -(10n ** 20n), max: 10n ** 20n }),
    ),
    target: name,
    rdev: fc.tuple(fc.integer({ min: 0, max: 0xfff }), fc.integer({ min: 0, max: 0xfffff })),
    xattrs: fc.dictionary(
      fc.string({ minLength: 1, maxLength: 10 }).map((key) => `user.${key.replace(/[=\0]/g, '_')}`),
      fc.uint8Array({ maxLength: 20 }),
      { maxKeys: 3 },
    ),
    contents: fc.oneof(
      fc.uint8Array({ maxLength: 30 }),
      fc.integer({ min: 500, max: 1030 }).map((n) => new Uint8Array(n).fill(7)),
    ),
  })
  .map(({ target, rdev, xattrs, contents, ...rest }) => ({
    header: {
      ...rest,
      size: rest.type === 'file' ? contents.length : 0,
      ...(rest.type === 'symlink' ? { target } : {}),
      ...(rest.type === 'char' || rest.type === 'block' ? { rdev } : {}),
      ...(Object.keys(xattrs).length > 0 ? { xattrs: new Map(Object.entries(xattrs)) } : {}),
    },
    contents: rest.type === 'file' ? contents : new Uint8Array(),
  }))

const layer = fc.uniqueArray(packed, { selector: ({ header }) => header.path, maxLength: 6 })

function pack(members: readonly Packed[], more: readonly TarHeader[] = []): Uint8Array {
  const parts = members.map(({ header, contents }) =>
    Buffer.concat([encodeHeader(header), contents, padding(contents.length)]),
  )
  return archive(...parts, ...more.map(encodeHeader))
}

function entryOf({ path, type, mode, uid, gid, mtime, size, target, rdev, xattrs }: TarHeader): Entry {
  const format = FORMATS[type as keyof typeof FORMATS]
  const rest = { ...(target === undefined ? {} : { target }), ...(rdev ? { rdev } : {}), ...(xattrs ? { xattrs } : {}) }
  return { path, mode: format | mode, uid, gid, mtime, size, ...rest }
}

test('what our own writer packs', async () => {
  await fc.assert(
    fc.asyncProperty(layer, fc.integer({ min: 1, max: 3000 }), async (members, pieceBytes) => {
      const first = members[0]?.header.path
      const plain = { mode: 0o644, uid: 0, gid: 0, mtime: 0n, size: 0 }
      const link: TarHeader[] =
        first === undefined ? [] : [{ path: 'z/link', type: 'hardlink', target: first, ...plain }]
      const bytes = pack(members, link)
      const { contents, entries, lines } = await scan(bytes, pieceBytes)
      const links = entries.filter((each) => each.link !== undefined)
      expect(links.map((each) => [each.path, each.link])).toEqual(link.map((each) => [each.path, each.target]))
      const others = entries.filter((each) => each.link === undefined)
      expect(others.map(({ extents, ...entry }) => entry)).toEqual(members.map(({ header }) => entryOf(header)))
      for (const [i, { extents = [] }] of others.entries()) {
        const stored = extents.map(({ chunk }) => contents.chunks[chunk]?.stored ?? { start: 0, end: 0 })
        const read = Buffer.concat(stored.map(({ start, end }) => bytes.subarray(start, end)))
        expect(read.equals(members[i]?.contents as Uint8Array)).toBe(true)
      }
      const byName = new Map(members.map(({ header, contents }) => [tarName(header), contents]))
      expect(
        Buffer.compare(
          assemble(lines, (name) => byName.get(name) as Uint8Array),
          bytes,
        ),
      ).toBe(0)
    }),
    { numRuns: runs(60) },
  )
})

/** Whether it was read to its end. */
async function survives(bytes: Uint8Array): Promise<boolean> {
  try {
    const { contents } = await scan(bytes)
    buildTree(contents)
    return true
  } catch (error) {
    if (error instanceof Failure) return false
    throw error
  }
}

test('a tar that is cut off anywhere is refused, unless nothing but its end is missing', async () => {
  const members = fc.sample(layer, { numRuns: 3, seed: 7 }).flat()
  const unique = [...new Map(members.map((each) => [each.header.path, each])).values()]
  const bytes = pack(unique)
  const starts = new Set<number>()
  let at = 0
  for (const { header, contents } of unique) {
    starts.add(at)
    at += encodeHeader(header).length + contents.length + padding(contents.length).length
  }
  for (const end of [at, at + 512, at + 1024]) starts.add(end)
  for (let end = 0; end <= bytes.length; end += 512) {
    for (const near of [end - 1, end, end + 1]) {
      if (near < 0 || near > bytes.length) continue
      const outcome = await scan(bytes.subarray(0, near)).then(
        () => 'read',
        (error: unknown) => (error instanceof Failure ? error.code : error),
      )
      expect([near, outcome]).toEqual([near, starts.has(near) ? 'read' : 'corrupt'])
    }
  }
})

test('flipped bytes, moved blocks and rubbish give a Failure or a tree', async () => {
  const damage = fc.oneof(
    fc.record({ at: fc.nat(), bits: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ from: fc.nat(), to: fc.nat() }),
  )
  let [read, refused] = [0, 0]
  await fc.assert(
    fc.asyncProperty(
      layer,
      fc.array(damage, { minLength: 1, maxLength: 3 }),
      fc.boolean(),
      async (members, each, mend) => {
        const bytes = Buffer.from(pack(members))
        for (const one of each) {
          if ('at' in one) {
            const at = one.at % bytes.length
            bytes[at] = (bytes[at] as number) ^ one.bits
            if (mend) sum(bytes.subarray(at - (at % 512)).subarray(0, 512))
          } else {
            const blocks = bytes.length / 512
            bytes.copyWithin((one.to % blocks) * 512, (one.from % blocks) * 512, ((one.from % blocks) + 1) * 512)
          }
        }
        if (await survives(bytes)) read++
        else refused++
      },
    ),
    { numRuns: runs(150) },
  )
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 2000 }), async (bytes) => void (await survives(bytes))))
  expect(Math.min(read, refused)).toBeGreaterThan(runs(5))
})

/** Gives a header the checksum that fits it. */
function sum(block: Buffer): void {
  block.fill(' ', 148, 156)
  block.write(
    `${block
      .reduce((total, byte) => total + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  )
}
