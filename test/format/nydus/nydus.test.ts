import { describe, expect, test } from 'vitest'
import type { Refused, Unit } from '../../../src/format/format.ts'
import { planUnits } from '../../../src/format/formats.ts'
import { filesIn } from '../../../src/format/nydus/bootstrap-layer.ts'
import { nydus } from '../../../src/format/nydus/nydus.ts'
import { hex } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import { buildTree } from '../../../src/tree/build.ts'
import { MemoryBlob } from '../memory-blob.ts'
import { SAMPLES, sampleLayers } from '../samples.ts'
import { archive, GNU, member } from '../tar/tar-craft.ts'
import {
  BLOB_TYPE,
  BOOTSTRAP,
  blobLayer,
  bootstrapLayer,
  nydusImage,
  REFERS_TO,
  SOME_BLOB,
  someDigest,
  sourceOver,
  topLayer,
} from './nydus-craft.ts'
import { craft6, dir6, file6, type Image6, type Node6 } from './v6/rafs6-craft.ts'

const of = (text: string) => ({ digest: someDigest(text), size: text.length })
const [ONE, TWO] = [blobLayer(of('one')), blobLayer(of('two'))]
const TOP = topLayer(of('top'), { [BOOTSTRAP]: 'true' })
const PLAIN = topLayer(of('plain'))

function plan(...layers: Descriptor[]): (Unit | Refused | string)[] {
  return [...nydus.plan({ layers })]
}

describe('the layers of a manifest', () => {
  test('are one tree: the blobs and the bootstrap above them, but nothing above that', () => {
    const [one, two, top, plain] = plan(ONE, TWO, TOP, PLAIN)
    expect(one).toMatchObject({
      format: 'nydus',
      layers: [ONE, TWO, TOP],
      shown: TOP,
      index: TOP.digest,
      identity: undefined,
    })
    expect([two, top, plain]).toEqual([one, one, ''])
  })

  test('need no mark at the bootstrap, which BuildKit leaves out', () => {
    expect(plan(ONE, { ...TOP, annotations: {} })[1]).toMatchObject({ shown: { digest: TOP.digest } })
  })

  test('may refer to gzip layers, from which chunks are read then', () => {
    const { digest } = of('gzip')
    expect(plan(blobLayer(of('one'), { [REFERS_TO]: digest }), TOP)[0]).toMatchObject({
      blobs: [of('one'), { digest }],
    })
  })

  test.each([
    ['an image without blobs in the registry', [PLAIN, TOP], /kept outside the registry then$/],
    ['blobs without a layer above them', [ONE, TWO], /no layer with a bootstrap/],
    ['an ordinary layer below the bootstrap', [PLAIN, ONE, TOP], /ordinary layer is below/],
    ['an ordinary layer between blobs', [ONE, PLAIN, TWO, TOP], /ordinary layer is below/],
    ['an ordinary layer between the blobs and the bootstrap', [ONE, PLAIN, TOP], /ordinary layer is below/],
    ['two bootstraps', [ONE, TOP, topLayer(of('other'), { [BOOTSTRAP]: 'true' })], /two bootstraps/],
    ['an encrypted bootstrap', [ONE, { ...TOP, mediaType: `${TOP.mediaType}+encrypted` }], /bootstrap is encrypted/],
    ['a bootstrap that is no tar.gz', [ONE, { ...TOP, mediaType: 'application/x' }], /media type "application\/x"/],
  ])('are refused: %s', (_, layers, why) => {
    const found = plan(...layers)
    for (const [i, { mediaType, annotations }] of layers.entries()) {
      const isNydus = mediaType === BLOB_TYPE || annotations[BOOTSTRAP] !== undefined
      expect(found[i]).toEqual(isNydus ? { refused: expect.stringMatching(why) } : '')
    }
  })

  test('say of which version of RAFS they are, where that is one', () => {
    const versionOf = (version: string) => {
      const annotations = { ...TOP.annotations, 'containerd.io/snapshot/nydus-fs-version': version }
      return (plan(ONE, { ...TOP, annotations })[0] as Unit).version
    }
    expect(['5', '6', '7', '\u001b'].map(versionOf)).toEqual(['RAFS v5', 'RAFS v6', undefined, undefined])
    expect(plan(ONE, TOP)[0]).not.toHaveProperty('version')
  })

  test('are no blobs by an annotation alone, since engines unpack by media types', () => {
    const annotated = { ...PLAIN, annotations: { 'containerd.io/snapshot/nydus-blob': 'true' } }
    expect(plan(annotated, PLAIN)).toEqual(['', ''])
  })
})

describe('a bootstrap layer', () => {
  const { bytes } = craft6({ root: dir6({ a: file6() }), blobs: [{ chunks: 0 }] })
  const read = (top: MemoryBlob) => {
    const { unit, source } = nydusImage(top, [SOME_BLOB])
    return nydus.readIndex(unit, source)
  }
  const refuses = (top: MemoryBlob, code: string, text: RegExp) =>
    expect(read(top)).rejects.toMatchObject({ code, message: expect.stringMatching(text) })

  test('is read once, and no blob is', async () => {
    const top = bootstrapLayer({ 'image.boot': bytes, other: Buffer.from('does not matter') })
    const { unit, source } = nydusImage(top, [SOME_BLOB])
    const contents = nydus.parseIndex(await nydus.readIndex(unit, source), unit)
    expect([...contents.entries].map(({ path }) => path)).toEqual(['', 'a'])
    expect(top.ranges).toEqual([{ start: 0, end: top.size }])
    expect(contents.blobs).toEqual([])
  })

  test('that differs from the manifest is refused', async () => {
    const top = bootstrapLayer({ 'image.boot': bytes })
    const { unit } = nydusImage(top, [SOME_BLOB])
    const other = new MemoryBlob(Buffer.from(await top.read({ start: 0, end: top.size })).fill(1, 40, 41))
    const source = { ...sourceOver(new Map()), blob: () => other }
    await expect(nydus.readIndex(unit, source)).rejects.toMatchObject({
      code: 'corrupt',
      message: expect.stringMatching(/differs from the manifest/),
    })
  })

  test('without a bootstrap is refused, and one with two', async () => {
    await refuses(bootstrapLayer({}), 'corrupt', /no image\.boot/)
    await refuses(bootstrapLayer({ 'image.boot': bytes, 'd/image.boot': bytes }), 'corrupt', /two files image\.boot/)
  })

  test('of an image whose blobs are kept elsewhere is refused with the reason', async () => {
    const top = bootstrapLayer({ 'image.boot': bytes, 'backend.json': Buffer.from('{}') })
    await refuses(top, 'unsupported', /outside the registry/)
  })

  test('that is no gzip, or is cut off, is refused', async () => {
    await refuses(new MemoryBlob(Buffer.from('no gzip, but as long as one')), 'corrupt', /no gzip/)
    const whole = bootstrapLayer({ 'image.boot': bytes })
    const part = await whole.read({ start: 0, end: whole.size - 9 })
    await refuses(new MemoryBlob(part), expect.stringMatching(/corrupt|limit/), /bootstrap layer/)
  })

  test('with a name that is longer than any is refused, before it is split', () => {
    const long = archive(member({ name: '././@LongLink', type: 'L', magic: GNU }, '/'.repeat((1 << 20) + 1)))
    expect(() => filesIn(long, 'layer')).toThrow(/header at 0: a PAX header or long name of 1048577 bytes/)
  })

  test('of no known version is refused when it is parsed', async () => {
    const { unit, source } = nydusImage(bootstrapLayer({ 'image.boot': Buffer.alloc(5000) }), [SOME_BLOB])
    const index = await nydus.readIndex(unit, source)
    expect(() => nydus.parseIndex(index, unit)).toThrow(/no known version/)
  })

  test('an index that is cut off is refused', async () => {
    const { unit, source } = nydusImage(bootstrapLayer({ 'image.boot': bytes }), [SOME_BLOB])
    const index = await nydus.readIndex(unit, source)
    for (const length of [0, 7, 8, 23, 24, index.length - 1]) {
      expect(() => nydus.parseIndex(index.subarray(0, length), unit)).toThrow(/cut off/)
    }
  })
})

describe('contents', () => {
  const parse = async (image: Image6, others: MemoryBlob[] = []) => {
    const top = bootstrapLayer({ 'image.boot': craft6(image).bytes })
    const { unit, source } = nydusImage(top, [SOME_BLOB], others)
    return nydus.parseIndex(await nydus.readIndex(unit, source), unit)
  }
  const id = hex(SOME_BLOB.digest)
  const digest = `sha256:${'00'.repeat(32)}`

  test('are chunks as they are stored, each with its digest', async () => {
    const chunks = [
      { index: 0, size: 300, stored: 100, offset: 50, flags: 1 },
      { index: 1, size: 40, offset: 150 },
    ]
    const { blobs, chunks: found } = await parse({
      root: dir6({ a: file6([chunks[0] as never]), b: file6([chunks[1] as never]) }),
      blobs: [{ id }],
    })
    expect(blobs).toEqual([{ digest: SOME_BLOB.digest, size: SOME_BLOB.size }])
    const check = (end: number) => [{ of: 'decoded', range: { start: 0, end }, digest }]
    expect(found).toEqual([
      { blob: 0, stored: { start: 50, end: 150 }, size: 300, codec: { name: 'zstd' }, checks: check(300) },
      { blob: 0, stored: { start: 150, end: 190 }, size: 40, codec: { name: 'none' }, checks: check(40) },
    ])
  })

  test('may be in a blob that is no layer of the image, whose size the registry knows', async () => {
    const other = new MemoryBlob(Buffer.alloc(777, 7))
    const root = dir6({ a: file6([{ index: 0, size: 10, blob: 1 }]) })
    const { blobs } = await parse({ root, blobs: [{ id }, { id: hex(other.digest) }] }, [other])
    expect(blobs).toEqual([{ digest: other.digest, size: 777 }])
  })

  test('are in a blob of the size that the bootstrap has where the registry has no such blob', async () => {
    const root = dir6({ a: file6([{ index: 0, size: 10, blob: 1 }]) })
    const { blobs } = await parse({ root, blobs: [{ id }, { id: 'cd'.repeat(32), storedSize: 50 }] })
    expect(blobs).toEqual([{ digest: `sha256:${'cd'.repeat(32)}`, size: 50 }])
  })

  test.each([
    ['outside its blob', { index: 0, size: 10, offset: 99_991 }, {}, 'corrupt', /chunk 0 of blob 0/],
    ['stored as it is in other lengths', { index: 0, size: 10, stored: 9 }, {}, 'corrupt', /chunk 0 of blob 0/],
    ['of nothing', { index: 0, size: 10, stored: 0, flags: 1 }, {}, 'corrupt', /chunk 0 of blob 0/],
    [
      'in a blob that no registry names',
      { index: 0, size: 10 },
      { id: 'x'.repeat(64) },
      'unsupported',
      /no blob of a registry/,
    ],
  ])('with a chunk %s are refused', async (_, chunk, blob, code, text) => {
    const image = { root: dir6({ a: file6([chunk]) }), blobs: [{ id, ...blob }] }
    await expect(parse(image)).rejects.toMatchObject({ code, message: expect.stringMatching(text) })
  })

  test('with a whiteout are refused: the tree of an image has none left', async () => {
    for (const name of ['.wh.a', '.wh..wh..opq']) {
      const root = dir6({ d: dir6({ [name]: file6() }) })
      await expect(parse({ root, blobs: [{ chunks: 0 }] })).rejects.toMatchObject({
        code: 'unsupported',
      })
    }
  })

  test('are wanted first in the order of the prefetch table, of a directory all below it; of the root nothing', async () => {
    const chunk = (index: number) => file6([{ index, size: 10, offset: index * 10 }])
    const [a, b, e] = [chunk(0), chunk(1), chunk(2)]
    const d = dir6({ e, f: dir6({ g: chunk(3) }) })
    const root = dir6({ a, b, d, 'd-not-below': chunk(4) })
    expect((await parse({ root, blobs: [{ id }], prefetch: [d, a] })).first).toEqual([2, 3, 0])
    expect((await parse({ root, blobs: [{ id }], prefetch: [b, root, a] })).first).toEqual([1])
    expect((await parse({ root, blobs: [{ id }], prefetch: [root] })).first).toEqual([])
    const f = d.children?.f as Node6
    expect((await parse({ root, blobs: [{ id }], prefetch: [f, d, f, e, f] })).first).toEqual([3, 2])
  })
})

if (SAMPLES) describe('sample images', sampleTests)
else test.skip('sample images: LAZYLAYER_SAMPLES is not set', () => {})

function sampleTests(): void {
  test.each(['nydus', 'nydus-zran'])(
    '%s is read from its bootstrap layer, and from its tables where it takes them',
    async (tag) => {
      const layers = sampleLayers('samples/oci', tag)
      const unit = planUnits({ layers: layers.map(({ descriptor }) => descriptor) }).get(
        layers[0]?.descriptor as Descriptor,
      ) as Unit
      const blobs = new Map(layers.map(({ descriptor, bytes }) => [descriptor.digest, new MemoryBlob(bytes)]))
      const index = await nydus.readIndex(unit, sourceOver(blobs))
      expect([...blobs.values()].flatMap(({ ranges }) => ranges)).toHaveLength(1)
      const tree = buildTree(nydus.parseIndex(index, unit))
      expect(tree.chunks.length).toBe(tag === 'nydus' ? 18 : 11)
    },
  )
}
