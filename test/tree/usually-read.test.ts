import { describe, expect, test } from 'vitest'
import { growTree } from '../../src/tree/entries.ts'
import { ZEROS } from '../../src/tree/entry.ts'
import { usuallyRead } from '../../src/tree/usually-read.ts'

/** Chunks of files of one chunk each, numbered in this order. */
function read(paths: readonly string[], saysFirst: boolean, size = 10): string[] {
  const entries = paths.map((path, chunk) => {
    const extents = [{ at: 0, chunk, offset: 0, length: size }]
    return { path, mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size, extents }
  })
  return usuallyRead(growTree(entries).files, saysFirst).map((chunk) => paths[chunk] as string)
}

const LOADERS = [
  'etc/ld.so.cache',
  'lib64/ld-linux-x86-64.so.2',
  'usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1',
  'lib/ld-musl-x86_64.so.1',
  'lib/libc.musl-x86_64.so.1',
  'usr/lib/x86_64-linux-gnu/libc.so.6',
]
const OTHERS = [
  'app/etc/passwd',
  'etc/group-',
  'etc/shadow',
  'usr/lib/x86_64-linux-gnu/libcrypt.so.1',
  'usr/lib/a/b/libc.so.6',
  'usr/lib/libc.so',
]

describe('what is usually read', () => {
  test('engines read users and groups of every image, programs their loader where nothing says what they read', () => {
    const paths = ['etc/group', 'etc/passwd', ...LOADERS, ...OTHERS]
    expect(read(paths, false)).toEqual(['etc/group', 'etc/passwd', ...LOADERS])
    expect(read(paths, true)).toEqual(['etc/group', 'etc/passwd'])
  })

  test('nobody has a large file of such a name fetched', () => {
    expect(read(['etc/passwd'], true, 4 << 20)).toEqual(['etc/passwd'])
    expect(read(['etc/passwd'], true, (4 << 20) + 1)).toEqual([])
  })

  test('holes are no chunks', () => {
    const extents = [
      { at: 0, chunk: ZEROS, offset: 0, length: 4096 },
      { at: 4096, chunk: 7, offset: 0, length: 10 },
    ]
    const entry = { path: 'etc/passwd', mode: 0o100644, uid: 0, gid: 0, mtime: 0n, size: 4106, extents }
    expect(usuallyRead(growTree([entry]).files, true)).toEqual([7])
  })
})
