// The real sample image: what its prefetch costs.
import { readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { Budget } from '../../src/fetch/budget.ts'
import { Filler } from '../../src/fetch/filler.ts'
import { prefetch } from '../../src/fetch/prefetch.ts'
import { formatNamed, planUnits } from '../../src/format/formats.ts'
import type { Blob, Range } from '../../src/image/blob.ts'
import { hex } from '../../src/image/digest.ts'
import { type Manifest, parseManifest } from '../../src/image/manifest.ts'
import { buildTree } from '../../src/tree/build.ts'
import { READY_VERIFIED } from '../../src/tree/ready.ts'
import { sourceOf } from '../format/memory-blob.ts'

const samples = process.env.LAZYLAYER_SAMPLES

if (samples === undefined) {
  test.skip('the sample image’s prefetch (LAZYLAYER_SAMPLES is not set)', () => {})
} else {
  test('the prioritized part of the sample image takes one request a layer, and where its users are one more', async () => {
    const dir = join(samples, 'images', 'py-esgz')
    const blobPath = (digest: string) => join(dir, 'blobs', 'sha256', digest.slice('sha256:'.length))
    let manifest = parseManifest(readFileSync(join(dir, 'index.json')), 'the index')
    while ('manifests' in manifest) {
      manifest = parseManifest(readFileSync(blobPath(manifest.manifests[0]?.digest ?? '')), 'the manifest')
    }
    const stored: number[] = []
    const users: number[] = []
    for (const [descriptor, unit] of planUnits(manifest satisfies Manifest)) {
      if ('why' in unit) continue
      const format = formatNamed(unit.format)
      const file = await open(blobPath(`sha256:${hex(descriptor.digest)}`))
      const reads: Range[] = []
      const blob: Blob = {
        digest: descriptor.digest,
        size: descriptor.size,
        async read(range) {
          reads.push({ ...range })
          const bytes = new Uint8Array(range.end - range.start)
          await file.read(bytes, 0, bytes.length, range.start)
          return bytes
        },
      }
      const index = await format.readIndex(unit, sourceOf(blob))
      const { chunks } = buildTree(format.parseIndex(index, unit))
      const states = new Uint8Array(chunks.length)
      const filler = new Filler({
        chunks,
        blobs: () => blob,
        slots: {
          state: (chunk) => states[chunk] as number,
          statesOf: (some) => some.map((each) => states[each] as number),
        },
        decode: async (_, __, chunk) => {
          states[chunk] = READY_VERIFIED
        },
        reverify: async () => 'damaged',
        budget: new Budget(),
        origin: 'registry.example.com',
      })
      reads.length = 0
      const done = await prefetch(filler, Array(chunks.first).keys(), new AbortController().signal)
      expect(done).toEqual({ ready: chunks.first, failed: 0 })
      if (chunks.first > 0) {
        const [prioritized, ...others] = reads as [Range, ...Range[]]
        stored.push(prioritized.end - prioritized.start)
        users.push(...others.map(({ start, end }) => end - start))
      }
      await filler.close()
      await file.close()
    }
    expect(stored.map((bytes) => (bytes / 1e6).toFixed(2))).toEqual(['5.87', '5.69'])
    expect(users).toEqual([16_966])
  })
}
