import { describe, expect, test } from 'vitest'
import { estargz } from '../../src/format/estargz/estargz.ts'
import { TOC_NAME } from '../../src/format/estargz/toc-member.ts'
import { LANDMARK, NO_LANDMARK } from '../../src/format/toc/landmarks.ts'
import { tarListing } from '../fixtures/tar-listing.ts'
import { listing } from './listing.ts'
import { MemoryBlob, sourceOf } from './memory-blob.ts'
import { expected, SAMPLES, type SampleLayer, sampleLayers } from './samples.ts'
import { formatsOf, unitOf } from './unit.ts'

const OWN: readonly string[] = [LANDMARK, NO_LANDMARK, TOC_NAME]

async function open({ descriptor, bytes }: SampleLayer) {
  const blob = new MemoryBlob(bytes)
  const index = await estargz.readIndex(unitOf(descriptor), sourceOf(blob))
  return { reads: blob.ranges.length, contents: estargz.parseIndex(index, unitOf(descriptor)) }
}

if (SAMPLES) describe('sample images', sampleTests)
else test.skip('sample images: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  for (const tag of ['esgz', 'esgz-min']) {
    for (const layer of [0, 1]) {
      test(`${tag}, layer ${layer + 1} shows what is expected, from an index read at once`, async () => {
        const sample = sampleLayers('samples/oci', tag)[layer] as SampleLayer
        const { contents, reads } = await open(sample)
        const lines = listing(contents, sample.bytes)
        expect(reads).toBe(1)
        expect(lines.filter((line) => !OWN.includes(line.path))).toEqual(expected(layer))
        // the format's own files too are what the tar says
        expect(lines).toEqual(tarListing(sample.path))
      })
    }
  }

  for (const layer of [0, 1]) {
    test(`py-esgz, layer ${layer + 1} shows what its tar holds`, async () => {
      const sample = sampleLayers('images/py-esgz', 'py')[layer] as SampleLayer
      const { contents, reads } = await open(sample)
      expect(reads).toBe(1)
      expect(listing(contents, sample.bytes)).toEqual(tarListing(sample.path))
      expect(contents.first.length).toBeGreaterThan(10)
      expect(contents.first).toEqual(contents.first.map((_, i) => i))
    })
  }

  test('what stands before a landmark is wanted first, in the order of the blob', async () => {
    const { contents } = await open(sampleLayers('samples/oci', 'esgz')[1] as SampleLayer)
    const entries = [...contents.entries]
    const chunksIn = (path: string) => entries.find((each) => each.path === path)?.extents?.map((each) => each.chunk)
    expect(contents.first).toEqual(chunksIn('bin/big'))
    expect(contents.first).toEqual([0, 1, 2])
    const { contents: none } = await open(sampleLayers('samples/oci', 'esgz-min')[1] as SampleLayer)
    expect(none.first).toEqual([])
  })

  test('small files of one member are one chunk with a check each', async () => {
    const { contents } = await open(sampleLayers('samples/oci', 'esgz-min')[0] as SampleLayer)
    expect(contents.chunks.length).toBe(3)
    // files with bytes and landmarks, then the table itself
    expect(contents.chunks.map((each) => each.checks.length)).toEqual([5, 305, 1])
  })

  /** A layer of esgz-ext, with the tables of its companion image as `change` leaves them. */
  async function openExternal(sample: SampleLayer, change = (tables: SampleLayer[]) => tables) {
    const tables = change(sampleLayers('samples/oci', 'esgz-ext-esgztoc'))
    const companions = tables.map(({ descriptor, bytes }) => ({ descriptor, blob: new MemoryBlob(bytes) }))
    const unit = unitOf(sample.descriptor)
    const source = sourceOf(new MemoryBlob(sample.bytes), { '-esgztoc': companions })
    return estargz.parseIndex(await estargz.readIndex(unit, source), unit)
  }

  for (const layer of [0, 1]) {
    test(`esgz-ext, layer ${layer + 1} shows what is expected, its table being in another image`, async () => {
      const sample = sampleLayers('samples/oci', 'esgz-ext')[layer] as SampleLayer
      const lines = listing(await openExternal(sample), sample.bytes)
      expect(lines.filter((line) => !OWN.includes(line.path))).toEqual(expected(layer))
      expect(lines).toEqual(tarListing(sample.path))
    })
  }

  test('an external table that is missing, or that the manifest does not promise, is refused', async () => {
    const [sample] = sampleLayers('samples/oci', 'esgz-ext') as [SampleLayer]
    await expect(open(sample)).rejects.toMatchObject({ code: 'missing', why: expect.stringContaining('-esgztoc') })
    await expect(openExternal(sample, () => [])).rejects.toMatchObject({ code: 'missing' })
    const swapped = ([one, other]: SampleLayer[]) => {
      if (!one || !other) throw new Error('two tables are expected')
      return [
        { ...one, bytes: other.bytes, descriptor: { ...other.descriptor, annotations: one.descriptor.annotations } },
        { ...other, bytes: one.bytes, descriptor: { ...one.descriptor, annotations: other.descriptor.annotations } },
      ]
    }
    await expect(openExternal(sample, swapped)).rejects.toMatchObject({ code: 'corrupt' })
  })

  test('layers of other formats are not taken for eStargz, for a reason', () => {
    const reasons = (tag: string) => formatsOf(sampleLayers('samples/oci', tag).map(({ descriptor }) => descriptor))
    expect(reasons('esgz')).toEqual(['estargz', 'estargz'])
    expect(new Set(reasons('plain'))).toEqual(new Set(['the manifest has no eStargz TOC digest: a plain gzip layer']))
    for (const tag of ['zstd', 'zstd-podman']) expect(reasons(tag)).toEqual(['zstd:chunked', 'zstd:chunked'])
  })
}
