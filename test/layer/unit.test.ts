// Units of several layers: what the stores, the mount and the doors do with one, of a format that they never heard of.
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Unit } from '../../src/format/format.ts'
import { FORMATS, planUnits } from '../../src/format/formats.ts'
import type { Descriptor } from '../../src/image/manifest.ts'
import { openAllLayers, refuseWhole } from '../../src/layer/all-layers.ts'
import { openLayer, openMerged, type ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease, OpenLayer } from '../../src/layer/layer.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import { ImageLayers } from '../../src/stores/asked-image.ts'
import { nameOf, trustAll } from '../../src/stores/identity.ts'
import { type ChainParts, openChain } from '../../src/stores/image-chain.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { MemoryBlob } from '../format/memory-blob.ts'
import { type Made, makePair, PAIR_WORKER, type Pair, pair } from '../format/pair.ts'
import { unitOf } from '../format/unit.ts'
import { contents, lazyLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { digest } from '../stores/store.ts'
import { imageOf } from './resolved.ts'

const FORMATS_HERE = [...FORMATS, pair]

const openHere = (dir: string) => openCache(dir, undefined, { formats: FORMATS_HERE, worker: PAIR_WORKER })

const both = ({ part, whole }: Pair) => [part, whole] as const

async function opened(image: ResolvedImage, i: number, layers: Parameters<typeof openLayer>[2]): Promise<LayerLease> {
  const layer = await openLayer(image, image.manifest.layers[i] as Descriptor, layers)
  if ('why' in layer) throw new Error(layer.why)
  return layer
}

async function namesIn(layer: OpenLayer): Promise<string[]> {
  const image = await layer.openImage()
  const reader = new ErofsReader(new Uint8Array(await image.readFile()))
  await image.close()
  return [...reader.readdir(reader.resolve('') as number)].map(({ name }) => name)
}

test('one layer of a unit shows the tree, with files from the blobs of all; the others show an empty one', async () => {
  const dir = await folder()
  const { layers, close } = await openHere(dir)
  const made = makePair({ a: 'from below', b: 'also' }, { c: 'from above' })
  const image = imageOf(both(made))
  const tree = await opened(image, 1, layers)
  expect(tree).toMatchObject({ descriptor: made.whole.descriptor, format: 'pair', indexDigest: undefined })
  expect(tree.chunks.blobs.map((each) => each.digest)).toEqual([made.part.blob.digest, made.whole.blob.digest])
  expect(made.part.blob.ranges).toEqual([])
  expect(await contents(tree, 'a')).toBe('from below')
  expect(await contents(tree, 'c')).toBe('from above')
  expect([made.part.blob.ranges.length, made.whole.blob.ranges.length]).toEqual([1, 2]) // of the whole, the index too
  const empty = await opened(image, 0, layers)
  expect(empty).toMatchObject({ descriptor: made.part.descriptor, chunks: { length: 0, deviceSize: 0 } })
  expect(await namesIn(empty)).toEqual([])
  await close()

  // and after a restart nothing is read again
  const [part, whole] = [made.part.blob.ranges.length, made.whole.blob.ranges.length]
  const after = await openHere(dir)
  const again = await opened(image, 1, after.layers)
  expect(await contents(again, 'a')).toBe('from below')
  expect([again.tree, (await opened(image, 0, after.layers)).tree]).toEqual([tree.tree, empty.tree])
  expect([made.part.blob.ranges.length, made.whole.blob.ranges.length]).toEqual([part, whole])
})

test('merged with ordinary layers, its tree is there once', async () => {
  const { layers, store, builder } = await openHere(await folder())
  const above = await lazyLayer({ c: 'replaced!' })
  const opened = await openAllLayers(
    imageOf([...both(makePair({ a: 'one' }, { c: 'two' })), above]),
    layers,
    refuseWhole,
  )
  const { image } = await openMerged(opened, store, builder)
  const reader = new ErofsReader(new Uint8Array(await image.readFile()))
  await image.close()
  expect(reader.attributes(reader.resolve('a') as number).size).toBe('one'.length)
  expect(reader.attributes(reader.resolve('c') as number).size).toBe('replaced!'.length)
})

test('a unit that is the whole image is shown as it is: there is nothing to merge', async () => {
  const { layers, store } = await openHere(await folder())
  const opened = await openAllLayers(imageOf(both(makePair({ a: 'one' }, { c: 'two' }))), layers, refuseWhole)
  const merged = await openMerged(opened, store, { merge: () => Promise.reject(new Error('it was merged')) })
  const reader = new ErofsReader(new Uint8Array(await merged.image.readFile()))
  await merged.image.close()
  expect(['a', 'c'].map((path) => reader.attributes(reader.resolve(path) as number).size)).toEqual([3, 3])
  expect(merged.layers).toEqual(opened)
})

test('an index that the manifest does not vouch for is refused, and then no layer of the unit is shown', async () => {
  const dir = await folder()
  const { layers } = await openHere(dir)
  const { part, whole } = makePair({ a: 'one' }, {})
  const other = makePair({ a: 'evil' }, {}).whole.descriptor.annotations
  const image = imageOf([part, { ...whole, descriptor: { ...whole.descriptor, annotations: other } }])
  for (const i of [0, 1]) await expect(opened(image, i, layers)).rejects.toMatchObject({ code: 'corrupt' })
  expect(await readdir(join(dir, 'trees'))).toEqual([])
})

test.each([
  ['has not', { digest: digest('elsewhere') }, /none of the image's/],
  ['has with another size', { size: 7 }, /with 7 bytes/],
])('an index that reads from a blob which the manifest %s is refused', async (_, lie, what) => {
  const { layers } = await openHere(await folder())
  const made = makePair({ a: 'one' }, {}, ({ parts: [of] }) => Object.assign(of ?? {}, lie))
  await expect(opened(imageOf(both(made)), 1, layers)).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringMatching(what),
  })
})

test('bytes of either blob with another digest than the index has are never served', async () => {
  const { layers } = await openHere(await folder())
  const made = makePair({ a: 'from below' }, { c: 'from above' })
  const forged = { ...made.part, blob: new MemoryBlob(Buffer.from('from hell!')) }
  const tree = await opened(imageOf([forged, made.whole]), 1, layers)
  await expect(contents(tree, 'a')).rejects.toMatchObject({ code: 'corrupt' })
  expect(await contents(tree, 'c')).toBe('from above')
})

test('images with the same unit lend each other the blobs that fail', async () => {
  const { layers } = await openHere(await folder())
  const made = makePair({ a: 'from below' }, { c: 'from above' })
  const broken = { ...made.part, blob: new MemoryBlob(Buffer.from('from hell!')) }
  const repository = 'registry.example.com/app' // of others a part would be asked for
  const tree = await opened(imageOf([broken, made.whole], { origin: 'one.example.com', repository }), 1, layers)
  await expect(contents(tree, 'a')).rejects.toMatchObject({ code: 'corrupt' })
  const same = await opened(imageOf(both(made), { origin: 'two.example.com', repository }), 1, layers)
  expect(same.tree).toBe(tree.tree)
  expect(await contents(tree, 'a')).toBe('from below')
})

test('blobs that are kept whole are read in place of their registry once all of them are', async () => {
  const dir = await folder()
  const { layers, store } = await openHere(dir)
  const { part, whole } = makePair({ a: 'from below' }, { c: 'from above', d: 'and more' })
  const tree = await opened(imageOf([part, whole]), 1, layers)
  const keep = async ({ blob }: Made) => {
    const path = join(dir, `whole-${blob.size}`)
    await writeFile(path, await blob.read({ start: 0, end: blob.size }))
    await store.wholes.keep(blob.digest, path)
    blob.ranges.length = 0
  }
  await keep(whole)
  expect(await contents(tree, 'c')).toBe('from above')
  expect(whole.blob.ranges).toHaveLength(1)
  await keep(part)
  expect(await contents(tree, 'a')).toBe('from below')
  expect(await contents(tree, 'd')).toBe('and more')
  expect([part.blob.ranges.length, whole.blob.ranges.length]).toEqual([0, 1])
})

test('where the index does not name the layers of its unit none bears a name, whatever is believed, and the reason is said', async () => {
  const { layers } = await openHere(await folder())
  const made = makePair({ a: 'one' }, { b: 'two' })
  const image = imageOf(both(made))
  const together = { why: expect.stringContaining('one tree for several layers together') }
  for (const i of [0, 1]) {
    const layer = await opened(image, i, layers)
    const { indexDigest } = layer
    const open = { is: 'open', indexDigest, verdict: await layer.verdict(), together: layer.together } as const
    expect(nameOf(image, i, { ...open, trusted: true }, { isAmbiguous: () => false })).toMatchObject(together)
    const blob = i === 0 ? made.part.blob : made.whole.blob
    const read = blob.ranges.length
    await expect(layers.prove(layer, blob as unknown as StoredBlob)).rejects.toMatchObject({
      code: 'unsupported',
      ...together,
    })
    expect(blob.ranges.length).toBe(read)
  }
  const parts: Pick<ChainParts, 'layers' | 'trustsDiffIds'> = { layers, trustsDiffIds: trustAll }
  for (const prove of ['none', 'all'] as const) {
    const chain = await openChain(image, { ...parts, isAmbiguous: () => false, whyNot: () => undefined }, prove)
    expect(chain).toMatchObject({ links: [], why: expect.stringContaining('one tree for several layers together') })
  }
  const listing = new ImageLayers(image, layers, () => {})
  const unit = layers.plan(image.manifest).get(made.whole.descriptor)
  expect(unit).toMatchObject({ index: expect.stringContaining('sha256:') })
  expect(listing.find((unit as Unit).index)).toBeUndefined()
})

test('a unit has all of its layers, or none of them', async () => {
  const { part, whole } = makePair({ a: 'one' }, {})
  const other = await lazyLayer({ b: 'two' })
  const plan = planUnits({ layers: [other.descriptor, part.descriptor, whole.descriptor] }, FORMATS_HERE)
  expect(plan.get(other.descriptor)).toEqual(unitOf(other.descriptor))
  for (const each of [part, whole]) {
    expect(plan.get(each.descriptor)).toEqual({ why: expect.stringMatching(/^another format has some/) })
  }
  const alone = planUnits({ layers: [part.descriptor, whole.descriptor, other.descriptor] }, FORMATS_HERE)
  expect([...alone.values()].map((each) => ('format' in each ? each.format : each.why))).toEqual([
    'pair',
    'pair',
    'estargz',
  ])
})
