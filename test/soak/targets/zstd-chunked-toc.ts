// The table of contents of zstd:chunked: eStargz's JSON, with runs of zeros, digests of whole files, and where files end.
import { SOME_DIGEST } from '../../format/craft.ts'
import { parseZstdJson, zstdIndexOf, zstdLayerOf } from '../../format/zstd-chunked/zstd-craft.ts'
import type { Target } from '../target.ts'
import { usualOutcome } from '../usual.ts'
import { outcomeOf } from '../well-formed.ts'

const chunkDigest = SOME_DIGEST
const ENTRIES = [
  { name: 'bin/', type: 'dir', mode: 0o755, modtime: '2023-11-14T22:13:20.5Z' },
  { name: 'bin/one', type: 'reg', mode: 0o755, size: 40, digest: SOME_DIGEST, offset: 20, endOffset: 50 },
  { name: 'sparse', type: 'reg', size: 90, offset: 70, endOffset: 120, chunkSize: 30, chunkDigest },
  { name: 'sparse', type: 'chunk', offset: 80, chunkOffset: 30, chunkSize: 50, chunkDigest, chunkType: 'zeros' },
  { name: 'sparse', type: 'chunk', offset: 90, chunkOffset: 80, chunkSize: 10, chunkDigest },
  { name: 'zeros', type: 'reg', size: 4096, offset: 130, endOffset: 140, chunkSize: 4096, chunkType: 'zeros' },
  { name: 'linked', type: 'hardlink', linkName: 'bin/one' },
  { name: 'sh', type: 'symlink', linkName: 'bin/one', uid: 7, gid: 4_000_000_000 },
  { name: '.prefetch.landmark', type: 'reg', size: 1, digest: SOME_DIGEST, offset: 150 },
]

const json = (entries: readonly object[]) => new TextEncoder().encode(JSON.stringify({ version: 1, entries }))

const seeds = [json(ENTRIES), json(ENTRIES.slice(0, 2)), json(ENTRIES.slice(2, 6))]

/** The same natively, beside it. */
export const zstdChunkedUsual: Target = {
  name: 'zstd-chunked-usual',
  seeds,
  run: (bytes) => usualOutcome(zstdIndexOf(bytes), zstdLayerOf(bytes)),
}

export const zstdChunkedToc: Target = {
  name: 'zstd-chunked-toc',
  seeds,
  run: (bytes) => outcomeOf(() => parseZstdJson(bytes)),
}
