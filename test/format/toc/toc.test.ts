import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { TOC_NAME } from '../../../src/format/estargz/toc-member.ts'
import type { Contents } from '../../../src/format/format.ts'
import { LANDMARK, NO_LANDMARK } from '../../../src/format/toc/landmarks.ts'
import { digestOf } from '../../../src/image/digest.ts'
import { GZIP } from '../../../src/tree/chunk.ts'
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../../src/tree/entry.ts'
import { FILES_END, file, LAYER_DIGEST, parseEntries, parseJson, SOME_DIGEST } from '../craft.ts'

const OTHER_DIGEST = digestOf(new Uint8Array([1]))

const entriesOf = (contents: Contents) => [...contents.entries].filter((each) => each.path !== TOC_NAME)
const chunk = (name: string, offset: number, chunkOffset: number, more: object = {}) => ({
  name,
  type: 'chunk',
  offset,
  chunkOffset,
  chunkDigest: SOME_DIGEST,
  ...more,
})

describe('entries', () => {
  test('have the types, modes, owners, times and devices that the table says', () => {
    const common = { modtime: '2023-11-14T22:13:20.000000001Z', uid: 0xffffffff, gid: 70001, userName: 'nobody' }
    const contents = parseEntries([
      { name: './', type: 'dir', mode: 0o1777, ...common },
      { name: './su', type: 'reg', mode: 0o104755 },
      { name: '/l', type: 'symlink', mode: 0o777, linkName: '../to//./x' },
      { name: 'h', type: 'hardlink', linkName: './su', mode: 0o755 },
      { name: 'c', type: 'char', mode: 0o644, devMajor: 4095, devMinor: 1048575 },
      { name: 'b', type: 'block', mode: 0o600 },
      { name: 'f', type: 'fifo', mode: 0o2644 },
    ])
    const bare = { uid: 0, gid: 0, mtime: 0n, size: 0 }
    expect(entriesOf(contents)).toEqual([
      { ...bare, path: '', mode: S_IFDIR | 0o1777, uid: 0xffffffff, gid: 70001, mtime: 1_700_000_000_000_000_001n },
      { ...bare, path: 'su', mode: S_IFREG | 0o4755, extents: [] },
      { ...bare, path: 'l', mode: S_IFLNK | 0o777, target: '../to//./x' },
      { ...bare, path: 'h', mode: S_IFREG | 0o755, link: 'su' },
      { ...bare, path: 'c', mode: S_IFCHR | 0o644, rdev: [4095, 1048575] },
      { ...bare, path: 'b', mode: S_IFBLK | 0o600, rdev: [0, 0] },
      { ...bare, path: 'f', mode: S_IFIFO | 0o2644 },
    ])
  })

  test('have paths as Go cleans them', () => {
    const clean = (name: string) => entriesOf(parseEntries([{ name, type: 'dir' }]))[0]?.path
    expect(['./', '/', '.', './a/', '/a/b', 'a//b/./c/', '...', '.wh..wh..opq', 'é/日本'].map(clean)).toEqual([
      '',
      '',
      '',
      'a',
      'a/b',
      'a/b/c',
      '...',
      '.wh..wh..opq',
      'é/日本',
    ])
    const longest = `${'é'.repeat(127)}x`
    expect(clean(longest)).toBe(longest)
  })

  test('keep binary attributes, and those that Go wrote as null', () => {
    const [entry] = entriesOf(parseEntries([{ name: 'd', type: 'dir', xattrs: { 'user.x': 'AP8=', 'user.n': null } }]))
    expect(entry?.xattrs).toEqual(
      new Map([
        ['user.x', new Uint8Array([0, 255])],
        ['user.n', new Uint8Array()],
      ]),
    )
  })

  test('of one path are all there, in order', () => {
    const contents = parseEntries([file('a', 1, 10), { name: 'a', type: 'dir' }, file('a', 2, 20)])
    expect(entriesOf(contents).map((each) => [each.path, each.size])).toEqual([
      ['a', 1],
      ['a', 0],
      ['a', 2],
    ])
  })
})

describe('chunks', () => {
  test('reach to the next greater offset, the last to the table, whatever the order of entries', () => {
    const contents = parseEntries([file('late', 5, 500), file('early', 7, 90), { name: 'd', type: 'dir' }])
    expect(contents.chunks.slice(0, -1)).toEqual(
      [
        { start: 90, end: 500, size: 7 },
        { start: 500, end: FILES_END, size: 5 },
      ].map(({ start, end, size }) => ({
        blob: 0,
        stored: { start, end },
        size,
        codec: GZIP,
        checks: [{ of: 'decoded', range: { start: 0, end: size }, digest: SOME_DIGEST }],
      })),
    )
    expect(entriesOf(contents).map((each) => each.extents?.[0]?.chunk)).toEqual([1, 0, undefined])
  })

  test('of one file are its extents; a size of 0 means the rest', () => {
    const contents = parseEntries([
      file('a', 10, 90, { chunkSize: 4 }),
      chunk('a', 200, 4, { chunkSize: 4 }),
      chunk('./a', 300, 8),
    ])
    expect(entriesOf(contents)[0]?.extents).toEqual([
      { at: 0, chunk: 0, offset: 0, length: 4 },
      { at: 4, chunk: 1, offset: 0, length: 4 },
      { at: 8, chunk: 2, offset: 0, length: 2 },
    ])
  })

  test('are shared by the files of one member, each with its own check', () => {
    const contents = parseEntries([file('a', 3, 90, { innerOffset: 512 }), file('b', 5, 90, { innerOffset: 1536 })])
    expect(contents.chunks[0]).toMatchObject({
      stored: { start: 90, end: FILES_END },
      size: 1541,
      checks: [{ range: { start: 512, end: 515 } }, { range: { start: 1536, end: 1541 } }],
    })
    expect(entriesOf(contents).map((each) => each.extents)).toEqual([
      [{ at: 0, chunk: 0, offset: 512, length: 3 }],
      [{ at: 0, chunk: 0, offset: 1536, length: 5 }],
    ])
  })

  test('that two files have in common are checked once', () => {
    const contents = parseEntries([file('a', 3, 90), file('b', 3, 90)])
    expect(contents.chunks[0]?.checks).toHaveLength(1)
  })

  test('include the table itself, which the manifest vouches for', () => {
    const json = JSON.stringify({ version: 1, entries: [] })
    const contents = parseJson(json)
    const digest = digestOf(new TextEncoder().encode(json))
    expect([...contents.entries]).toEqual([
      {
        path: TOC_NAME,
        mode: S_IFREG,
        uid: 0,
        gid: 0,
        mtime: 0n,
        size: json.length,
        extents: [{ at: 0, chunk: 0, offset: 512, length: json.length }],
      },
    ])
    expect(contents.chunks).toEqual([
      {
        blob: 0,
        stored: { start: FILES_END, end: FILES_END + 100 },
        size: 512 + json.length,
        codec: GZIP,
        checks: [{ of: 'decoded', range: { start: 512, end: 512 + json.length }, digest }],
      },
    ])
  })
})

describe('landmarks', () => {
  const files = [file('b', 1, 200), file('a', 1, 100)]
  test('say what is wanted first, by offset', () => {
    expect(parseEntries([...files, file(LANDMARK, 1, 300), file('c', 1, 400)]).first).toEqual([0, 1])
  })
  test('are part of the tree', () => {
    expect(entriesOf(parseEntries([file(LANDMARK, 1, 300)]))).toMatchObject([
      { path: LANDMARK, mode: S_IFREG, size: 1 },
    ])
  })
  test('say nothing when absent, elsewhere, or denied', () => {
    expect(parseEntries(files).first).toEqual([])
    expect(parseEntries([...files, file(`d/${LANDMARK}`, 1, 300)]).first).toEqual([])
    expect(parseEntries([...files, file(LANDMARK, 1, 300), file(NO_LANDMARK, 1, 400)]).first).toEqual([])
  })
})

const deep = (levels: number) => Array.from({ length: levels }, () => 'd').join('/')

describe('a layer is refused, with its digest and the entry named, when', () => {
  const rows: [why: string, code: string, entry: string, entries: unknown[]][] = [
    ['a path has ..', 'corrupt', 'a/../b', [{ name: 'a/../b', type: 'dir' }]],
    ['a path begins with ..', 'corrupt', '../x', [file('../x', 1, 10)]],
    ['a path has a NUL', 'corrupt', 'a\\u0000b', [{ name: 'a\0b', type: 'dir' }]],
    ['a path has half a character', 'corrupt', 'a\\ud800', [{ name: 'a\ud800', type: 'dir' }]],
    ['a path is empty', 'corrupt', '', [{ name: '', type: 'dir' }]],
    ['a name is too long', 'limit', 'xxx', [{ name: 'x'.repeat(256), type: 'dir' }]],
    ['a name has too many bytes', 'limit', 'ééé', [{ name: 'é'.repeat(128), type: 'dir' }]],
    ['a path is too long', 'limit', 'yyy', [{ name: Array(20).fill('y'.repeat(250)).join('/'), type: 'dir' }]],
    ['a path is too deep', 'limit', 'd/d', [{ name: deep(257), type: 'dir' }]],
    ['the root is a file', 'corrupt', './', [{ name: './', type: 'reg' }]],
    ['a type is unknown', 'corrupt', 'a', [{ name: 'a', type: 'door' }]],
    ['a type is a name of Object', 'corrupt', 'a', [{ name: 'a', type: 'constructor' }]],
    ['a type is missing', 'corrupt', 'a', [{ name: 'a' }]],
    ['a mode is negative', 'corrupt', 'a', [{ name: 'a', type: 'dir', mode: -1 }]],
    ['a uid is too large', 'corrupt', 'a', [{ name: 'a', type: 'dir', uid: 2 ** 32 }]],
    ['a gid is negative', 'corrupt', 'a', [{ name: 'a', type: 'dir', gid: -1 }]],
    ['a uid is text', 'corrupt', 'a', [{ name: 'a', type: 'dir', uid: '0' }]],
    ['a major number is too large', 'corrupt', 'a', [{ name: 'a', type: 'char', devMajor: 4096 }]],
    ['a minor number is too large', 'corrupt', 'a', [{ name: 'a', type: 'block', devMinor: 2 ** 20 }]],
    ['a time is none', 'corrupt', 'a', [{ name: 'a', type: 'dir', modtime: 'yesterday' }]],
    ['a time is a number', 'corrupt', 'a', [{ name: 'a', type: 'dir', modtime: 1 }]],
    ['a hard link has no target', 'corrupt', 'a', [{ name: 'a', type: 'hardlink' }]],
    ['a hard link leads outside', 'corrupt', 'a', [{ name: 'a', type: 'hardlink', linkName: '../../etc/shadow' }]],
    ['a hard link leads to the root', 'corrupt', 'a', [{ name: 'a', type: 'hardlink', linkName: './' }]],
    ['a symlink has no target', 'corrupt', 'a', [{ name: 'a', type: 'symlink', linkName: '' }]],
    ['a symlink has a NUL', 'corrupt', 'a', [{ name: 'a', type: 'symlink', linkName: 'x\0' }]],
    ['a symlink is too long', 'limit', 'a', [{ name: 'a', type: 'symlink', linkName: 'x'.repeat(4096) }]],
    ['an attribute is no base64', 'corrupt', 'a', [{ name: 'a', type: 'dir', xattrs: { 'user.x': '!' } }]],
    ['an attribute has no name', 'corrupt', 'a', [{ name: 'a', type: 'dir', xattrs: { '': '' } }]],
    ['attributes are a list', 'corrupt', 'a', [{ name: 'a', type: 'dir', xattrs: ['x'] }]],
    ['an attribute has a long name', 'limit', 'a', [{ name: 'a', type: 'dir', xattrs: { ['x'.repeat(256)]: '' } }]],
    ['an attribute is large', 'limit', 'a', [{ name: 'a', type: 'dir', xattrs: { x: 'A'.repeat(87388) } }]],
    ['a size is negative', 'corrupt', 'a', [file('a', -1, 10)]],
    ['a size is beyond 2^53', 'corrupt', 'a', [file('a', 2 ** 53, 10)]],
    ['a size is no whole number', 'corrupt', 'a', [file('a', 1.5, 10)]],
    ['an offset is negative', 'corrupt', 'a', [file('a', 1, -5)]],
    ['an offset is beyond 2^53', 'corrupt', 'a', [file('a', 1, 1e300)]],
    ['an offset is missing', 'corrupt', 'a', [{ ...file('a', 1, 10), offset: undefined }]],
    ['an inner offset is negative', 'corrupt', 'a', [file('a', 1, 10, { innerOffset: -1 })]],
    ['an offset lies in the table', 'corrupt', 'a', [file('a', 1, FILES_END)]],
    ['an offset lies outside the blob', 'corrupt', 'a', [file('a', 1, 10 ** 12)]],
    ['a chunk has no digest', 'corrupt', 'a', [file('a', 1, 10, { chunkDigest: undefined })]],
    ['a chunk has a digest of another kind', 'corrupt', 'a', [file('a', 1, 10, { chunkDigest: 'md5:00' })]],
    [
      'a later chunk has no digest',
      'corrupt',
      'a',
      [file('a', 2, 10, { chunkSize: 1 }), { ...chunk('a', 20, 1), chunkDigest: '' }],
    ],
    ['a chunk is too large', 'limit', 'a', [file('a', (64 << 20) + 1, 10)]],
    ['a chunk lies too far inside its member', 'limit', 'a', [file('a', 1, 10, { innerOffset: 64 << 20 })]],
    ['chunks are missing', 'corrupt', 'a', [file('a', 10, 10, { chunkSize: 4 })]],
    ['chunks leave a gap', 'corrupt', 'a', [file('a', 10, 10, { chunkSize: 4 }), chunk('a', 20, 5)]],
    ['chunks overlap', 'corrupt', 'a', [file('a', 10, 10, { chunkSize: 4 }), chunk('a', 20, 3)]],
    [
      'chunks are unsorted',
      'corrupt',
      'a',
      [file('a', 9, 10, { chunkSize: 3 }), chunk('a', 30, 6, { chunkSize: 3 }), chunk('a', 20, 3)],
    ],
    ['chunks are longer than the file', 'corrupt', 'a', [file('a', 10, 10, { chunkSize: 11 })]],
    ['a chunk follows a whole file', 'corrupt', 'a', [file('a', 10, 10), chunk('a', 20, 10)]],
    ['a chunk has a negative size', 'corrupt', 'a', [file('a', 10, 10, { chunkSize: -4 })]],
    ['a chunk belongs to no file', 'corrupt', 'a', [chunk('a', 20, 0)]],
    ['a chunk belongs to another file', 'corrupt', 'b', [file('a', 10, 10, { chunkSize: 4 }), chunk('b', 20, 4)]],
    ['a chunk follows a directory', 'corrupt', 'a', [{ name: 'a', type: 'dir' }, chunk('a', 20, 0)]],
    ['files overlap in a member', 'corrupt', 'b', [file('a', 9, 10), file('b', 9, 10, { innerOffset: 8 })]],
    ['one piece has two digests', 'corrupt', '"', [file('a', 9, 10), file('b', 9, 10, { chunkDigest: OTHER_DIGEST })]],
    ['one file is inside another', 'corrupt', '"', [file('a', 9, 10), file('b', 3, 10, { innerOffset: 3 })]],
  ]
  for (const [why, code, entry, entries] of rows) {
    test(why, () => check(() => parseEntries(entries), code, entry))
  }
})

describe('a table is refused when', () => {
  const rows: [why: string, code: string, json: string | Uint8Array][] = [
    ['it is empty', 'corrupt', ''],
    ['it is a list', 'corrupt', '[]'],
    ['it is cut off', 'corrupt', '{"version":1,"entries":[{"name":"a","type":"dir"},'],
    ['it is cut off in a string', 'corrupt', '{"version":1,"entries":[{"name":"a'],
    ['it has no entries', 'corrupt', '{"version":1}'],
    ['its entries are an object', 'corrupt', '{"version":1,"entries":{}}'],
    ['its entries are no null', 'corrupt', '{"version":1,"entries":nulls}'],
    ['its entries are half a null', 'corrupt', '{"version":1,"entries":nul'],
    ['it has null and a list', 'corrupt', '{"entries":null,"entries":[]}'],
    ['an entry is a number', 'corrupt', '{"version":1,"entries":[1]}'],
    ['an entry has no name', 'corrupt', '{"version":1,"entries":[{"type":"dir"}]}'],
    ['an entry is no JSON', 'corrupt', '{"version":1,"entries":[{"name":a}]}'],
    ['brackets do not match', 'corrupt', '{"version":1,"entries":[{"name":"a","type":"dir"]]}'],
    ['a comma is missing', 'corrupt', '{"version":1,"entries":[{"name":"a","type":"dir"}{"name":"b","type":"dir"}]}'],
    ['a comma is too many', 'corrupt', '{"version":1,"entries":[{"name":"a","type":"dir"},]}'],
    ['something follows it', 'corrupt', '{"version":1,"entries":[]} x'],
    ['it has two lists', 'corrupt', '{"entries":[],"entries":[]}'],
    ['it is of version 2', 'unsupported', '{"version":2,"entries":[]}'],
    [
      'it is no UTF-8',
      'corrupt',
      Buffer.concat([Buffer.from('{"entries":[{"name":"'), Buffer.from([0xff]), Buffer.from('"}]}')]),
    ],
    ['it nests too deep in an entry', 'limit', `{"entries":[{"name":${'['.repeat(1_000_000)}}]}`],
    ['it nests too deep outside of entries', 'limit', `{"x":${'{"x":'.repeat(1_000_000)}`],
    ['an entry is too long', 'limit', `{"entries":[{"name":"a","x":"${'x'.repeat(2 << 20)}"}]}`],
    ['a key is too long', 'limit', `{"${'x'.repeat(2 << 20)}":1,"entries":[]}`],
  ]
  for (const [why, code, json] of rows) {
    test(why, () => check(() => parseJson(json), code, ''))
  }

  test('it has too many entries', () => {
    const entries = Buffer.alloc(2_000_001 * 27, '{"name":"a","type":"fifo"},').subarray(0, -1)
    const json = Buffer.concat([Buffer.from('{"entries":['), entries, Buffer.from(']}')])
    check(() => parseJson(json), 'limit', '')
  })
})

test('entries of null are none, as Go writes and reads them', () => {
  for (const json of ['{"version":1,"entries":null}', '{"entries" :\n null , "version":1}']) {
    expect(entriesOf(parseJson(json))).toEqual([])
  }
})

test('what a table says beside its entries does not matter', () => {
  const contents = parseJson(
    ' {"x":{"entries":[1]} , "version" : 1,\n"entries" : [ {"name":"a\\"]}","type":"dir"} , {"name":"b","type":"fifo"}], "y":[[]],"z":"}"} ',
  )
  expect(entriesOf(contents).map((each) => each.path)).toEqual(['a"]}', 'b'])
})

function check(parse: () => Contents, code: string, entry: string): void {
  let failure: unknown
  try {
    parse()
  } catch (error) {
    failure = error
  }
  expect(failure).toBeInstanceOf(Failure)
  const { code: got, message } = failure as Failure
  expect({ code: got, message }).toEqual({ code, message: expect.stringContaining(`layer ${LAYER_DIGEST}`) })
  expect(message).toContain(entry)
  expect(message.length).toBeLessThan(1000)
}
