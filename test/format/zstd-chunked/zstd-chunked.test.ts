// zstd:chunked of both families of writers: what is shown, what is refused and why.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Failure } from '../../../src/errors.ts'
import { TAR_SIZE, TOC_DIGEST } from '../../../src/format/estargz/estargz.ts'
import { LANDMARK, NO_LANDMARK } from '../../../src/format/toc/landmarks.ts'
import {
  CONTAINERS_CHECKSUM,
  CONTAINERS_POSITION,
  STARGZ_CHECKSUM,
  STARGZ_POSITION,
} from '../../../src/format/zstd-chunked/place.ts'
import { zstdChunked } from '../../../src/format/zstd-chunked/zstd-chunked.ts'
import { digestOf } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import { buildTree } from '../../../src/tree/build.ts'
import { CHUNK_MAX_BYTES, ZSTD } from '../../../src/tree/chunk.ts'
import { ZEROS } from '../../../src/tree/entry.ts'
import { runs } from '../../fixtures/runs.ts'
import { difference, scanned } from '../../tree/compare-sides.ts'
import { LAYER_DIGEST, SOME_DIGEST } from '../craft.ts'
import { item } from '../estargz/stargz-craft.ts'
import { listing } from '../listing.ts'
import { MemoryBlob, sourceOf } from '../memory-blob.ts'
import { expected, SAMPLES, type SampleLayer, sampleLayers } from '../samples.ts'
import { header } from '../tar/tar-craft.ts'
import { formatsOf, unitOf } from '../unit.ts'
import { type Crafted, craft, type Family, FILES_END, parseZstdEntries, skippable, withTable } from './zstd-craft.ts'

const FAMILIES: readonly Family[] = ['containers', 'stargz']
const SPARSE = Buffer.concat([Buffer.from('begin'), Buffer.alloc(5000), Buffer.from('middle'), Buffer.alloc(1024)])
const ITEMS = [
  item({ name: 'd/', type: 'dir' }),
  item({ name: 'd/a' }, 'alpha'),
  item({ name: 'd/same' }, 'alpha'),
  item({ name: 'empty' }),
  item({ name: 'long' }, 'abcdefghij'.repeat(50)),
  item({ name: 'sparse' }, SPARSE),
  item({ name: 'zeros' }, Buffer.alloc(3000)),
  item({ name: 'l', type: 'symlink', linkName: 'long' }),
]

async function open({ blob, descriptor }: Pick<Crafted, 'blob' | 'descriptor'>) {
  const memory = new MemoryBlob(blob)
  const unit = unitOf(descriptor)
  const index = await zstdChunked.readIndex(unit, sourceOf(memory))
  return { unit, ranges: memory.ranges, contents: zstdChunked.parseIndex(index, unit) }
}

/** Its annotations as `change` leaves them. */
function annotated<T extends { descriptor: Descriptor }>(of: T, change: Record<string, string | undefined>): T {
  const all = Object.entries({ ...of.descriptor.annotations, ...change })
  const annotations = Object.fromEntries(all.flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])))
  return { ...of, descriptor: { ...of.descriptor, annotations } }
}

async function refused(opened: Promise<unknown>, code: string, text: string): Promise<void> {
  const error = await opened.then(
    () => undefined,
    (error: unknown) => error as Failure,
  )
  expect(error).toBeInstanceOf(Failure)
  expect(error).toMatchObject({ code, message: expect.stringContaining('layer sha256:') })
  expect(`${error?.message} ${error?.why}`).toContain(text)
}

describe.each(FAMILIES)('a layer of the writers of %s', (family) => {
  const shapes = [{}, { chunkSize: 7 }, { chunkSize: 512, zerosMin: 100 }]

  test('shows its tar, from one request for the table alone', async () => {
    for (const shape of shapes) {
      const crafted = craft(ITEMS, { family, ...shape })
      const { contents, ranges } = await open(crafted)
      const at = Buffer.from(crafted.blob).indexOf(skippable(new Uint8Array()).subarray(0, 4)) + 8
      expect(ranges.map(({ start }) => start)).toEqual([at])
      expect(contents.chunks.every(({ codec, stored }) => codec === ZSTD && stored.end <= at - 8)).toBe(true)
      expect(listing(contents, crafted.blob).map(({ path }) => path)).toHaveLength(ITEMS.length)
      expect(await difference(buildTree(contents), await scanned(crafted.tar))).toBeUndefined()
    }
  })

  test('is another than a tar with a changed byte', async () => {
    const crafted = craft(ITEMS, { family, chunkSize: 512 })
    const tree = buildTree((await open(crafted)).contents)
    const at = Buffer.from(crafted.tar).indexOf('middle')
    for (const byte of [at, at - 100, at + 6 + 500]) {
      const tar = Uint8Array.from(crafted.tar)
      tar[byte] = (tar[byte] ?? 0) ^ 1
      expect(await difference(tree, await scanned(tar))).toMatch(/^"sparse": contents differ/)
    }
  })

  test('is refused where its table is not what the manifest promises', async () => {
    const crafted = craft(ITEMS, { family })
    const { start, end } = (await open(crafted)).ranges[0] as { start: number; end: number }
    for (const at of [start, start + 20, end - 1]) {
      const blob = Uint8Array.from(crafted.blob)
      blob[at] = (blob[at] ?? 0) ^ 1
      await refused(open({ ...crafted, blob }), 'corrupt', 'differs from the manifest: want sha256:')
    }
    const checksum = family === 'containers' ? CONTAINERS_CHECKSUM : STARGZ_CHECKSUM
    await refused(open(annotated(crafted, { [checksum]: SOME_DIGEST })), 'corrupt', `want ${SOME_DIGEST}`)
  })

  test('wants first what stands before a landmark', async () => {
    const of = async (...names: string[]) => {
      const items = names.map((name) => item({ name }, name))
      return (await open(craft(items, { family }))).contents.first
    }
    expect(await of('a', 'b', LANDMARK, 'c')).toEqual([0, 1])
    expect(await of('a', LANDMARK, NO_LANDMARK)).toEqual([])
    expect(await of('a', 'b')).toEqual([])
    const sparse = craft([item({ name: 'a' }, 'a'), item({ name: LANDMARK }, SPARSE)], { family })
    expect((await open(sparse)).contents.first).toEqual([0])
    const zeros = (entries: Record<string, unknown>[]) => entries.map((each) => ({ ...each, chunkType: 'zeros' }))
    const only = craft([item({ name: LANDMARK }, SPARSE)], { family, change: zeros })
    expect((await open(only)).contents.first).toEqual([])
  })

  test('whose names Go could not write is left to the engine, one with such a name is not', async () => {
    const replaced = item({ name: 'd/\ufffd' }, 'x', header({ name: Buffer.from('d/\xff', 'latin1'), size: 1 }))
    const real = item({ name: 'd/\ufffd' }, 'x', header({ name: 'd/\ufffd', size: 1 }))
    const link = item({ name: 'l', type: 'symlink', linkName: '\ufffd' })
    for (const front of [[], [item({ name: 'a' }, SPARSE)], [item({ name: 'a' }, 'b'.repeat(512))]]) {
      await refused(open(craft([...front, replaced], { family })), 'unsupported', 'U+FFFD')
      const shown = await open(craft([...front, real, link], { family }))
      expect([...shown.contents.entries].map(({ path }) => path)).toContain('d/\ufffd')
    }
  })
})

describe('chunks', () => {
  test('of runs of zeros are neither fetched nor checked', async () => {
    const { contents } = await open(craft([item({ name: 'sparse' }, SPARSE)]))
    const [entry] = [...contents.entries]
    expect(entry?.extents).toEqual([
      { at: 0, chunk: 0, offset: 0, length: 5 },
      { at: 5, chunk: ZEROS, offset: 0, length: 5000 },
      { at: 5005, chunk: 1, offset: 0, length: 6 },
      { at: 5011, chunk: ZEROS, offset: 0, length: 1024 },
    ])
    const tree = buildTree(contents)
    expect(tree.chunks.length).toBe(2)
    expect(tree.chunks.zeros()).toEqual([
      { start: 5, end: 5005 },
      { start: 5011, end: 6035 },
    ])
  })

  test('end where their file goes on or says that it ends, and never behind the next one', () => {
    const file = (more: object) => ({ name: 'a', type: 'reg', size: 9, digest: SOME_DIGEST, offset: 100, ...more })
    const part = { chunkSize: 3, chunkDigest: SOME_DIGEST }
    const ends = (...entries: object[]) => parseZstdEntries(entries).chunks.map(({ stored }) => stored.end)
    expect(ends(file({}))).toEqual([FILES_END])
    expect(ends(file({ endOffset: 150 }))).toEqual([150])
    expect(ends(file({ endOffset: FILES_END + 50 }))).toEqual([FILES_END])
    expect(ends(file({ endOffset: 150 }), file({ name: 'b', offset: 120 }))).toEqual([120, FILES_END])
    // two files of one chunk
    expect(ends(file({ endOffset: 150 }), file({ name: 'b', endOffset: 170 }))).toEqual([170])
    expect(
      ends(
        file({ ...part, endOffset: 400 }),
        { type: 'chunk', name: 'a', chunkOffset: 3, chunkType: 'zeros', offset: 200, chunkSize: 3 },
        { type: 'chunk', name: 'a', chunkOffset: 6, ...part, offset: 300 },
      ),
    ).toEqual([200, 400])
  })

  const part = (more: object) => ({ name: 'a', type: 'reg', size: 9, offset: 100, ...more })
  const rows: [why: string, code: string, entries: object[]][] = [
    ['neither they nor their file have a digest', 'corrupt', [part({})]],
    [
      'only their file has a digest, of which they are a part',
      'corrupt',
      [part({ digest: SOME_DIGEST, chunkSize: 3 })],
    ],
    ['their digest is of another kind', 'corrupt', [part({ digest: SOME_DIGEST, chunkDigest: 'md5:00' })]],
    ['they are of an unknown type', 'unsupported', [part({ digest: SOME_DIGEST, chunkType: 'ones' })]],
    ['their type is no text', 'unsupported', [part({ digest: SOME_DIGEST, chunkType: 1 })]],
    ['their file ends before them', 'corrupt', [part({ digest: SOME_DIGEST, endOffset: 100 })]],
    ['their file ends at a negative offset', 'corrupt', [part({ digest: SOME_DIGEST, endOffset: -1 })]],
    ['zeros leave a gap', 'corrupt', [part({ chunkType: 'zeros', chunkSize: 3 })]],
    ['zeros are longer than the file', 'corrupt', [part({ chunkType: 'zeros', chunkSize: 10 })]],
    ['zeros have a negative size', 'corrupt', [part({ chunkType: 'zeros', chunkSize: -1 })]],
    ['they lie outside the blob', 'corrupt', [part({ digest: SOME_DIGEST, offset: 10 ** 12 })]],
    ['they lie in the table', 'corrupt', [part({ digest: SOME_DIGEST, offset: FILES_END })]],
    [
      'they overlap zeros',
      'corrupt',
      [
        part({ chunkType: 'zeros', chunkSize: 5 }),
        { type: 'chunk', name: 'a', chunkOffset: 4, offset: 200, chunkDigest: SOME_DIGEST },
      ],
    ],
    [
      'one place has two contents',
      'corrupt',
      [part({ digest: SOME_DIGEST }), part({ name: 'b', digest: LAYER_DIGEST })],
    ],
  ]
  for (const [why, code, entries] of rows) {
    test(`are refused when ${why}`, () => {
      expect(() => parseZstdEntries(entries)).toThrow(expect.objectContaining({ code }))
      expect(() => parseZstdEntries(entries)).toThrow(/^layer sha256:[0-9a-f]+: entry "[ab]"/)
    })
  }

  test('may be larger than any where they are zeros', () => {
    const { entries, chunks } = parseZstdEntries([part({ size: 2 ** 40, chunkType: 'zeros' })])
    expect([...entries][0]).toMatchObject({ size: 2 ** 40, extents: [{ chunk: ZEROS, length: 2 ** 40 }] })
    expect(chunks).toEqual([])
  })
})

describe('a manifest', () => {
  const containers = craft(ITEMS)
  const stargz = craft(ITEMS, { family: 'stargz' })
  const reason = (of: Crafted, change: Record<string, string | undefined>) =>
    formatsOf([annotated(of, change).descriptor])[0]

  test('says by its annotations what engines know the table by', () => {
    const identity = (of: Crafted) => unitOf(of.descriptor)
    const checksum = containers.descriptor.annotations[CONTAINERS_CHECKSUM]
    expect(identity(containers)).toMatchObject({ format: 'zstd:chunked', index: checksum, identity: checksum })
    expect(identity(stargz)).toMatchObject({ index: digestOf(stargz.json), identity: digestOf(stargz.json) })
    // as the first versions of containers/storage wrote it, which no engine knows any more
    const early = annotated(stargz, { [TOC_DIGEST]: undefined })
    expect(identity(early)).toMatchObject({
      index: stargz.descriptor.annotations[STARGZ_CHECKSUM],
      identity: undefined,
    })
    expect(identity(annotated(stargz, { [TAR_SIZE]: '1024' })).tarSize).toBe(1024)
  })

  test('of the first versions of containers/storage, and one whose footer alone says where the table is, are read', async () => {
    await open(annotated(stargz, { [TOC_DIGEST]: undefined }))
    const { ranges } = await open(annotated(stargz, { [STARGZ_CHECKSUM]: undefined, [STARGZ_POSITION]: undefined }))
    expect(ranges[0]).toEqual({ start: stargz.blob.length - 40, end: stargz.blob.length })
    expect(ranges).toHaveLength(2)
  })

  const without = { [STARGZ_CHECKSUM]: undefined, [STARGZ_POSITION]: undefined }
  test('is no zstd:chunked layer’s for a reason', () => {
    const of = { [CONTAINERS_CHECKSUM]: undefined }
    expect(reason(containers, of)).toBe('the manifest has no zstd:chunked TOC digest: a plain zstd layer')
    expect(reason(containers, { [TOC_DIGEST]: SOME_DIGEST })).toContain('which engines refuse')
    expect(reason(containers, { [STARGZ_CHECKSUM]: SOME_DIGEST })).toContain('that differ')
    expect(reason(containers, { [CONTAINERS_CHECKSUM]: 'md5:1' })).toContain('no sha256 digest')
    expect(reason(stargz, { [STARGZ_CHECKSUM]: 'md5:1' })).toContain('no sha256 digest')
    expect(reason(containers, { [CONTAINERS_POSITION]: undefined })).toContain('does not say where')
    for (const text of ['', '1:2:3', '1:2:3:1:', '-1:2:3:1', '1:2:3:x', ' 1:2:3:1', '0x1:2:3:1']) {
      expect(reason(containers, { [CONTAINERS_POSITION]: text })).toContain('is none')
    }
    expect(reason(containers, { [CONTAINERS_POSITION]: '1:2:3:2' })).toContain('of type 2')
    expect(formatsOf([{ ...containers.descriptor, mediaType: 'application/vnd.oci.image.layer.v1.tar' }])[0]).toMatch(
      /which no lazy format has/,
    )
  })

  test('that puts the table where it is not is refused', async () => {
    const [offset, length, inflated] = (containers.descriptor.annotations[CONTAINERS_POSITION] ?? '')
      .split(':')
      .map(Number)
    if (offset === undefined || length === undefined || inflated === undefined) throw new Error('no position')
    const at = (...numbers: number[]) =>
      open(annotated(containers, { [CONTAINERS_POSITION]: [...numbers, 1].join(':') }))
    for (const [start, bytes] of [
      [0, length],
      [7, length],
      [offset, 0],
      [containers.blob.length, 1],
      [offset, containers.blob.length],
      [2 ** 60, 1],
      [2 ** 69, 1],
    ] as const) {
      await refused(at(start, bytes, inflated), 'corrupt', 'outside the blob')
    }
    await refused(at(offset - 1, length, inflated), 'corrupt', 'differs from the manifest')
    await refused(at(offset, length - 1, inflated), 'corrupt', 'differs from the manifest')
    await refused(at(offset, length, inflated - 1), 'corrupt', 'longer than it says')
    await refused(at(offset, length, inflated + 1), 'corrupt', 'shorter than it says')
    await refused(at(offset, length, 2 ** 40), 'limit', 'larger than')
    const liar = new MemoryBlob(new Uint8Array(), 2 ** 31)
    const unit = unitOf({
      ...annotated(containers, { [CONTAINERS_POSITION]: `8:${(64 << 20) + 1}:10:1` }).descriptor,
      size: liar.size,
    })
    await refused(zstdChunked.readIndex(unit, sourceOf(liar)), 'limit', 'compressed')
    expect(liar.ranges).toEqual([])
  })

  test('that leads to no zstd, to a part of it, or to more than a frame is refused', async () => {
    const json = Buffer.from('{"version":1,"entries":[]}')
    const whole = withTable(new Uint8Array(FILES_END), json, 'stargz')
    const [offset = 0, length = 0] = (whole.descriptor.annotations[STARGZ_POSITION] ?? '').split(':').map(Number)
    const at = (start: number, bytes: number) =>
      open(annotated(whole, { [STARGZ_CHECKSUM]: undefined, [STARGZ_POSITION]: `${start}:${bytes}:${json.length}:1` }))
    await refused(at(offset + 1, length - 1), 'corrupt', 'no zstd')
    await refused(at(offset, length - 1), 'corrupt', 'no zstd')
    expect((await at(offset, length)).contents.chunks).toEqual([])
  })

  test('without a position needs a footer', async () => {
    for (const bytes of [
      stargz.blob.subarray(0, -1),
      stargz.blob.subarray(0, 39),
      new Uint8Array(1),
      containers.blob,
    ]) {
      const descriptor = { ...annotated(stargz, without).descriptor, size: bytes.length, digest: digestOf(bytes) }
      await refused(open({ blob: bytes, descriptor }), 'corrupt', 'footer')
    }
  })

  test('is refused when what was kept of its index is cut off or lies', () => {
    const unit = unitOf(containers.descriptor)
    const far = new Uint8Array(100)
    new DataView(far.buffer).setBigUint64(0, 2n ** 63n, true)
    for (const index of [new Uint8Array(), new Uint8Array(7), far]) {
      expect(() => zstdChunked.parseIndex(index, unit)).toThrow(expect.objectContaining({ code: 'corrupt' }))
    }
  })
})

if (SAMPLES) describe('sample images', sampleTests)
else test.skip('sample images: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  for (const tag of ['zstd', 'zstd-podman']) {
    for (const layer of [0, 1]) {
      test(`${tag}, layer ${layer + 1} shows what is expected, from an index read at once`, async () => {
        const { bytes, descriptor } = sampleLayers('samples/oci', tag)[layer] as SampleLayer
        const { contents, ranges } = await open({ blob: bytes, descriptor })
        const lines = listing(contents, bytes)
        expect(ranges).toHaveLength(1)
        expect(lines.filter(({ path }) => path !== LANDMARK && path !== NO_LANDMARK)).toEqual(expected(layer))
      })
    }
  }

  test('what stands before a landmark is wanted first', async () => {
    const { bytes, descriptor } = sampleLayers('samples/oci', 'zstd')[1] as SampleLayer
    expect((await open({ blob: bytes, descriptor })).contents.first).toEqual([0, 1, 2])
  })
}

test('blobs and annotations with flipped bytes give either a Failure or the right tree', async () => {
  const good = FAMILIES.map((family) => craft(ITEMS, { family, chunkSize: 512 }))
  const trees = await Promise.all(good.map(async (each) => buildTree((await open(each)).contents).digest))
  await fc.assert(
    fc.asyncProperty(
      fc.nat(1),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
      fc.option(fc.array(fc.nat({ max: 5000 }), { minLength: 4, maxLength: 4 })),
      async (which, flips, position) => {
        const crafted = good[which] as Crafted
        const blob = Uint8Array.from(crafted.blob)
        for (const [at, byte] of flips) blob[blob.length - 1 - (at % 2000)] = byte
        const key = which === 0 ? CONTAINERS_POSITION : STARGZ_POSITION
        const changed =
          position === null ? crafted : annotated(crafted, { [key]: `${position.slice(0, 3).join(':')}:1` })
        try {
          expect(buildTree((await open({ ...changed, blob })).contents).digest).toBe(trees[which])
        } catch (error) {
          expect(error).toBeInstanceOf(Failure)
        }
      },
    ),
    { numRuns: runs(200) },
  )
})

test('no chunk decodes to more than chunks may have, but a file of zeros needs none', () => {
  const size = CHUNK_MAX_BYTES + 1
  const large = { name: 'a', type: 'reg', size, digest: SOME_DIGEST, offset: 100 }
  const huge = { ...large, size: 2 ** 50 }
  for (const each of [large, huge, { ...large, chunkDigest: digestOf(new Uint8Array(size)) }]) {
    expect(() => parseZstdEntries([each])).toThrow(expect.objectContaining({ code: 'limit' }))
  }
  const zeros = { ...large, digest: digestOf(new Uint8Array(size)) }
  const { chunks, entries } = parseZstdEntries([zeros, { ...zeros, name: 'b', endOffset: 150 }])
  expect(chunks).toEqual([])
  expect([...entries].map(({ extents }) => extents)).toEqual(
    Array(2).fill([{ at: 0, chunk: ZEROS, offset: 0, length: size }]),
  )
})
