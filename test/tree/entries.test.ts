import { describe, expect, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { buildTree } from '../../src/tree/build.ts'
import { growTree } from '../../src/tree/entries.ts'
import type { Entry } from '../../src/tree/entry.ts'
import { S_IFLNK } from '../../src/tree/entry.ts'
import { dir, fifo, file, fillDevice, layer, link, type Spec, symlink } from './layer.ts'
import { show } from './show.ts'

const OPAQUE = 'trusted.overlay.opaque=y'

function check(title: string, specs: Spec[], expected: string[]) {
  test(title, () => {
    const source = layer(specs)
    const tree = buildTree(source)
    expect(show(tree.image, { devices: [fillDevice(tree, source.decoded)] })).toEqual(expected)
  })
}

describe('a tree has what its entries say', () => {
  check('without entries it is an empty root', [], ['/ dir 755 0:0'])
  check(
    'the root takes the metadata of the entry without a path',
    [dir('', { mode: 0o40700, uid: 5, gid: 6 })],
    ['/ dir 700 5:6'],
  )
  check(
    'missing parents are 0755 root:root',
    [file('a/b/c', 'x', { uid: 9 })],
    ['/ dir 755 0:0', 'a dir 755 0:0', 'a/b dir 755 0:0', 'a/b/c file 644 9:0 "x"'],
  )
  check(
    'every type of file',
    [
      file('file', 'hello', { mode: 0o104755, uid: 70000, gid: 4294967294 }),
      symlink('link', '../there'),
      fifo('pipe'),
      { ...fifo('socket'), mode: 0o140600 },
      { ...fifo('null'), mode: 0o020666, rdev: [1, 3] },
      { ...fifo('disk'), mode: 0o060660, rdev: [4095, 1048575] },
    ],
    [
      '/ dir 755 0:0',
      'disk block 660 0:0 4095:1048575',
      'file file 4755 70000:4294967294 "hello"',
      'link symlink 777 0:0 -> ../there',
      'null char 666 0:0 1:3',
      'pipe fifo 600 0:0',
      'socket socket 600 0:0',
    ],
  )
})

describe('of the same path twice, the last wins', () => {
  check('a file over a file', [file('a', 'old'), file('a', 'new')], ['/ dir 755 0:0', 'a file 644 0:0 "new"'])
  check(
    'a directory over a directory keeps the children',
    [dir('d'), file('d/x'), dir('d', { mode: 0o40700 })],
    ['/ dir 755 0:0', 'd dir 700 0:0', 'd/x file 644 0:0 0'],
  )
  check(
    'a directory over a missing parent keeps the children',
    [file('d/x'), dir('d', { uid: 7 })],
    ['/ dir 755 0:0', 'd dir 755 7:0', 'd/x file 644 0:0 0'],
  )
  check('a file over a directory', [file('d/x/y'), file('d')], ['/ dir 755 0:0', 'd file 644 0:0 0'])
  check('a directory over a file', [file('d', 'x'), dir('d')], ['/ dir 755 0:0', 'd dir 755 0:0'])
  check('a symlink over a directory', [file('d/x'), symlink('d', 'e')], ['/ dir 755 0:0', 'd symlink 777 0:0 -> e'])
  check(
    "a symlink's mode is Linux's, whatever the tar says",
    [0o777, 0o644, 0, 0o7755].map((mode, i) => symlink(`l${i}`, 't', { mode: S_IFLNK | mode })),
    ['/ dir 755 0:0', ...[0, 1, 2, 3].map((i) => `l${i} symlink 777 0:0 -> t`)],
  )
})

describe('hard links', () => {
  check(
    'to an earlier and to a later entry',
    [link('a', 'b'), file('b', 'x'), link('c', 'b')],
    [
      '/ dir 755 0:0',
      'a file 644 0:0 "x" (3 links of a)',
      'b file 644 0:0 "x" (3 links of a)',
      'c file 644 0:0 "x" (3 links of a)',
    ],
  )
  check(
    'through other links, in any order',
    [link('a', 'b'), link('b', 'd/c'), file('d/c', 'x'), link('e', 'a')],
    [
      '/ dir 755 0:0',
      'a file 644 0:0 "x" (4 links of a)',
      'b file 644 0:0 "x" (4 links of a)',
      'd dir 755 0:0',
      'd/c file 644 0:0 "x" (4 links of a)',
      'e file 644 0:0 "x" (4 links of a)',
    ],
  )
  check(
    'to what bore the name then, as in tar',
    [file('a', 'old'), link('b', 'a'), file('a', 'new')],
    ['/ dir 755 0:0', 'a file 644 0:0 "new"', 'b file 644 0:0 "old"'],
  )
  check(
    'to symlinks and devices',
    [symlink('s', 't'), link('s2', 's'), { ...fifo('p'), mode: 0o020600, rdev: [5, 1] }, link('p2', 'p')],
    [
      '/ dir 755 0:0',
      'p char 600 0:0 5:1 (2 links of p)',
      'p2 char 600 0:0 5:1 (2 links of p)',
      's symlink 777 0:0 -> t (2 links of s)',
      's2 symlink 777 0:0 -> t (2 links of s)',
    ],
  )
  check(
    'a dangling link that a later entry replaced is no matter',
    [link('a', 'nowhere'), file('a', 'x')],
    ['/ dir 755 0:0', 'a file 644 0:0 "x"'],
  )
})

describe('whiteouts', () => {
  check(
    'become the device 0:0 with owner, without permissions',
    [file('d/.wh.gone', '', { uid: 3 })],
    ['/ dir 755 0:0', 'd dir 755 0:0', 'd/gone char 0 3:0 0:0'],
  )
  check('of any type', [dir('.wh.gone')], ['/ dir 755 0:0', 'gone char 0 0:0 0:0'])
  check(
    'an entry of the same name wins after it',
    [file('.wh.a'), file('a', 'x')],
    ['/ dir 755 0:0', 'a file 644 0:0 "x"'],
  )
  check('and before it', [file('a', 'x'), file('.wh.a')], ['/ dir 755 0:0', 'a file 644 0:0 "x"'])
  check(
    'a directory of the same name is opaque, also one that only its children imply',
    [file('.wh.a'), dir('a'), file('.wh.b'), file('b/x')],
    ['/ dir 755 0:0', `a dir 755 0:0 ${OPAQUE}`, `b dir 755 0:0 ${OPAQUE}`, 'b/x file 644 0:0 0'],
  )
  check(
    'an opaque directory keeps its other xattrs, whatever comes first',
    [file('d/.wh..wh..opq'), dir('d', { xattrs: new Map([['user.a', Buffer.from('1')]]) })],
    ['/ dir 755 0:0', 'd dir 755 0:0 trusted.overlay.opaque=y user.a=1'],
  )
  check('the root can be opaque', [file('.wh..wh..opq')], [`/ dir 755 0:0 ${OPAQUE}`])
  check(
    'a directory that a file replaced is not opaque again',
    [file('d/.wh..wh..opq'), file('d'), dir('d')],
    ['/ dir 755 0:0', 'd dir 755 0:0'],
  )
  check(
    "aufs's bookkeeping is dropped with what is below it",
    [file('.wh..wh.aufs'), dir('.wh..wh.plnk'), file('.wh..wh.plnk/1.2', 'x'), file('d/.wh..wh.orph')],
    ['/ dir 755 0:0'],
  )
})

describe('xattrs', () => {
  check(
    'of the namespaces that Linux has are kept, binary ones too, in the order of their names',
    [
      file('a', '', {
        xattrs: new Map([
          ['user.b', Uint8Array.of(0, 255, 0)],
          ['security.capability', Buffer.from('c')],
          ['trusted.t', Buffer.from('')],
          ['system.posix_acl_access', Buffer.from('a')],
          ['user.a', Buffer.from('1')],
        ]),
      }),
    ],
    [
      '/ dir 755 0:0',
      'a file 644 0:0 0 security.capability=c system.posix_acl_access=a trusted.t= user.a=1 user.b=\0\xff\0',
    ],
  )
  check(
    "overlayfs's own and those that no Linux filesystem holds are dropped",
    [
      dir('d', {
        xattrs: new Map(
          [
            'trusted.overlay.opaque',
            'user.overlay.redirect',
            'com.apple.quarantine',
            'system.other',
            'system.posix_acl_access2',
            'user.',
          ].map((name) => [name, Buffer.from('y')]),
        ),
      }),
    ],
    ['/ dir 755 0:0', 'd dir 755 0:0'],
  )
})

describe('xattrs that a type of file cannot have', () => {
  const all = new Map(
    ['security.s', 'system.posix_acl_access', 'trusted.t', 'user.u'].map((each) => [each, Buffer.from('1')]),
  )
  check(
    'are dropped: user. but of files and directories, ACLs of symlinks',
    [
      dir('d', { xattrs: all }),
      file('f', '', { xattrs: all }),
      symlink('l', 't', { xattrs: all }),
      fifo('p', { xattrs: all }),
    ],
    [
      '/ dir 755 0:0',
      'd dir 755 0:0 security.s=1 system.posix_acl_access=1 trusted.t=1 user.u=1',
      'f file 644 0:0 0 security.s=1 system.posix_acl_access=1 trusted.t=1 user.u=1',
      'l symlink 777 0:0 -> t security.s=1 trusted.t=1',
      'p fifo 600 0:0 security.s=1 system.posix_acl_access=1 trusted.t=1',
    ],
  )
})

describe('names are sorted by their bytes', () => {
  check(
    'beyond the basic plane and before the dot',
    ['\u{1f600}', '\uffee', 'é', 'z', '!', '-', '..a', '.a', 'A'].map((name) => file(name)),
    [
      '/ dir 755 0:0',
      ...['!', '-', '..a', '.a', 'A', 'z', 'é', '\uffee', '\u{1f600}'].map((name) => `${name} file 644 0:0 0`),
    ],
  )
})

describe('refused, naming the entry', () => {
  function refuse(title: string, specs: Spec[], code: string, message: RegExp) {
    test(title, () => {
      const { entries } = layer(specs)
      const failure = caught(() => growTree(entries))
      expect(failure).toBeInstanceOf(Failure)
      expect(failure).toMatchObject({ code, message: expect.stringMatching(message) })
    })
  }
  const long = (bytes: number) => 'x'.repeat(bytes)
  for (const path of ['/a', 'a/', 'a//b', '.', 'a/./b', '..', 'a/../b', 'a\0b', 'a\ud800b']) {
    refuse(`the path ${JSON.stringify(path)}`, [file(path)], 'corrupt', /is no path/)
  }
  refuse('a name of 256 bytes', [file(long(256))], 'limit', /name of more than 255 bytes/)
  refuse('a name of 128 two-byte letters', [file('é'.repeat(128))], 'limit', /name of more than 255 bytes/)
  refuse('a path of 4097 bytes', [file(`${'ab/'.repeat(1365)}ab`)], 'limit', /longer than 4096 bytes/)
  refuse('257 directories deep', [file(`${'a/'.repeat(256)}a`)], 'limit', /deeper than 256/)
  refuse('below a file', [file('a'), file('a/b')], 'corrupt', /"a\/b" lies below "a", which is no directory/)
  refuse('below a hard link', [file('x'), link('a', 'x'), file('a/b')], 'corrupt', /"a\/b" lies below "a"/)
  refuse(
    'below a symlink',
    [symlink('a', 'b'), file('a/b')],
    'unsupported',
    /"a\/b" lies below "a", which is a symlink/,
  )
  refuse('below a whiteout', [file('.wh.a/b')], 'corrupt', /below a whiteout/)
  for (const name of ['.wh.', '.wh..', '.wh...']) refuse(`the whiteout ${name}`, [file(name)], 'corrupt', /no name/)
  refuse('a root that is no directory', [file('')], 'corrupt', /root is no directory/)
  refuse('a link to itself', [link('a', 'a')], 'corrupt', /"a" is a hard link to itself/)
  refuse('a link to what it replaces', [file('a/b'), link('a', 'a/b')], 'corrupt', /"a" is a hard link to itself/)
  refuse('links in a circle', [link('a', 'b'), link('b', 'c'), link('c', 'a')], 'corrupt', /hard link to itself/)
  refuse('a link to nothing', [link('a', 'b')], 'corrupt', /"a" is a hard link to "b", which is not there/)
  for (const to of ['', '..', '../a', '/a', 'b\0']) {
    refuse(`a link to ${JSON.stringify(to)}`, [link('a', to)], 'corrupt', /^the target of hard link "a" is no path$/)
  }
  refuse('a link to a directory', [dir('d'), link('a', 'd')], 'corrupt', /"a" is a hard link to a directory/)
  refuse('a link to a whiteout', [file('.wh.x'), link('a', '.wh.x')], 'corrupt', /which is not there/)
  refuse('a symlink to nothing', [symlink('a', '')], 'corrupt', /"a" is a symlink to nothing/)
  refuse('a symlink with a NUL', [symlink('a', 'b\0c')], 'corrupt', /target is no path/)
  refuse('a symlink of 4096 bytes', [symlink('a', long(4096))], 'limit', /longer than 4095/)
  refuse('no file type', [{ ...file('a'), mode: 0o644 }], 'corrupt', /no file type/)
  refuse('an unknown file type', [{ ...file('a'), mode: 0o170644 }], 'corrupt', /no file type/)
  refuse('a mode of 17 bits', [{ ...file('a'), mode: 0o300644 }], 'corrupt', /no mode/)
  for (const uid of [-1, 1.5, 2 ** 32 - 1, Number.NaN])
    refuse(`uid ${uid}`, [file('a', '', { uid })], 'corrupt', /no owner/)
  for (const gid of [-1, 2 ** 32]) refuse(`gid ${gid}`, [file('a', '', { gid })], 'corrupt', /no owner/)
  refuse('a time beyond numbers', [file('a', '', { mtime: 1n << 90n })], 'limit', /no time/)
  refuse('a device without numbers', [{ ...fifo('a'), mode: 0o020600 }], 'corrupt', /no device/)
  refuse('a major of 13 bits', [{ ...fifo('a'), mode: 0o020600, rdev: [4096, 0] }], 'corrupt', /no device/)
  refuse('a negative size', [{ ...dir('a'), mode: 0o100644, size: -1 }], 'corrupt', /no size/)
  refuse('a file of more than 8 TiB', [{ ...dir('a'), mode: 0o100644, size: 2 ** 43 + 1 }], 'limit', /at most/)
  refuse(
    'an empty file with contents',
    [{ ...dir('a'), mode: 0o100644, extents: [{ at: 0, chunk: 0, offset: 0, length: 1 }] }],
    'corrupt',
    /empty and has contents/,
  )
  const withXattr = (name: string, bytes: number) => [
    file('a', '', { xattrs: new Map([[name, new Uint8Array(bytes)]]) }),
  ]
  refuse('an xattr of 64 KiB', withXattr('user.a', 65536), 'limit', /65536 bytes, at most 65535/)
  refuse('an xattr name of 256 bytes', withXattr(`user.${long(251)}`, 0), 'limit', /more than 255 bytes/)
  refuse('an xattr name with a NUL', withXattr('user.a\0', 0), 'corrupt', /no name/)
  refuse(
    'xattrs of more than 256 KiB together',
    [file('a', '', { xattrs: new Map([1, 2, 3, 4].map((i) => [`user.${i}`, new Uint8Array(65535)])) })],
    'limit',
    /bytes of xattrs/,
  )
  test('more than two million entries, implied directories included', () => {
    function* deep(): Generator<Entry> {
      for (let i = 0; ; i++) yield { ...fifo(`${i}/${'a/'.repeat(200)}b`), mode: 0o010600 } as Entry
    }
    expect(caught(() => growTree(deep()))).toMatchObject({ code: 'limit', message: expect.stringContaining('2000000') })
  })
})

function caught(what: () => unknown): unknown {
  try {
    what()
  } catch (error) {
    return error
  }
  return undefined
}
