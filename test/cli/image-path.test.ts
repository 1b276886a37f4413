import { expect, test } from 'vitest'
import { cleaned, find } from '../../src/cli/image-path.ts'
import { Failure } from '../../src/errors.ts'
import { buildTree } from '../../src/tree/build.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { dir, file, layer, symlink } from '../tree/layer.ts'

const { image } = buildTree(
  layer([
    dir('bin'),
    file('bin/sh', 'a shell'),
    symlink('bin/bash', 'sh'),
    dir('etc'),
    file('etc/passwd', 'passwords'),
    symlink('etc/absolute', '/bin/sh'),
    symlink('etc/above', '../../../../bin/sh'),
    symlink('etc/dot', './././passwd'),
    symlink('usr', '/bin'),
    dir('usr-real'),
    dir('usr-real/lib'),
    symlink('lib', 'usr-real/lib'),
    symlink('deep', 'lib/../lib'),
    symlink('deep-up', 'lib/..'),
    symlink('loop', 'loop'),
    symlink('ping', 'pong'),
    symlink('pong', '/ping'),
    symlink('dangling', 'nowhere/at/all'),
    symlink('through-file', 'bin/sh/..'),
    symlink('root', '/'),
    symlink('up', '..'),
    ...Array.from({ length: 41 }, (_, i) => symlink(`chain${i}`, i === 0 ? 'bin/sh' : `chain${i - 1}`)),
  ]),
)
const reader = new ErofsReader(image)
const nid = (path: string) => reader.resolve(path)

test.each([
  ['bin/sh', 'bin/sh'],
  ['/bin/sh', 'bin/sh'],
  ['//bin/./sh/', 'bin/sh'],
  ['bin/bash', 'bin/sh'],
  ['etc/absolute', 'bin/sh'],
  ['etc/dot', 'etc/passwd'],
  ['usr/bash', 'bin/sh'],
  // as shells have it, whatever the names before it lead to
  ['usr/../etc/passwd', 'etc/passwd'],
  ['lib/../etc/passwd', 'etc/passwd'],
  ['nowhere/../bin/sh', 'bin/sh'],
  ['bin/sh/../sh', 'bin/sh'],
  ['bin/sh/..', 'bin'],
  ['lib/./x/../../etc//passwd', 'etc/passwd'],
  // a symlink's own is the kernel's
  ['deep', 'usr-real/lib'],
  ['deep-up', 'usr-real'],
  ['root/root/bin/sh', 'bin/sh'],
  ['chain39', 'bin/sh'],
  ['', ''],
  ['.', ''],
  ['/', ''],
])('%j is %j', (path, is) => {
  expect(find(reader, path).nid).toBe(nid(is))
})

test.each([
  ['..', ''],
  ['../../..', ''],
  ['../bin/sh', 'bin/sh'],
  ['etc/above', 'bin/sh'],
  ['up/up/bin/sh', 'bin/sh'],
])('%j leads no higher than the root: %j', (path, is) => {
  expect(find(reader, path).nid).toBe(nid(is))
})

test.each([['loop'], ['ping'], ['pong/x'], ['chain40']])('%j has too many symlinks', (path) => {
  expect(() => find(reader, path)).toThrow(
    expect.objectContaining({ code: 'usage', message: `${path} has more than 40 symlinks on its way` }),
  )
})

test.each([['nowhere'], ['bin/nowhere'], ['bin/sh/more'], ['through-file'], ['dangling']])(
  '%j is not there',
  (path) => {
    expect(() => find(reader, path)).toThrow(Failure)
    expect(() => find(reader, path)).toThrow(expect.objectContaining({ code: 'missing' }))
  },
)

test('a path is its names', () => {
  expect(cleaned('//a/./b/../c/')).toEqual(['a', 'c'])
  expect(cleaned('../../a/../..')).toEqual([])
})
