// Bootstraps of RAFS v6.
import { packIndex } from '../../../src/format/nydus/nydus-index.ts'
import { S_IFCHR } from '../../../src/tree/entry.ts'
import { craft6, dir6, file6, type Node6 } from '../../format/nydus/v6/rafs6-craft.ts'
import type { Target } from '../target.ts'
import { usualOutcome } from '../usual.ts'
import { readNydus, UNIT } from './nydus.ts'
import { sampleBootstrap } from './samples.ts'

const large = file6(
  [
    { index: 1, size: 4096, offset: 100, digest: 1 },
    { index: 2, size: 900, offset: 5000 },
  ],
  { xattrs: { '1:a': 'one', '6:capability': 'two' } },
)
const bin = dir6({ large, linked: large, small: file6([{ index: 3, size: 7, offset: 7000 }], { compact: true }) })
const tree = dir6({
  bin,
  empty: dir6(),
  link: { target: '../bin/large' },
  null: { mode: S_IFCHR | 0o666, u: 0x103 },
  nothing: file6(),
})
/** A directory of two blocks. */
const many: Record<string, Node6> = Object.fromEntries(
  Array.from({ length: 60 }, (_, i) => [`${i}`.repeat(40), { target: 'x' }]),
)

const seeds = [
  craft6({ root: tree, prefetch: [bin, large], chunkSize: 4096 }).bytes,
  craft6({ root: dir6({ many: dir6(many) }) }).bytes,
  ...sampleBootstrap('v6-zstd-prefetch'),
]

/** The same natively, beside it. */
export const rafs6Usual: Target = {
  name: 'rafs6-usual',
  seeds: seeds.slice(0, 2), // bootstraps of single layers name no blob
  run: (bytes) => usualOutcome(packIndex({ bootstrap: bytes, tables: [] }), UNIT),
}

export const rafs6: Target = {
  name: 'rafs6',
  seeds,
  run: (bytes) => readNydus(bytes),
}
