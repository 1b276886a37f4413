import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { Failure } from '../../../../src/errors.ts'
import { RafsBytes } from '../../../../src/format/nydus/bytes.ts'
import type { Rafs } from '../../../../src/format/nydus/rafs.ts'
import { parseRafs6 } from '../../../../src/format/nydus/v6/rafs6.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFREG, S_IFSOCK } from '../../../../src/tree/entry.ts'
import { runs } from '../../../fixtures/runs.ts'
import { entry, refuses } from '../parsed.ts'
import { type Crafted6, craft6, dir6, FLAGS, file6, type Image6, type Node6 } from './rafs6-craft.ts'

function parse(image: Image6): Rafs {
  return parseRafs6(craft6(image).bytes, 'image')
}

/** The tree that has these in its root. */
function tree(children: Record<string, Node6>): Rafs {
  return parse({ root: dir6(children) })
}

const paths = ({ entries }: Rafs) => entries.map(({ path }) => path)

/** A bootstrap that `change` wrote to. */
function changed(image: Image6, change: (view: DataView, at: Crafted6['at']) => void): () => Rafs {
  const { bytes, at } = craft6(image)
  change(new DataView(bytes.buffer), at)
  return () => parseRafs6(bytes, 'image')
}

test('a tree is read with names, owners, times, targets, devices and xattrs', () => {
  const rafs = tree({
    d: dir6(
      { f: file6([{ index: 3, size: 10 }], { xattrs: { '1:a': 'one', '6:capability': '', '2:': 'acl' } }) },
      { uid: 70_000, gid: 1, seconds: -5n, nanoseconds: 7 },
    ),
    disk: { mode: S_IFBLK | 0o600, u: 0x1234_5678 },
    fifo: { mode: S_IFIFO | 0o600, u: 0xffff_ffff },
    null: { mode: S_IFCHR | 0o666, u: 0x103 },
    socket: { mode: S_IFSOCK | 0o600 },
    é: { target: '../d//f' },
  })
  expect(paths(rafs)).toEqual(['', 'd', 'd/f', 'disk', 'fifo', 'null', 'socket', 'é'])
  expect(entry(rafs, 'd')).toEqual({
    path: 'd',
    mode: S_IFDIR | 0o755,
    uid: 70_000,
    gid: 1,
    mtime: -4_999_999_993n,
    size: 0,
  })
  expect(entry(rafs, 'd/f')).toMatchObject({
    mode: S_IFREG | 0o644,
    size: 10,
    extents: [{ at: 0, chunk: 0, offset: 0, length: 10 }],
    xattrs: new Map([
      ['user.a', new Uint8Array(Buffer.from('one'))],
      ['security.capability', new Uint8Array()],
      ['system.posix_acl_access', new Uint8Array(Buffer.from('acl'))],
    ]),
  })
  // new_encode_dev: 12 bits of major within 20 of minor
  expect(entry(rafs, 'disk').rdev).toEqual([0x456, 0x12378])
  expect(entry(rafs, 'null').rdev).toEqual([1, 3])
  expect(entry(rafs, 'fifo').rdev).toBeUndefined()
  expect(entry(rafs, 'é').target).toBe('../d//f')
})

test('compact inodes have no time, and owners of 16 bits; both kinds stand in one tree', () => {
  const rafs = tree({
    a: file6([{ index: 0, size: 7 }], { compact: true, uid: 65_000, gid: 3, xattrs: { '4:x': 'y' } }),
  })
  expect(entry(rafs, 'a')).toMatchObject({ size: 7, uid: 65_000, gid: 3, mtime: 0n })
  expect([...(entry(rafs, 'a').xattrs?.keys() ?? [])]).toEqual(['trusted.x'])
})

test('without EXPLICIT_UID_GID all is root’s', () => {
  const rafs = parse({ root: dir6({ a: file6([], { uid: 5, gid: 6 }) }), flags: FLAGS & ~0x10n })
  expect(entry(rafs, 'a')).toMatchObject({ uid: 0, gid: 0 })
})

test('names that sort before "." and behind ".." are children like any', () => {
  expect(paths(tree({ '!': file6(), '-': file6(), '..a': file6(), '.a': file6(), z: file6() }))).toEqual([
    '',
    '!',
    '-',
    '..a',
    '.a',
    'z',
  ])
})

test('directories of many blocks are read to their last name', () => {
  const names = Array.from({ length: 500 }, (_, i) => `${i}`.padStart(40, '0'))
  const rafs = tree(Object.fromEntries(names.map((name) => [name, file6()])))
  expect(paths(rafs)).toEqual(['', ...names])
})

test('a last name ends at a NUL, where a writer filled the block up', () => {
  const names = { one: file6(), two: file6() }
  const root = dir6(names, { size: 4096, layout: 0 })
  const { bytes, at } = craft6({ root })
  // the inline content goes to a block of its own
  const padded = new Uint8Array(bytes.length + 4096)
  padded.set(bytes)
  const from = at.inode(root) + 64
  padded.set(bytes.subarray(from, from + 100), bytes.length)
  new DataView(padded.buffer).setUint32(at.inode(root) + 16, bytes.length / 4096, true)
  padded.fill(0, bytes.length + 4 * 12 + '...onetwo'.length)
  expect(paths(parseRafs6(padded, 'image'))).toEqual(['', 'one', 'two'])
})

test('several names of one inode are the file, then hard links to it', () => {
  const shared = file6([{ index: 0, size: 5 }])
  const rafs = tree({ b: shared, d: dir6({ a: shared }), c: shared })
  expect(entry(rafs, 'b')).toMatchObject({ size: 5 })
  expect([entry(rafs, 'c').link, entry(rafs, 'd/a').link]).toEqual(['b', 'b'])
})

test('an inode is read once, however many names it has: else a few bytes would be read for hours', () => {
  const shared = file6([], { xattrs: Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`1:${i}`, ''])) })
  const texts = vi.spyOn(RafsBytes.prototype, 'text')
  const rafs = tree(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`name${i}`, shared])))
  expect(rafs.entries.filter(({ link }) => link === 'name0').length).toBe(99)
  expect(texts).toHaveBeenCalledTimes(100)
  texts.mockRestore()
})

test('files are cut into the image’s chunks, whatever an inode says of their size', () => {
  const chunks = [
    { index: 70_000, size: 4096 },
    { index: 70_001, size: 4096 },
    { index: 5, size: 17, blob: 1 },
  ]
  const rafs = parse({
    root: dir6({ a: file6(chunks, { u: 0x2f }) }),
    chunkSize: 4096,
    blobs: [{}, { id: 'cd'.repeat(32), digester: 0 }],
  })
  expect(entry(rafs, 'a').extents).toEqual([
    { at: 0, chunk: 0, offset: 0, length: 4096 },
    { at: 4096, chunk: 1, offset: 0, length: 4096 },
    { at: 8192, chunk: 2, offset: 0, length: 17 },
  ])
  expect(rafs.chunks).toMatchObject([
    { blob: 0, index: 70_000, record: { digest: `sha256:${'00'.repeat(32)}` } },
    { blob: 0, index: 70_001 },
    { blob: 1, index: 5, size: 17, record: { digest: `blake3:${'00'.repeat(32)}` } },
  ])
})

test('files with a chunk in common have one chunk; a bootstrap without a chunk table has chunks without records', () => {
  const chunk = { index: 1, size: 9 }
  const root = dir6({ a: file6([chunk]), b: file6([chunk]) })
  expect(parse({ root }).chunks).toMatchObject([{ index: 1, size: 9, record: { size: 9 } }])
  expect(parse({ root, records: [] }).chunks).toEqual([{ blob: 0, index: 1, size: 9, record: undefined }])
})

test('what the prefetch table names is given by its path, in that order; what is not there is left out', () => {
  const [a, d] = [file6(), dir6({ e: file6() })]
  const root = dir6({ a, d })
  expect(parse({ root, prefetch: [d, 77_777, a, root] }).prefetch).toEqual(['d', 'a', ''])
})

test('a prefetch table of some size at 0 is none, as old writers left it', () => {
  const parsing = changed({ prefetch: [1, 2] }, (view) => view.setBigUint64(1192, 0n, true))
  expect(parsing().prefetch).toEqual([])
})

test('blobs are read with where their own tables are', () => {
  const holder = Buffer.alloc(32, 0xcd)
  const tables = { offset: 1 << 20, stored: 200, decoded: 300, compressor: 3 }
  const rafs = parse({
    blobs: [
      { tables, toc: { size: 640, digest: Buffer.alloc(32, 9) } },
      { features: 0x1d, compressor: 2, holder, tables },
    ],
  })
  const common = { compressor: 'zstd', offset: 1 << 20, storedSize: 200, decodedSize: 300 }
  expect(rafs.blobs).toMatchObject([
    { compressor: 'zstd', chunkCount: 16, tables: { ...common, holder: 'ab'.repeat(32), tocSize: 640 } },
    { compressor: 'gzip', tables: { ...common, holder: 'cd'.repeat(32), tocSize: 0 } },
  ])
})

test.each([
  ['an EROFS image that is not nydus’s', (view: DataView) => view.setUint32(1032, 0, true), /nydus did not make/],
  ['another feature that readers must know', (view: DataView) => view.setUint32(1104, 0x1c, true), /feature_incompat/],
  ['blocks of 512 bytes', (view: DataView) => view.setUint8(1036, 9), /2\^9/],
  ['files of tars', (view: DataView) => view.setBigUint64(1152, FLAGS | 0x200n, true), /not served/],
  ['encryption', (view: DataView) => view.setBigUint64(1152, FLAGS | 0x0200_0000n, true), /not served/],
  ['flags that are not known', (view: DataView) => view.setBigUint64(1152, FLAGS | (1n << 40n), true), /not known/],
])('%s is refused as unsupported', (_, change, text) => refuses(changed({}, change), 'unsupported', text))

test.each([
  ['encrypted', { features: 0x101 }],
  ['with a cipher', { cipher: 1 }],
  ['of a tar', { features: 0x41 }],
  ['kept elsewhere', { features: 0x801 }],
  ['that refers to a tar or an eStargz layer', { features: 0x15 }],
  ['with features that are not known', { features: 0x1001 }],
])('a blob %s is refused with the reason', (_, blob) => {
  refuses(() => parse({ blobs: [blob] }), 'unsupported', /blob 0: this kind of nydus image/)
})

test.each([
  ['two compressors', (view: DataView) => view.setBigUint64(1152, FLAGS | 2n, true), /compressor/],
  ['no digest algorithm', (view: DataView) => view.setBigUint64(1152, FLAGS & ~8n, true), /digest/],
  ['chunks of no power of two', (view: DataView) => view.setUint32(1172, 5000, true), /5000/],
  ['chunks of 32 MiB', (view: DataView) => view.setUint32(1172, 32 << 20, true), /33554432/],
  ['a blob table that is cut off', (view: DataView) => view.setBigUint64(1160, 1n << 40n, true), /blob table/],
  ['a blob table of half an entry', (view: DataView) => view.setUint32(1168, 300, true), /blob table/],
  ['a chunk table that is cut off', (view: DataView) => view.setBigUint64(1184, 80n * 9999n, true), /chunk table/],
  [
    'a chunk table of a size no number holds',
    (view: DataView) => view.setBigUint64(1184, 80n << 55n, true),
    /chunk table/,
  ],
  ['a root outside', (view: DataView) => view.setUint16(1038, 65_535, true), /inode 65535/],
  [
    'blobs that are numbered otherwise',
    (view: DataView, at: Crafted6['at']) => view.setUint32(at.blobs + 64, 3, true),
    /number 3/,
  ],
])('%s is refused as corrupt', (_, change, text) => refuses(changed({}, change), 'corrupt', text))

test('more blobs than can be addressed are refused', () => {
  refuses(() => parse({ blobs: Array.from({ length: 256 }, () => ({})) }), 'limit', /256 blobs/)
})

test('what is cut off anywhere is refused, or nothing that was read lay there', () => {
  const { bytes } = craft6({
    root: dir6({ a: file6([{ index: 0, size: 5 }], { xattrs: { '1:a': 'b' } }), l: { target: 'x' } }),
  })
  for (let end = 0; end < bytes.length; end += 16) {
    const parsing = () => parseRafs6(bytes.subarray(0, end), 'image')
    if (end < 12_288 + 80) expect(parsing, `${end}`).toThrow(Failure)
  }
})

test('a directory that is reached twice is refused, also when it is above itself', () => {
  const shared = dir6()
  refuses(() => tree({ a: shared, b: shared }), 'corrupt', /the directory is "a" as well/)
  const parsing = changed({ root: dir6({ d: dir6({ e: dir6() }) }) }, (view, at) => {
    // e, the last of the names in d, becomes the root
    const e = Buffer.from(view.buffer).indexOf('...e') - 12
    view.setBigUint64(e, BigInt(view.getUint16(1038, true)), true)
    expect(at.chunkTable).toBeGreaterThan(e)
  })
  refuses(parsing, 'corrupt', /the directory is "" as well/)
})

test('a root that is no directory is refused', () => {
  refuses(() => parse({ root: file6() }), 'corrupt', /root is no directory/)
})

test('a name that stands in a directory twice is refused, and one with a slash', () => {
  const parsing = changed({ root: dir6({ a: file6(), b: file6() }) }, (view) => {
    view.setUint8(Buffer.from(view.buffer).indexOf('...ab') + 4, 'a'.charCodeAt(0))
  })
  refuses(parsing, 'corrupt', /"a" stands in it twice/)
  refuses(() => parse({ root: dir6({ 'a/b': file6() }, { raw: true }) }), 'corrupt', /entry at 0 is broken/)
})

test('a directory whose names lie outside its block, or are empty, is refused', () => {
  const root = dir6({ a: file6() })
  const at = craft6({ root }).at.inode(root) + 64
  for (const offset of [0, 13, 12 * 90, 65_532]) {
    refuses(
      changed({ root }, (view) => view.setUint16(at + 8, offset, true)),
      'corrupt',
      /entry at 0/,
    )
  }
  refuses(
    changed({ root }, (view) => view.setUint16(at + 20, 36, true)),
    'corrupt',
    /entry at 0/,
  )
  refuses(
    changed({ root }, (view) => view.setUint16(at + 20, 5000, true)),
    'corrupt',
    /entry at 0/,
  )
})

test('names that are no UTF-8 are refused as unsupported', () => {
  const parsing = changed({ root: dir6({ a: file6() }) }, (view) => {
    view.setUint8(Buffer.from(view.buffer).indexOf('...a') + 3, 0xff)
  })
  refuses(parsing, 'unsupported', /no UTF-8/)
})

test.each([
  ['a layout that is not known', { a: file6([], { layout: 1 }) }, /layout/],
  ['a file with flat content', { a: file6([], { layout: 2 }) }, /not in chunks/],
  ['a symlink in chunks', { a: { target: 'x', layout: 4 } }, /in chunks/],
  ['a billion nanoseconds', { a: file6([], { nanoseconds: 1_000_000_000 }) }, /nanoseconds/],
  ['a file with more chunks than the bootstrap has bytes', { a: file6([], { size: 2 ** 50 }) }, /list of its chunks/],
  ['a target beyond the end', { a: { target: 'x', size: 1 << 20 } }, /content/],
  ['a chunk of no blob', { a: file6([{ index: 0, size: 1, blob: 4 }]) }, /blob 4 of 1/],
  ['a prefix of xattrs that is not known', { a: file6([], { xattrs: { '5:a': 'b' } }) }, /xattrs are broken/],
])('%s is refused', (_, children, text) => refuses(() => tree(children as Record<string, Node6>), 'corrupt', text))

test('an xattr that is longer than the list of them is refused', () => {
  const a = file6([], { xattrs: { '1:a': 'b' } })
  const parsing = changed({ root: dir6({ a }) }, (view, at) => view.setUint16(at.inode(a) + 64 + 12 + 2, 4, true))
  refuses(parsing, 'corrupt', /xattrs are broken/)
})

test('a chunk that has less than its file needs of it is refused, and one with two records', () => {
  const root = dir6({ a: file6([{ index: 0, size: 9 }]) })
  refuses(() => parse({ root, records: [{ index: 0, size: 8 }] }), 'corrupt', /chunk 0 of blob 0 has 8 bytes, not 9/)
  const parsing = changed(
    {
      root,
      records: [
        { index: 0, size: 9 },
        { index: 1, size: 9 },
      ],
    },
    (view, at) => {
      view.setUint32(at.chunkTable + 80 + 72, 0, true)
    },
  )
  refuses(parsing, 'corrupt', /second one of chunk 0/)
})

test.each([
  ['of no blob', 32, 7, 'corrupt', /blob 7 of 1/],
  ['of 17 MiB', 44, 17 << 20, 'corrupt', /17825792 bytes/],
  ['of no bytes', 44, 0, 'corrupt', /0 bytes/],
  ['with a number of four bytes', 72, 1 << 24, 'corrupt', /its number/],
  ['that is encrypted', 36, 4, 'unsupported', /not served/],
])('a record %s is refused', (_, field, value, code, text) => {
  const root = dir6({ a: file6([{ index: 0, size: 9 }]) })
  refuses(
    changed({ root }, (view, at) => view.setUint32(at.chunkTable + field, value, true)),
    code,
    text,
  )
})

test('inodes that have bytes in common cannot make a large tree of a small bootstrap', () => {
  const names = Array.from({ length: 500 }, (_, i) => `${i}`.padStart(40, 'n'))
  const large = dir6(Object.fromEntries(names.map((name) => [name, file6()])), { size: 6 * 4096, layout: 0 })
  const others = Array.from({ length: 20 }, () => dir6({}, { size: 6 * 4096, layout: 0 }))
  const root = dir6({ large, ...Object.fromEntries(others.map((each, i) => [`other${i}`, each])) })
  const parsing = changed({ root }, (view, at) => {
    const content = view.getUint32(at.inode(large) + 16, true)
    for (const each of others) view.setUint32(at.inode(each) + 16, content, true)
  })
  refuses(parsing, 'corrupt', /bytes in common/)
})

test('a table of more chunks than a worker has memory for is refused before any is read', () => {
  const parsing = () => {
    const { bytes } = craft6()
    const large = new Uint8Array(bytes.length + 1_500_001 * 80)
    large.set(bytes)
    const view = new DataView(large.buffer)
    view.setBigUint64(1176, BigInt(bytes.length), true)
    view.setBigUint64(1184, BigInt(1_500_001 * 80), true)
    return parseRafs6(large, 'image')
  }
  refuses(parsing, 'limit', /1500001 chunks, at most 1500000 are accepted/)
})

test('damaged bootstraps are refused, or read', () => {
  const { bytes } = craft6({
    root: dir6({
      a: file6(
        [
          { index: 0, size: 4096 },
          { index: 1, size: 70 },
        ],
        { xattrs: { '1:a': 'b', '4:c': 'd' } },
      ),
      d: dir6({ e: file6([{ index: 1, size: 70 }]), f: { target: '../a' } }),
    }),
    chunkSize: 4096,
    prefetch: [4],
  })
  // what is of use: the superblock's block is mostly zeros
  const places = fc.oneof(fc.integer({ min: 1024, max: 1700 }), fc.integer({ min: 4096, max: bytes.length - 1 }))
  fc.assert(
    fc.property(fc.array(fc.tuple(places, fc.nat(255)), { minLength: 1, maxLength: 4 }), (changes) => {
      const damaged = bytes.slice()
      for (const [at, value] of changes) damaged[at] = value
      try {
        expect(parseRafs6(damaged, 'image').entries.length).toBeGreaterThan(0)
      } catch (error) {
        if (!(error instanceof Failure)) throw error
      }
    }),
    { numRuns: runs(300) },
  )
})
