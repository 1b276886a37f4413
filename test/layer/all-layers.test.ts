import { gzipSync, zstdCompressSync } from 'node:zlib'
import { expect, onTestFinished, test } from 'vitest'
import { TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { type BeforeWhole, openAllLayers, refuseWhole } from '../../src/layer/all-layers.ts'
import { openMerged } from '../../src/layer/image.ts'
import { type EagerLayer, WHOLE } from '../../src/layer/layer.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { OCI_LAYER } from '../fake/image.ts'
import { MemoryBlob } from '../format/memory-blob.ts'
import { BOOTSTRAP, bootstrapLayer, topLayer } from '../format/nydus/nydus-craft.ts'
import { archive, member } from '../format/tar/tar-craft.ts'
import { lazyLayer, type MadeLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { digest } from '../stores/store.ts'
import { imageOf } from './resolved.ts'

const TAR = 'application/vnd.oci.image.layer.v1.tar'
const DOCKER = 'application/vnd.docker.image.rootfs.diff.tar.gzip'

/** An ordinary layer with one file. */
function plain(name: string, mediaType = OCI_LAYER): MadeLayer {
  const tar = archive(member({ name }, `in ${name}`))
  const bytes = mediaType === TAR ? tar : mediaType.endsWith('zstd') ? zstdCompressSync(tar) : gzipSync(tar)
  const blob = new MemoryBlob(new Uint8Array(bytes))
  return { descriptor: { mediaType, digest: blob.digest, size: blob.size, annotations: {} }, blob }
}

async function cacheHere() {
  const cache = await openCache(await folder())
  onTestFinished(() => cache.close())
  return cache
}

/** Keeps what it is told. */
function listener() {
  const told: EagerLayer[][] = []
  const beforeWhole: BeforeWhole = (_, eager) => void told.push([...eager])
  return { told, beforeWhole }
}

test('layers of every kind make one tree; those that are fetched whole are told of first, each with the reason', async () => {
  const { layers, store, builder } = await cacheHere()
  const types = [OCI_LAYER, DOCKER, TAR, `${TAR}+zstd`]
  const ordinary = types.map((mediaType, i) => plain(`file ${i}`, mediaType))
  const image = imageOf([...ordinary, await lazyLayer({ lazy: 'one' })])
  const { told, beforeWhole } = listener()
  const opened = await openAllLayers(image, layers, (...of) => {
    expect(ordinary.flatMap(({ blob }) => blob.ranges)).toEqual([])
    beforeWhole(...of)
  })
  expect(told[0]?.map(({ descriptor }) => descriptor)).toEqual(ordinary.map(({ descriptor }) => descriptor))
  for (const { why } of told[0] ?? []) expect(why).toMatch(/TOC digest|media type/)
  expect(opened.map(({ format }) => format)).toEqual([WHOLE, WHOLE, WHOLE, WHOLE, 'estargz'])
  const merged = await openMerged(opened, store, builder)
  const reader = new ErofsReader(new Uint8Array(await merged.image.readFile()))
  await merged.image.close()
  for (const path of [...types.map((_, i) => `file ${i}`), 'lazy']) expect(reader.resolve(path), path).toBeDefined()
  await Promise.all(opened.map((each) => each.close()))
})

test('an image whose layers are all lazy, or here already, asks nobody', async () => {
  const { layers } = await cacheHere()
  const image = imageOf([plain('a'), await lazyLayer({ b: 'one' })])
  const first = await openAllLayers(image, layers, () => {})
  const again = await openAllLayers(image, layers, refuseWhole)
  expect(again.map(({ tree }) => tree)).toEqual(first.map(({ tree }) => tree))
  await Promise.all([...first, ...again].map((each) => each.close()))
})

test('where no layer may be fetched whole, each is named with the reason, and nothing of it is read', async () => {
  const { layers } = await cacheHere()
  const [gzip, zstd] = [plain('a'), plain('b', `${TAR}+zstd`)]
  const opening = openAllLayers(imageOf([await lazyLayer({ c: 'one' }), gzip, zstd]), layers, refuseWhole)
  await expect(opening).rejects.toMatchObject({
    code: 'unsupported',
    message: 'registry.example.com/app:1 has layers that cannot be served lazily',
    why: expect.stringMatching(
      new RegExp(
        `^layer ${gzip.descriptor.digest}: .*no eStargz TOC digest.*; layer ${zstd.descriptor.digest}: .*no zstd:chunked TOC digest`,
      ),
    ),
    fix: expect.stringMatching(/\.$/),
  })
  expect([...gzip.blob.ranges, ...zstd.blob.ranges]).toEqual([])
})

test('a layer whose index is another than the manifest says is fetched whole, and its tar is what is shown', async () => {
  const { layers } = await cacheHere()
  const made = await lazyLayer({ a: 'one' })
  const descriptor = { ...made.descriptor, annotations: { [TOC_DIGEST]: digest('another') } }
  const image = imageOf([{ ...made, descriptor }])
  const { told, beforeWhole } = listener()
  const [layer] = await openAllLayers(image, layers, beforeWhole)
  expect(told[0]?.[0]?.why).toMatch(/its index cannot be used .*differs from the manifest/)
  expect(layer?.format).toBe(WHOLE)
  await layer?.close()
  await expect(
    openAllLayers(imageOf([{ ...made, descriptor }]), (await cacheHere()).layers, refuseWhole),
  ).rejects.toThrow()
})

test('an image that its format refuses is not shown as if its layers were ordinary ones, and nothing of it is read', async () => {
  const { layers } = await cacheHere()
  const blob = bootstrapLayer({ 'image.boot': new Uint8Array(1) })
  const image = imageOf([plain('a'), { descriptor: topLayer(blob, { [BOOTSTRAP]: 'true' }), blob }])
  await expect(openAllLayers(image, layers, () => {})).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringMatching(/^registry.example.com\/app:1 cannot be shown: .* kept outside the registry/),
  })
  expect(blob.ranges).toEqual([])
})

test('a layer whose bytes are others than its digest says is served in no way', async () => {
  const { layers } = await cacheHere()
  const [good, other] = [plain('good'), plain('evil')]
  const opening = openAllLayers(imageOf([{ ...good, blob: other.blob }]), layers, () => {})
  await expect(opening).rejects.toMatchObject({ code: 'corrupt' })
})
