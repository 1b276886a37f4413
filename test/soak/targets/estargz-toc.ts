// The table of contents of eStargz: JSON.
import { estargz } from '../../../src/format/estargz/estargz.ts'
import { file, indexOf, layerOf, SOME_DIGEST } from '../../format/craft.ts'
import type { Target } from '../target.ts'
import { usualOutcome } from '../usual.ts'
import { outcomeOf } from '../well-formed.ts'

const ENTRIES = [
  { name: 'bin/', type: 'dir', mode: 0o755, modtime: '2023-11-14T22:13:20.5Z' },
  file('bin/large', 40, 20, { chunkSize: 30, xattrs: { 'user.a': 'b25l' } }),
  { name: 'bin/large', type: 'chunk', offset: 50, chunkOffset: 30, chunkDigest: SOME_DIGEST },
  file('bin/one', 10, 100),
  file('bin/two', 10, 100, { innerOffset: 522 }),
  { name: 'bin/linked', type: 'hardlink', linkName: 'bin/large' },
  { name: 'sh', type: 'symlink', linkName: 'bin/large', uid: 7, gid: 4_000_000_000 },
  { name: 'null', type: 'char', devMajor: 1, devMinor: 3 },
  { name: 'bin/.wh.gone', type: 'reg' },
  { name: '.prefetch.landmark', type: 'reg', size: 1, offset: 90, chunkDigest: SOME_DIGEST },
]

const json = (entries: readonly object[]) => new TextEncoder().encode(JSON.stringify({ version: 1, entries }))

const seeds = [json(ENTRIES), json(ENTRIES.slice(0, 3)), json([...ENTRIES.slice(3, 5), ...ENTRIES.slice(6)])]

/** The same natively, beside it. */
export const estargzUsual: Target = {
  name: 'estargz-usual',
  seeds,
  run: (bytes) => usualOutcome(indexOf(bytes), layerOf(bytes)),
}

export const estargzToc: Target = {
  name: 'estargz-toc',
  seeds,
  run: (bytes) => outcomeOf(() => estargz.parseIndex(indexOf(bytes), layerOf(bytes))),
}
