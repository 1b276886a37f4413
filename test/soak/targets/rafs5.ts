// Bootstraps of RAFS v5.
import { S_IFCHR } from '../../../src/tree/entry.ts'
import { BLOB, craft5, dir5, file5 } from '../../format/nydus/v5/rafs5-craft.ts'
import type { Target } from '../target.ts'
import { readNydus } from './nydus.ts'
import { sampleBootstrap } from './samples.ts'

const xattrs = { 'user.a': 'one', 'trusted.b': 'two' }
const shared = { size: 4096, offset: 100, index: 1, digest: 1 }
const chunks = [shared, { size: 900, offset: 5000, fileOffset: 4096, index: 2 }]
const tree = dir5('/', [
  dir5('bin', [file5('large', chunks, { xattrs }), file5('linked', chunks, { ino: 7 })]),
  dir5('empty'),
  { name: 'link', target: '../bin/large' },
  { name: 'null', mode: S_IFCHR | 0o666, rdev: 0x103 },
  file5('sparse', [{ size: 10, fileOffset: 2000 }], { size: 9000 }),
])

export const rafs5: Target = {
  name: 'rafs5',
  seeds: [
    craft5({ root: tree, prefetch: [2, 4] }).bytes,
    craft5({
      root: { children: [file5('a', [shared], { ino: 2 }), file5('b', [shared], { ino: 2 })] },
      blobs: [BLOB, 'cd'.repeat(32)],
    }).bytes,
    ...sampleBootstrap('v5-zstd-prefetch'),
  ],
  run: (bytes) => readNydus(bytes),
}
