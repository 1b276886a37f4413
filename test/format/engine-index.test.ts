import { expect, test } from 'vitest'
import { engineIndex } from '../../src/format/engine-index.ts'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import type { Digest } from '../../src/image/digest.ts'
import { DOCKER_MANIFEST } from '../../src/image/manifest.ts'
import { OCI_MANIFEST } from '../fake/image.ts'
import { SOME_DIGEST as INDEX } from './craft.ts'

const ZSTD_CHUNKED = 'io.github.containers.zstd-chunked.manifest-checksum'

test.each<[string, Record<string, string>, Digest | undefined]>([
  ['an eStargz', { [TOC_DIGEST]: INDEX }, INDEX],
  ['zstd:chunked', { [ZSTD_CHUNKED]: INDEX }, INDEX],
  ['both, which engines refuse', { [TOC_DIGEST]: INDEX, [ZSTD_CHUNKED]: INDEX }, undefined],
  ['no digest', { [TOC_DIGEST]: 'index' }, undefined],
  ['none', {}, undefined],
])('engines look for an index by annotations alone: %s', (_, annotations, index) => {
  expect(engineIndex({ mediaType: OCI_MANIFEST }, { annotations })).toBe(index)
})

test('they read no annotations in a Docker manifest', () => {
  expect(engineIndex({ mediaType: DOCKER_MANIFEST }, { annotations: { [TOC_DIGEST]: INDEX } })).toBeUndefined()
})
