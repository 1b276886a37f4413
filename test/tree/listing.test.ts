// The comparison that other tests trust: what differs is said, what is the same is not.
import { symlink as makeSymlink, mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { compare, type Line, listTree } from '../fixtures/listing.ts'

const base = { mode: '0o755', uid: 0, gid: 0, mtime: 5 }
const root: Line = { path: '.', type: 'dir', ...base }
const dir = (path: string, more: Partial<Line> = {}): Line => ({ path, type: 'dir', ...base, ...more })
const file = (path: string, more: Partial<Line> = {}): Line => ({
  path,
  type: 'file',
  ...base,
  size: 1,
  sha256: 'aa',
  ...more,
})
const whiteout = (path: string, more: Partial<Line> = {}): Line => ({
  path,
  type: 'char',
  ...base,
  mode: '0o0',
  rdev: [0, 0],
  ...more,
})
const OPAQUE = { 'trusted.overlay.opaque': '79' }
const made = { mode: '0o755', uid: 0, gid: 0, mtime: 0 }

function check(title: string, expected: Line[], actual: Line[], differences: string[], options = {}) {
  test(title, () => {
    const found = actual.map((line, i) => ({ inode: i + 1, links: 1, nanoseconds: 0, ...line }))
    expect(compare([root, ...expected], [root, ...found], options)).toEqual(differences)
  })
}

describe('a difference is said', () => {
  check(
    'nothing, where there is none',
    [file('a', { xattrs: { 'user.b': '1', 'user.a': '2' } })],
    [file('a', { xattrs: { 'user.a': '2', 'user.b': '1' } })],
    [],
  ) // prettier-ignore
  check('missing', [file('a')], [], ['a: missing'])
  check('unexpected', [], [file('a')], ['a: not expected'])
  const changes: [Partial<Line>, string][] = [
    [{ type: 'fifo' }, 'a: type is "fifo", expected "file"'],
    [{ mode: '0o644' }, 'a: mode is "0o644", expected "0o755"'],
    [{ uid: 1 }, 'a: uid is 1, expected 0'],
    [{ gid: 1 }, 'a: gid is 1, expected 0'],
    [{ mtime: 6 }, 'a: mtime is 6, expected 5'],
    [{ size: 2 }, 'a: size is 2, expected 1'],
    [{ sha256: 'bb' }, 'a: sha256 is "bb", expected "aa"'],
    [{ target: 'x' }, 'a: target is "x", expected nothing'],
    [{ rdev: [1, 3] }, 'a: rdev is [1,3], expected nothing'],
    [{ xattrs: { 'user.a': '00' } }, 'a: xattrs is {"user.a":"00"}, expected nothing'],
  ]
  for (const [change, difference] of changes) {
    check(`in ${Object.keys(change)}`, [file('a')], [file('a', change)], [difference])
    check(`but not if ignored, in ${Object.keys(change)}`, [file('a')], [file('a', change)], [], {
      ignore: Object.keys(change),
    })
  }
  check(
    'in nanoseconds where they are expected',
    [file('a', { nanoseconds: 1 }), file('b')],
    [file('a', { nanoseconds: 2 }), file('b', { nanoseconds: 2 })],
    ['a: nanoseconds is 2, expected 1'],
  )
  check(
    'in the metadata of a parent that no entry describes',
    [file('d/a')],
    [dir('d'), file('d/a')],
    ['d: mtime is 5, expected 0'],
  )
  check('not for such a parent as it should be', [file('d/a')], [dir('d', made), file('d/a')], [])
  check("not for the format's own files and what is below them", [], [file('own'), dir('d'), file('d/x')], [], {
    extra: ['own', 'd'],
  })
})

describe('hard links are groups of names of one inode', () => {
  const a = file('a')
  const b: Line = { ...base, path: 'b', type: 'hardlink', target: 'a' }
  const c: Line = { ...base, path: 'c', type: 'hardlink', target: 'b' }
  check('the same', [a, b, c], [file('a', { inode: 9 }), file('b', { inode: 9 }), file('c', { inode: 9 })], [])
  check(
    'a copy instead of a link',
    [a, b, c],
    [file('a', { inode: 9 }), file('b', { inode: 9 }), file('c')],
    ['hard links expected: a = b = c', 'hard links not expected: a = b'],
  ) // prettier-ignore
  check(
    'a link instead of a copy',
    [a, file('b')],
    [file('a', { inode: 9 }), file('b', { inode: 9 })],
    ['hard links not expected: a = b'],
  ) // prettier-ignore
  check(
    'a link to another content',
    [a, b],
    [file('a', { inode: 9 }), file('b', { inode: 9, sha256: 'bb' })],
    ['b: sha256 is "bb", expected "aa"'],
  ) // prettier-ignore
})

describe('whiteouts are translated', () => {
  check('to the device 0:0', [file('d/.wh.x')], [dir('d', made), whiteout('d/x')], [])
  check('and not shown under their own name', [file('.wh.x')], [file('.wh.x')], ['.wh.x: not expected', 'x: missing'])
  check(
    'a device with other numbers is none',
    [file('.wh.x')],
    [whiteout('x', { rdev: [1, 3] })],
    ['x: rdev is [1,3], expected [0,0]'],
  )
  check('to opaque xattrs', [dir('d'), file('d/.wh..wh..opq')], [dir('d', { xattrs: OPAQUE })], [])
  check(
    'opaque xattrs are missed',
    [dir('d'), file('d/.wh..wh..opq')],
    [dir('d')],
    [`d: xattrs is nothing, expected ${JSON.stringify(OPAQUE)}`],
  ) // prettier-ignore
  check("aufs's own files are none", [file('.wh..wh.aufs'), dir('.wh..wh.plnk'), file('.wh..wh.plnk/x')], [], [])
  check('an entry of the same name stays', [file('.wh.x'), file('x')], [file('x')], [])
  check("an image's own overlay xattrs are not expected", [dir('d', { xattrs: OPAQUE })], [dir('d')], [])
})

test('a directory is listed with names, times, contents, links and targets', async () => {
  const top = await mkdtemp(join(tmpdir(), 'lazylayer-listing-'))
  try {
    await mkdir(join(top, 'd'))
    await writeFile(join(top, 'd', 'é'), 'hello', { mode: 0o640 })
    await utimes(join(top, 'd', 'é'), new Date(1500), new Date(-1500))
    await makeSymlink('d/é', join(top, 'link'))
    const lines = await listTree(top)
    expect(lines.map(({ path, type }) => `${path} ${type}`)).toEqual(['. dir', 'd dir', 'd/é file', 'link symlink'])
    expect(lines[2]).toMatchObject({
      mode: '0o640',
      mtime: -2,
      nanoseconds: 500_000_000,
      size: 5,
      sha256: '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824',
      links: 1,
    })
    expect(lines[3]).toMatchObject({ target: 'd/é' })
  } finally {
    await rm(top, { recursive: true })
  }
})
