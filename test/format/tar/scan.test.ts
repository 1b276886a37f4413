import { execFileSync } from 'node:child_process'
import { linkSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { scanTar } from '../../../src/format/tar/scan.ts'
import { digestOf } from '../../../src/image/digest.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../../src/tree/entry.ts'
import { suite } from '../../e2e/engines/suite.ts'
import { NO_LISTER, tarListing } from '../../fixtures/tar-listing.ts'
import { listing } from '../listing.ts'
import { SAMPLES, sampleLayers } from '../samples.ts'
import { archive, assemble, type Block, GNU, gzipped, header, inPieces, member, pax, scan, V7 } from './tar-craft.ts'

const NULS = (count: number) => '\0'.repeat(count)
/** Base-256: the number in the field's last bytes. */
const binary = (length: number, value: number) => {
  const field = Buffer.alloc(length, value < 0 ? 0xff : 0)
  field.writeBigInt64BE(BigInt(value), length - 8)
  if (value >= 0) field[0] = 0x80
  return field
}

describe('what is read', () => {
  const check = (title: string, tar: readonly Uint8Array[], ...expected: object[]) =>
    test(title, async () => {
      const { entries, diffId, tarSize } = await scan(archive(...tar))
      expect(entries).toMatchObject(expected)
      expect(entries.length).toBe(expected.length)
      expect(diffId).toBe(digestOf(archive(...tar)))
      expect(tarSize).toBe(archive(...tar).length)
    })

  const of = (block: Block, expected: object) => [[header(block)], expected] as const
  check('a file', [member({ name: 'a', mode: '0104755', uid: '0000012', gid: '0000013' }, 'hello')], {
    path: 'a',
    mode: S_IFREG | 0o4755,
    uid: 10,
    gid: 11,
    mtime: 10n * 1_000_000_000n,
    size: 5,
    extents: [{ at: 0, chunk: 0, offset: 0, length: 5 }],
  })
  check('names with dots and slashes', [header({ name: './a//b/./c/', type: '5' })], { path: 'a/b/c' })
  check('the root', [header({ name: './', type: '5', mode: '0000700' })], { path: '', mode: S_IFDIR | 0o700 })
  check('a directory of the oldest tars', [header({ name: 'd/', type: '\0', magic: V7 })], { mode: S_IFDIR | 0o644 })
  check('a file of the oldest tars', [header({ name: 'd', type: '\0', magic: V7 })], { mode: S_IFREG | 0o644 })
  check('a symlink', ...of({ type: '2', linkName: '../x' }, { mode: S_IFLNK | 0o644, target: '../x' }))
  check('a fifo', ...of({ type: '6' }, { mode: S_IFIFO | 0o644 }))
  check(
    'a character device',
    ...of({ type: '3', major: '0000001', minor: '0000003' }, { mode: S_IFCHR | 0o644, rdev: [1, 3] }),
  )
  check(
    'a block device',
    ...of({ type: '4', major: '0000007', minor: '0000777' }, { mode: S_IFBLK | 0o644, rdev: [7, 511] }),
  )
  check('a hard link', [header(), header({ name: 'b', type: '1', linkName: './a' })], { path: 'a' }, { link: 'a' })
  check('a prefix', ...of({ name: 'n', prefix: 'p/q' }, { path: 'p/q/n' }))
  check('a name without a NUL behind it', ...of({ name: 'n'.repeat(100) }, { path: 'n'.repeat(100) }))
  check('whiteouts, as they are', ...of({ name: 'd/.wh.gone' }, { path: 'd/.wh.gone' }))
  check(
    'GNU: binary numbers',
    ...of({ magic: GNU, uid: binary(8, 3_000_000), mtime: binary(12, -5) }, { uid: 3_000_000, mtime: -5_000_000_000n }),
  )
  check(
    'GNU: long names',
    [
      member({ type: 'L', name: '././@LongLink', magic: GNU }, `${'l'.repeat(150)}\0`),
      member({ type: 'K', name: '././@LongLink', magic: GNU }, `${'k'.repeat(150)}\0`),
      header({ magic: GNU, type: '2', name: 'l'.repeat(100), linkName: 'k'.repeat(100) }),
    ],
    { path: 'l'.repeat(150), target: 'k'.repeat(150) },
  )
  check(
    'GNU: times where others have a prefix',
    ...of({ magic: GNU, prefix: '00000000012\x0000000000012\0' }, { path: 'a' }),
  )
  check(
    'PAX: names, owners, times and attributes',
    [
      pax([
        ['path', 'ü/日本'],
        ['linkpath', 'ö'],
        ['uid', '70000000'],
        ['gid', '80000000'],
        ['mtime', '1700000000.1234567899'],
        ['SCHILY.xattr.user.bin', Buffer.from([0, 0xff, 0x3d, 0x0a])],
        ['SCHILY.xattr.user.a=b', ''],
        ['LIBARCHIVE.xattr.user.other', 'AAAA'],
      ]),
      header({ type: '2' }),
    ],
    {
      path: 'ü/日本',
      target: 'ö',
      uid: 70_000_000,
      gid: 80_000_000,
      mtime: 1700000000123456789n,
      // Go ends a key at the first "="
      xattrs: new Map([
        ['user.bin', Uint8Array.from([0, 0xff, 0x3d, 0x0a])],
        ['user.a', new TextEncoder().encode('b=')],
      ]),
    },
  )
  check('PAX: a time before 1970', [pax([['mtime', '-1.5']]), header()], { mtime: -1_500_000_000n })
  check('PAX: only for the next entry', [pax([['uid', '7']]), header(), header({ name: 'b' })], { uid: 7 }, { uid: 0 })
  check('PAX: a record twice, if it is the same', [pax([['uid', '7'], ['uid', '7']]), header()], { uid: 7 }) // biome-ignore format: a table
  check('PAX: a global header that says nothing', [pax([['comment', 'x']], { type: 'g', name: 'g' }), header()], {
    path: 'a',
  })

  test('an archive that just ends', async () => {
    const tar = archive(header())
    for (const end of [512, 1024]) expect((await scan(tar.subarray(0, end))).entries.length).toBe(1)
    expect((await scan(new Uint8Array())).entries).toEqual([])
  })
})

describe('what is refused', () => {
  const check = (title: string, tar: Uint8Array, code: string, message: string) =>
    test(title, async () => {
      const failure = await scan(tar).catch((error: unknown) => error)
      expect(failure).toBeInstanceOf(Failure)
      expect(failure).toMatchObject({ code, message: expect.stringContaining(message) })
    })

  const block = (title: string, of: Block, code: string, message: string) =>
    check(title, archive(header(of)), code, message)
  block('a wrong checksum', { checksum: '0000000\0' }, 'corrupt', 'header at 0: its checksum')
  block('a checksum that is no number', { checksum: 'x0000000' }, 'corrupt', 'checksum')
  block('a number with rubbish', { uid: '000 001' }, 'corrupt', 'its uid is "000 001\\u0000"')
  block('a number that overflows', { mtime: Buffer.alloc(12, 0x81) }, 'corrupt', 'its mtime')
  block('a negative owner', { uid: binary(8, -2) }, 'corrupt', 'its uid is -2')
  block('a negative size', { size: binary(12, -512) }, 'corrupt', 'its size is -512')
  block('an owner beyond what Linux has', { uid: binary(8, 2 ** 32) }, 'corrupt', 'entry "a": 4294967296 is no owner')
  block('a name that is no UTF-8', { name: Buffer.from([0x61, 0xe9]) }, 'unsupported', 'its name is no UTF-8')
  block('no name', { name: NULS(1) }, 'corrupt', 'it has no name')
  block('a path that leaves the root', { name: '../a' }, 'corrupt', 'entry "../a": the path has a ".."')
  block('a path that would come back', { name: 'b/../a' }, 'corrupt', 'entry "b/../a": the path has a ".."')
  block('a root that is a file', { name: '.' }, 'corrupt', 'the root is no directory')
  block("a file with a directory's name", { name: 'a/' }, 'unsupported', 'entry "a/": a file with a directory\'s name')
  block('a directory with contents', { type: '5', size: 512 }, 'unsupported', 'it is no file and has 512 bytes')
  block('a symlink to nothing', { type: '2' }, 'corrupt', 'a symlink to nothing')
  block('a sparse file of GNU', { type: 'S', magic: GNU }, 'unsupported', 'it is a sparse file')
  for (const type of ['7', 'D', 'V', 'M', 'N', 'X', 'A']) {
    block(`type ${type}`, { type }, 'unsupported', `entry "a": it is of type "${type}"`)
  }
  block('a prefix in a header of no known dialect', { magic: V7, prefix: 'p' }, 'unsupported', 'of no known dialect')
  block('a device of the oldest tars', { magic: V7, type: '3' }, 'unsupported', 'of no known dialect')
  block('an unknown magic', { magic: 'ustar xx' }, 'unsupported', 'of no known dialect')
  block('the dialect of star', { trailer: 'tar\0' }, 'unsupported', 'star')
  block('GNU with a prefix', { magic: GNU, prefix: 'p' }, 'unsupported', 'may be a prefix')

  const link = { name: 'b', type: '1', linkName: 'a' }
  check('a hard link with contents', archive(header(), member(link, 'a')), 'unsupported', 'entry "b": it is no file')
  check('a hard link to what comes later', archive(header(link), header()), 'unsupported', 'does not come before it')
  check(
    'a hard link that leaves the root',
    archive(header({ ...link, linkName: '../a' })),
    'corrupt',
    'the path has a ".."',
  )
  check('a path twice', archive(header(), header({ name: './a' })), 'unsupported', 'entry "./a": its path comes twice')

  const extended = (
    title: string,
    records: [string | Uint8Array, string | Uint8Array][],
    code: string,
    message: string,
  ) => check(title, archive(pax(records), header()), code, message)
  extended('a key with two values', [['uid', '1'], ['uid', '2']], 'unsupported', 'two things about "uid"') // biome-ignore format: a table
  extended('an empty value', [['path', '']], 'unsupported', 'an empty path')
  extended('a sparse file', [['GNU.sparse.major', '1']], 'unsupported', 'it is a sparse file')
  extended('a sparse file of star', [['SCHILY.realsize', '1']], 'unsupported', 'it is a sparse file')
  extended('device numbers', [['SCHILY.devmajor', '1']], 'unsupported', 'SCHILY.devmajor')
  extended('another character set', [['hdrcharset', 'ISO-IR 8859 1 1998']], 'unsupported', 'another character set')
  extended('a NUL in a path', [['path', 'a\0b']], 'corrupt', 'its PAX path has a NUL')
  extended('a NUL in a key', [['a\0b', 'c']], 'corrupt', 'a PAX key has a NUL')
  extended('a path that is no UTF-8', [['path', Buffer.from([0xff])]], 'unsupported', 'PAX path is no UTF-8')
  extended('a key that is no UTF-8', [[Buffer.from([0xff]), 'x']], 'unsupported', 'PAX key is no UTF-8')
  extended('a size that is no number', [['size', '+5']], 'corrupt', 'its PAX size is "+5"')
  extended('a negative owner', [['uid', '-1']], 'corrupt', 'its PAX uid is "-1"')
  extended('a time that is none', [['mtime', '1e9']], 'corrupt', 'its PAX mtime is "1e9"')
  extended(
    'another size than the header has',
    [['size', '512']],
    'unsupported',
    '0 bytes by its header, 512 by its PAX',
  )

  // that it is more than ustar has room for is how the tar is known to be cut off
  extended('a size beyond ustar, and no such contents', [['size', `${9 * 2 ** 30}`]], 'corrupt', 'the tar is cut off')

  const raw = (text: string) => archive(member({ type: 'x' }, text), header())
  for (const text of [
    'x',
    '5 a=b\n',
    '07 a=b\n',
    '6 a=b\nx',
    '+6 a=b\n',
    '5 a=\n ',
    '5 =b\n',
    '99999999 a=b\n',
    '6 a\n=b\n',
    '2 \n',
  ]) {
    check(`the PAX record ${JSON.stringify(text)}`, raw(text), 'corrupt', 'a malformed record')
  }

  const long = (text: string) => member({ type: 'L', magic: GNU }, text)
  check('an empty long name', archive(long('\0'), header()), 'corrupt', 'an empty long name')
  check('a long name with something behind', archive(long('b\0c'), header()), 'corrupt', 'a long name with a NUL')
  check('two long names', archive(long('b'), long('c'), header()), 'unsupported', 'a second long name')
  check(
    'two PAX headers',
    archive(pax([['uid', '1']]), pax([['gid', '1']]), header()),
    'unsupported',
    'a second PAX header',
  )
  check('two names', archive(pax([['path', 'b']]), long('c'), header()), 'unsupported', 'different names')
  check('a PAX header for nothing', archive(pax([['uid', '1']])), 'corrupt', 'it ends with what extends an entry')
  check('a long name of 2 MiB', archive(header({ type: 'L', size: 2 << 20 })), 'limit', 'of 2097152 bytes')

  const global = (key: string, name = 'g') => pax([[key, '1']], { type: 'g', name })
  check('a global owner', archive(global('uid'), header()), 'unsupported', 'engines ignore the "uid"')
  check('a global attribute', archive(global('SCHILY.xattr.user.a')), 'unsupported', 'engines ignore')
  for (const name of ['/tmp/GlobalHead.1', '.', '.wh.x']) {
    check(`a global header called ${name}`, archive(global('comment', name)), 'unsupported', 'engines take its name')
  }
  check('a global header called as a file', archive(header(), global('comment', 'a')), 'unsupported', 'comes twice')
  check(
    'a global header between an entry and its own',
    archive(pax([['uid', '1']]), global('comment'), header()),
    'unsupported',
    'a global header between',
  )

  check('one block of zeros', Buffer.concat([new Uint8Array(512), archive(header())]), 'corrupt', 'a block of zeros')

  test('too many entries, and too much to say about them', async () => {
    const tar = archive(...['a', 'b', 'c'].map((name) => header({ name })))
    await expect(scan(tar, 512, { entriesMax: 2 })).rejects.toMatchObject({ code: 'limit' })
    await expect(scan(tar, 512, { indexMaxBytes: 200, what: 'layer x' })).rejects.toMatchObject({
      code: 'limit',
      message: 'layer x: entry "c": its index is larger than 200 bytes',
    })
  })
})

test('what follows the end is no entry, whatever it is; it counts for the digest and is kept for engines', async () => {
  for (const behind of [
    header({ name: 'b' }),
    Buffer.from('no block'),
    Buffer.concat([Buffer.alloc(99_999), header()]),
  ]) {
    const tar = Buffer.concat([archive(member({}, 'x')), behind])
    const { entries, diffId, lines } = await scan(tar)
    expect(entries.map(({ path }) => path)).toEqual(['a'])
    expect(diffId).toBe(digestOf(tar))
    expect(
      Buffer.compare(
        assemble(lines, () => Buffer.from('x')),
        tar,
      ),
    ).toBe(0)
  }
})

describe('the stream', () => {
  test('however it is cut, the same is read', async () => {
    const tar = archive(
      pax([['path', 'p']]),
      member({}, 'x'.repeat(5000)),
      member({ name: 'b' }, 'y'),
      new Uint8Array(),
    )
    const whole = await scan(tar, tar.length)
    for (const bytes of [1, 511, 512, 513, 4096]) expect(await scan(tar, bytes)).toEqual(whole)
  })

  test('is not read on while the sink waits, and let go where it fails', async () => {
    let [read, released] = [0, false]
    async function* source() {
      try {
        for (const piece of Array.from({ length: 5000 }, (_, i) => header({ name: `${i}` }))) {
          read++
          yield piece
        }
      } finally {
        released = true
      }
    }
    const seen: number[] = []
    const split = async () => {
      const before = read
      await new Promise((done) => setImmediate(done))
      seen.push(read - before)
      if (seen.length === 3) throw new Error('the disk is full')
    }
    await expect(scanTar(source(), { split })).rejects.toThrow('the disk is full')
    expect(seen).toEqual([0, 0, 0])
    expect(released).toBe(true)
    expect(read).toBeLessThan(5000)
  })

  test('that fails, fails the scan', async () => {
    async function* source() {
      yield header({ size: 512 })
      throw new Error('no more')
    }
    await expect(scanTar(source(), { split() {} })).rejects.toThrow('no more')
  })
})

suite('real tools', NO_LISTER, () => {
  const dir = mkdtempSync(join(tmpdir(), 'tar-scan-'))
  afterAll(() => rmSync(dir, { recursive: true }))
  const root = join(dir, 'root')
  mkdirSync(join(root, 'd/é'), { recursive: true })
  writeFileSync(join(root, 'd/small'), 'small')
  writeFileSync(join(root, 'd/empty'), '')
  writeFileSync(join(root, 'd/é/large'), Buffer.alloc((4 << 20) + 3, 'abc'))
  linkSync(join(root, 'd/small'), join(root, 'hard'))
  symlinkSync('d/small', join(root, 'symlink'))
  const long = 'n'.repeat(130)

  for (const format of ['v7', 'ustar', 'gnu', 'pax', 'posix']) {
    test(`what GNU tar packs as ${format} is what the folder has`, async () => {
      if (format === 'gnu' || format.endsWith('x')) {
        writeFileSync(join(root, long), 'long')
        symlinkSync('t'.repeat(140), join(root, `l-${format}-${'l'.repeat(120)}`))
      }
      const file = join(dir, `${format}.tar`)
      execFileSync('tar', ['--sort=name', `--format=${format}`, '-cf', file, '-C', root, '.'])
      rmSync(join(root, long), { force: true })
      const tar = readFileSync(file)
      const { entries, contents } = await scan(tar, 10_000)
      const packed = gzipped(contents, tar)
      const listed = listing(packed.contents, packed.blob)
      expect(listed).toEqual(tarListing(file))
      expect(entries.some(({ path }) => path === 'd/é/large')).toBe(true)
      const { mtimeNs } = lstatSync(join(root, 'd/small'), { bigint: true })
      const second = 1_000_000_000n
      const small = entries.find(({ path }) => path === 'd/small')
      expect(small?.mtime).toBe(format === 'pax' || format === 'posix' ? mtimeNs : (mtimeNs / second) * second)
    })
  }
})

if (SAMPLES) {
  for (const [folder, tag] of [
    ['samples/oci', 'esgz'],
    ['samples/oci', 'plain'],
    ['samples/oci', 'esgz-ext'],
  ] as const) {
    // biome-ignore format: a table
    test(`the layers of ${tag} are what their tars say`, async () => {
      for (const { bytes, path } of sampleLayers(folder, tag)) {
        const tar = gunzipSync(bytes)
        const { contents, diffId } = await scan(tar, 1 << 20)
        expect(diffId).toBe(digestOf(tar))
        const packed = gzipped(contents, tar)
        expect(listing(packed.contents, packed.blob)).toEqual(tarListing(path))
      }
    })
  }
} else test.skip('sample images: LAZYLAYER_SAMPLES is not set', () => {})

test('a source whose pieces are empty is read to its end', async () => {
  async function* source() {
    for await (const piece of inPieces(archive(header()), 100)) {
      yield new Uint8Array()
      yield piece
    }
  }
  expect((await scanTar(source(), { split() {} })).tarSize).toBe(1536)
})
