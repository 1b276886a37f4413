import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test, vi } from 'vitest'
import { RafsBytes } from '../../../../src/format/nydus/bytes.ts'
import { nydus } from '../../../../src/format/nydus/nydus.ts'
import type { Rafs } from '../../../../src/format/nydus/rafs.ts'
import { parseRafs5 } from '../../../../src/format/nydus/v5/rafs5.ts'
import { buildTree } from '../../../../src/tree/build.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFREG, ZEROS } from '../../../../src/tree/entry.ts'
import { bareRafs } from '../../../fixtures/nydus-image.ts'
import { metadataOf } from '../../listing.ts'
import { MemoryBlob } from '../../memory-blob.ts'
import { expected, SAMPLES } from '../../samples.ts'
import { nydusImage } from '../nydus-craft.ts'
import { entry, refuses } from '../parsed.ts'
import { BLOB, type Crafted5, craft5, dir5, FLAGS, file5, type Image5, type Node5 } from './rafs5-craft.ts'

function parse(image: Image5): Rafs {
  return parseRafs5(craft5(image).bytes, 'image')
}

/** The tree that has these in its root. */
function tree(...children: Node5[]): Rafs {
  return parse({ root: { children } })
}

/** A bootstrap that `change` wrote to. */
function changed(image: Image5, change: (view: DataView, at: Crafted5['at']) => void): () => Rafs {
  const { bytes, at } = craft5(image)
  change(new DataView(bytes.buffer), at)
  return () => parseRafs5(bytes, 'image')
}

test('a tree is read with names, owners, times, targets, devices and xattrs', () => {
  const rafs = tree(
    dir5('d', [file5('f', [{ size: 10 }], { xattrs: { 'user.a': 'one', 'user.empty': '' } })], {
      uid: 70_000,
      gid: 1,
      seconds: -5n,
      nanoseconds: 7,
    }),
    { name: 'disk', mode: S_IFBLK | 0o600, rdev: 0x1234_5678 },
    { name: 'é', target: '../d//f' },
    { name: 'null', mode: S_IFCHR | 0o666, rdev: 0x103 },
  )
  expect(rafs.entries.map(({ path }) => path)).toEqual(['', 'd', 'd/f', 'disk', 'é', 'null'])
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
  })
  expect(entry(rafs, 'd/f').xattrs).toEqual(
    new Map([
      ['user.a', new Uint8Array(Buffer.from('one'))],
      ['user.empty', new Uint8Array()],
    ]),
  )
  // new_encode_dev: 12 bits of major within 20 of minor
  expect(entry(rafs, 'disk').rdev).toEqual([0x456, 0x12378])
  expect(entry(rafs, 'null').rdev).toEqual([1, 3])
  expect(entry(rafs, 'é').target).toBe('../d//f')
})

test('files without numbers of a device have none, whatever is written there', () => {
  expect(entry(tree(file5('f', [], { rdev: 0xffff_ffff })), 'f').rdev).toBeUndefined()
})

test('names of one inode number are the file, then hard links to it', () => {
  const chunks = [{ size: 5 }]
  const rafs = tree(
    dir5('d', [file5('c', chunks, { ino: 3 })]),
    file5('a', chunks, { ino: 3 }),
    file5('b', chunks, { ino: 9 }),
  )
  expect(rafs.entries.map(({ path, link }) => [path, link])).toEqual([
    ['', undefined],
    ['d', undefined],
    ['d/c', undefined],
    ['a', 'd/c'],
    ['b', undefined],
  ])
  expect(entry(rafs, 'a').extents).toBeUndefined()
  expect(rafs.chunks.length).toBe(1)
})

test('the first inode of a file is read once, however many names follow: else a few bytes would be read for hours', () => {
  const xattrs = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`user.${i}`, '']))
  const links = Array.from({ length: 100 }, (_, i) => file5(`name${i}`, [], { ino: 2 }))
  const texts = vi.spyOn(RafsBytes.prototype, 'text')
  const rafs = tree(file5('first', [], { xattrs }), ...links)
  expect(rafs.entries.filter(({ link }) => link === 'first').length).toBe(100)
  // the blob's, those of xattrs, and a name of each inode
  expect(texts).toHaveBeenCalledTimes(1 + 100 + 102)
  texts.mockRestore()
})

test('names of one number that are not one file are refused', () => {
  const with_ =
    (...children: Node5[]) =>
    () =>
      tree(...children)
  const other = /image: inode 3: its number is 2, as that of "a", which is something else/
  refuses(with_(file5('a', [], { digest: 1 }), file5('b', [], { ino: 2, digest: 2 })), 'corrupt', other)
  refuses(with_(file5('a', [{ size: 5 }]), file5('b', [{ size: 6 }], { ino: 2 })), 'corrupt', other)
  refuses(with_(file5('a'), { name: 'b', ino: 2, mode: S_IFCHR }), 'corrupt', other)
  refuses(with_(dir5('a'), dir5('b', [], { ino: 2 })), 'corrupt', other)
})

test('what no chunk covers is zeros', () => {
  const chunks = [
    { size: 10, fileOffset: 5, digest: 1 },
    { size: 10, fileOffset: 20, digest: 2 },
    { size: 3, fileOffset: 30, flags: 2 },
  ]
  const { extents } = entry(tree(file5('f', chunks, { size: 50 })), 'f')
  expect(extents).toEqual([
    { at: 0, chunk: ZEROS, offset: 0, length: 5 },
    { at: 5, chunk: 0, offset: 0, length: 10 },
    { at: 15, chunk: ZEROS, offset: 0, length: 5 },
    { at: 20, chunk: 1, offset: 0, length: 10 },
    { at: 30, chunk: ZEROS, offset: 0, length: 20 },
  ])
  expect(entry(tree(file5('f', [], { size: 7 })), 'f').extents).toEqual([{ at: 0, chunk: ZEROS, offset: 0, length: 7 }])
})

test('a chunk that several files have is listed once', () => {
  const shared = { size: 5, offset: 100, index: 1, digest: 1 }
  const rafs = tree(
    file5('a', [shared]),
    file5('b', [{ ...shared }, { size: 4, offset: 105, fileOffset: 5, digest: 2 }]),
  )
  expect(rafs.chunks.map(({ record }) => record?.stored)).toEqual([
    { start: 100, end: 105 },
    { start: 105, end: 109 },
  ])
  expect(entry(rafs, 'b').extents?.map(({ chunk }) => chunk)).toEqual([0, 1])
})

test('without flags blobs are lz4 and digests blake3, as those of the first images', () => {
  const of = (flags: bigint) => parse({ flags, root: { children: [file5('f', [{ size: 1 }])] } })
  const says = (flags: bigint) => of(flags).blobs.map(({ compressor, digester }) => `${compressor} ${digester}`)[0]
  expect(says(0n)).toBe('lz4_block blake3')
  expect(of(0n).chunks[0]?.record?.digest).toBe(`blake3:${'00'.repeat(32)}`)
  expect([0x9n, 0x6n, 0x48n, 0x80n].map(says)).toEqual([
    'none sha256',
    'lz4_block blake3',
    'gzip sha256',
    'zstd blake3',
  ])
  // bits that readers need not know
  expect(says(0xfd00_0009n)).toBe('none sha256')
})

test('flags that a reader has to know, and does not, are refused', () => {
  refuses(() => parse({ flags: 0x83n }), 'corrupt', /several compressors/)
  refuses(() => parse({ flags: 0xcn }), 'corrupt', /several digest algorithms/)
  refuses(() => parse({ flags: 0x400n }), 'unsupported', /flags that are not known: 0x400/)
  refuses(() => parse({ flags: 1n << 40n }), 'unsupported', /not known/)
  refuses(() => parse({ flags: FLAGS | 0x200_0000n }), 'unsupported', /not served/)
  refuses(() => parse({ flags: FLAGS | 0x200n }), 'unsupported', /not served/)
  refuses(() => parse({ features: [0x100] }), 'unsupported', /not served/)
  refuses(() => parse({ features: [0x1000] }), 'unsupported', /not served/)
})

test('owners of an image that does not say them are root', () => {
  const rafs = parse({ flags: 0x9n, root: { children: [file5('f', [], { uid: 5, gid: 6 })] } })
  expect(entry(rafs, 'f')).toMatchObject({ uid: 0, gid: 0 })
})

test('blobs are named by the table, with what the extended one says of them', () => {
  const other = 'cd'.repeat(32)
  const { blobs } = parse({ blobs: [BLOB, other], features: [0, 0x4000_0000] })
  expect(blobs.map(({ id, features, chunkCount }) => [id, features, chunkCount])).toEqual([
    [BLOB, 0, 1000],
    [other, 0x4000_0000, 1000],
  ])
  expect(
    parse({ blobs: [BLOB, other], features: [] }).blobs.map(({ features, chunkCount }) => [features, chunkCount]),
  ).toEqual([
    [undefined, undefined],
    [undefined, undefined],
  ])
  expect(parse({ blobs: [] }).blobs).toEqual([])
})

test('blobs are named as they are written, since nothing may be read of those that have no digest for a name', () => {
  const ids = ['x'.repeat(64), '', `${BLOB}0`]
  expect(parse({ blobs: ids }).blobs.map(({ id }) => id)).toEqual(ids)
})

test('a name of a blob that is longer than any file’s is refused, since messages have it', () => {
  expect(parse({ blobs: ['x'.repeat(255)] }).blobs[0]?.id.length).toBe(255)
  refuses(() => parse({ blobs: [BLOB, 'x'.repeat(256)] }), 'limit', /ID of blob 1 has 256 bytes/)
})

test('a blob table of another length than the extended one, or of too many blobs, is refused', () => {
  refuses(() => parse({ blobs: [BLOB], features: [0, 0] }), 'corrupt', /has 2 entries, the blob table 1/)
  refuses(() => parse({ blobs: Array.from({ length: 256 }, () => BLOB), features: [] }), 'limit', /more than 255 blobs/)
})

test('the prefetch table names files and directories by number, in its order', () => {
  const children = [dir5('d', [file5('f')]), file5('a')]
  expect(parse({ root: { children }, prefetch: [3, 99, 1, 3, 2] }).prefetch).toEqual(['a', '', 'd'])
})

test('chunks that overlap, leave their file, or are larger than the image says are refused', () => {
  const of =
    (...chunks: Parameters<typeof file5>[1] & object) =>
    () =>
      tree(file5('f', chunks, { size: 5000 }))
  refuses(
    of({ size: 10 }, { size: 10, fileOffset: 9 }),
    'corrupt',
    /inode 2: its chunk of 10 bytes at 9 overlaps the one before it, which ends at 10/,
  )
  refuses(of({ size: 10, fileOffset: 4991 }), 'corrupt', /is not inside its 5000 bytes/)
  refuses(of({ size: 4097 }), 'corrupt', /larger than the image's, of 4096 bytes/)
  refuses(of({ size: 0 }), 'corrupt', /0 bytes/)
  refuses(of({ size: 1, blob: 1 }), 'corrupt', /blob 1 of 1/)
  refuses(of({ size: 1, flags: 4 }), 'unsupported', /not served/)
  refuses(of({ size: 1, flags: 8 }), 'unsupported', /part of a batch/)
})

test('sizes of chunks other than powers of two from 4 KiB to 16 MiB are refused', () => {
  for (const chunkSize of [0, 2048, 4097, 12288, 32 << 20])
    refuses(() => parse({ chunkSize }), 'corrupt', /a power of two from 4096 to 16777216/)
  for (const chunkSize of [4096, 1 << 20, 16 << 20]) expect(parse({ chunkSize }).entries.length).toBe(1)
})

test('a directory that is below itself, or has what another has, is refused', () => {
  const reached = /two directories have it, or one twice/
  refuses(() => tree(dir5('d', [], { childIndex: 1, childCount: 1 })), 'corrupt', reached)
  refuses(() => tree(dir5('d', [], { childIndex: 2, childCount: 1 })), 'corrupt', reached)
  refuses(() => tree(dir5('a', [file5('f')]), dir5('b', [], { childIndex: 4, childCount: 1 })), 'corrupt', reached)
})

test('inodes that have bytes in common are refused, so that a small bootstrap makes no large tree', () => {
  const xattrs = { 'user.a': 'a'.repeat(9000) }
  const children = Array.from({ length: 40 }, (_, i) => dir5(`d${i}`, [file5('f', [], i === 0 ? { xattrs } : {})]))
  const alike = changed({ root: { children } }, (view, { inodeTable, inodes }) => {
    for (let i = 41; i <= 80; i++) view.setUint32(inodeTable + i * 4, (inodes[41] as number) / 8, true)
  })
  refuses(alike, 'corrupt', /inodes before it have bytes in common/)
})

test('children outside the inode table are refused', () => {
  refuses(
    () => tree(dir5('d', [], { childIndex: 3, childCount: 1 })),
    'corrupt',
    /inode 2: its children are 3 to 3, there are 2 inodes/,
  )
  refuses(() => tree(dir5('d', [], { childIndex: 0, childCount: 1 })), 'corrupt', /its children are 0 to 0/)
  refuses(() => tree(dir5('d', [], { childIndex: 2, childCount: 0xffff_ffff })), 'corrupt', /its children are/)
})

test('names that are no names are refused', () => {
  for (const name of ['', '.', '..', 'a/b', 'a\0b']) refuses(() => tree(file5(name)), 'corrupt', /inode 2: its name is/)
  refuses(() => tree({ name: Uint8Array.of(0xff), chunks: [] }), 'unsupported', /its name at \d+ is no UTF-8/)
  refuses(() => tree(file5('n'.repeat(256))), 'limit', /256 bytes/)
  refuses(() => tree(file5('a'), file5('a')), 'corrupt', /"" has "a" twice/)
})

test('paths deeper or longer than the tree takes are refused', () => {
  const deep = (levels: number, name: string): Node5 => dir5(name, levels > 1 ? [deep(levels - 1, name)] : [])
  refuses(() => tree(deep(300, 'd')), 'limit', /deeper than 256/)
  refuses(() => tree(deep(20, 'n'.repeat(250))), 'limit', /inode 18: path .* is longer than 4096 bytes/)
  expect(tree(deep(200, 'd')).entries.length).toBe(201)
})

test('a root that is no directory is refused', () => {
  refuses(() => parse({ root: { mode: 0 } }), 'corrupt', /its root has mode 00, of no directory/)
  refuses(
    changed({}, (view) => view.setUint32(56, 0, true)),
    'corrupt',
    /the inode table has 0/,
  )
})

test('a time whose nanoseconds are a second is refused', () => {
  refuses(() => tree(file5('f', [], { nanoseconds: 1_000_000_000 })), 'corrupt', /1000000000 nanoseconds/)
})

test('another magic, version or size of the superblock is refused', () => {
  refuses(
    () => parseRafs5(new Uint8Array(100), 'image'),
    'corrupt',
    /the RAFS v5 superblock has 8192 bytes at 0, the bootstrap ends at 100/,
  )
  refuses(
    changed({}, (view) => view.setUint32(0, 1, true)),
    'corrupt',
    /magic at 0 is 0x1, not 0x52414653/,
  )
  refuses(
    changed({}, (view) => view.setUint32(4, 0x400, true)),
    'unsupported',
    /RAFS of version 0x400/,
  )
  refuses(
    changed({}, (view) => view.setUint32(8, 4096, true)),
    'corrupt',
    /size at 8 is 0x1000/,
  )
})

test('tables and inodes that begin or end outside the bootstrap are refused, and none is allocated', () => {
  const past = (field: number) => changed({ prefetch: [1] }, (view) => view.setBigUint64(field, 1n << 40n, true))
  for (const [field, name] of [
    [32, 'inode'],
    [40, 'prefetch'],
    [48, 'blob'],
    [72, 'extended blob'],
  ] as const) {
    refuses(past(field), 'corrupt', new RegExp(`the ${name} table has \\d+ bytes at ${2 ** 40}, the bootstrap ends`))
  }
  refuses(
    changed({}, (view) => view.setBigUint64(32, 1n << 60n, true)),
    'corrupt',
    /the offset of the inode table at 32 is 1152921504606846976/,
  )
  refuses(
    changed({}, (view) => view.setUint32(56, 0xffff_ffff, true)),
    'limit',
    /4294967295 inodes/,
  )
  refuses(
    changed({}, (view) => view.setUint32(60, 0xffff_ffff, true)),
    'corrupt',
    /the prefetch table has/,
  )
  refuses(
    changed({}, (view, at) => view.setUint32(at.inodeTable, 0xffff_ffff, true)),
    'corrupt',
    /inode 1: it has 128 bytes at 34359738360/,
  )
  const file = { root: { children: [file5('f', [{ size: 5 }], { xattrs: { a: 'b' } })] } }
  const inode = (of: Crafted5['at']) => of.inodes[1] as number
  refuses(
    changed(file, (view, at) => view.setUint16(inode(at) + 100, 0xffff, true)),
    'corrupt',
    /inode 2: its name has 65535 bytes/,
  )
  refuses(
    changed(file, (view, at) => view.setUint32(inode(at) + 96, 2, true)),
    'corrupt',
    /inode 2: the list of its chunks has 160 bytes/,
  )
  refuses(
    changed(file, (view, at) => view.setBigUint64(inode(at) + 136, 1n << 50n, true)),
    'corrupt',
    /the list of its xattrs has/,
  )
  refuses(
    changed(file, (view, at) => view.setUint32(inode(at) + 144, 90, true)),
    'corrupt',
    /its xattrs are broken at/,
  )
  refuses(
    changed(file, (view, at) => view.setUint32(inode(at) + 144, 1, true)),
    'corrupt',
    /its xattrs are broken at/,
  )
})

test('a bootstrap that is cut off anywhere is refused', () => {
  const { bytes } = craft5({
    root: { children: [dir5('d', [{ name: 'l', target: 'd' }]), file5('f', [{ size: 5 }])] },
    prefetch: [1],
  })
  expect(parseRafs5(bytes, 'image').entries.length).toBe(4)
  for (let end = 0; end < bytes.length; end += end > 8100 ? 1 : 100)
    refuses(() => parseRafs5(bytes.subarray(0, end), 'image'), 'corrupt', /the bootstrap ends at/)
})

if (SAMPLES) describe('sample bootstraps', sampleTests)
else test.skip('sample bootstraps: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  const parseSample = (name: string) =>
    parseRafs5(new Uint8Array(readFileSync(join(SAMPLES as string, 'samples/rafs', name, 'bootstrap'))), name)

  for (const name of ['v5-lz4_block-blake3', 'v5-none-blake3', 'v5-zstd-prefetch', 'v5-zstd-sha256']) {
    test(`${name} has the entries that are expected`, () => {
      const shown = parseSample(name).entries.map((each) => metadataOf(each))
      shown.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)))
      // nydus-image gives a root above a parent bootstrap no time
      const want = expected(0).map(({ sha256, ...line }) => (line.path === '.' ? { ...line, mtime: 0 } : line))
      expect(shown).toEqual(want)
    })
  }

  test.each(['none-blake3', 'zstd-prefetch', 'zstd-sha256'])(
    '%s makes the same image as in version 6',
    async (name) => {
      const imageOf = async (version: string) => {
        const layers = await bareRafs(join(SAMPLES as string, 'samples/rafs'), `${version}-${name}`)
        const blobs = layers.map(({ bytes }) => new MemoryBlob(bytes))
        const { unit, source } = nydusImage(blobs.at(-1) as MemoryBlob, blobs.slice(0, -1))
        return buildTree(nydus.parseIndex(await nydus.readIndex(unit, source), unit)).image
      }
      expect(Buffer.compare(await imageOf('v5'), await imageOf('v6'))).toBe(0)
    },
  )

  test('what was to be prefetched is named', () => {
    expect(parseSample('v5-zstd-prefetch').prefetch).toEqual(['bin', 'etc/hello.txt'])
    expect(parseSample('v5-zstd-sha256').prefetch).toEqual([])
  })

  test('chunks are of the algorithm that the superblock names', () => {
    const algorithms = (name: string) => [
      ...new Set(parseSample(name).chunks.map(({ record }) => record?.digest.slice(0, 7))),
    ]
    expect(algorithms('v5-zstd-sha256')).toEqual(['sha256:'])
    expect(algorithms('v5-none-blake3')).toEqual(['blake3:'])
  })
}
