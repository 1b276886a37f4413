// Layers that show one tree together, on their way to engines: who bears which name, and who must not.
import { readFile } from 'node:fs/promises'
import { gunzipSync, gzipSync } from 'node:zlib'
import { expect, test, vi } from 'vitest'
import { FORMATS } from '../../src/format/formats.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'
import { keepForIndex, nameAhead, startAhead } from '../../src/layer/ahead.ts'
import { openAllLayers, refuseWhole } from '../../src/layer/all-layers.ts'
import { openLayer, type ResolvedImage } from '../../src/layer/image.ts'
import type { LayerLease } from '../../src/layer/layer.ts'
import { layerId } from '../../src/stores/chain.ts'
import { trustAll, trustNone } from '../../src/stores/identity.ts'
import { type Chain, closeChain, openChain } from '../../src/stores/image-chain.ts'
import { layerEntry } from '../../src/stores/layers-json.ts'
import { nameClaimsOf } from '../../src/stores/name-claim.ts'
import { OCI_LAYER } from '../fake/image.ts'
import { MemoryBlob } from '../format/memory-blob.ts'
import { type Made, makeSealedPair, PAIR_WORKER, pair } from '../format/pair.ts'
import { header, member } from '../format/tar/tar-craft.ts'
import { imageOf } from '../layer/resolved.ts'
import { contents, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'
import { digest } from './store.ts'

/** A start of which nothing is known. */
const NOTHING_FIRST = { prefetch: async () => {}, early: async () => [] }

const NOISE = Uint8Array.from({ length: 2048 }, (_, i) => (i * 151 + 7) & 0xff)
const FOUR = Buffer.from(NOISE.subarray(0, 4)).toString()

const open = async (dir?: string) =>
  openCache(dir ?? (await folder()), undefined, { formats: [...FORMATS, pair], worker: PAIR_WORKER })
type Cache = Awaited<ReturnType<typeof open>>

const made = (part = NOISE, change?: Parameters<typeof makeSealedPair>[2]) => {
  const pair = makeSealedPair(part, ['a', 'b'], change)
  const diffIds = [pair.part.blob.digest, pair.diffId]
  return { ...pair, layers: [pair.part, pair.whole], diffIds }
}

const chainOf = (
  { layers }: Cache,
  image: ResolvedImage,
  prove: Parameters<typeof openChain>[2],
  trustsDiffIds = trustNone,
): Promise<Chain> =>
  openChain(image, { layers, trustsDiffIds, isAmbiguous: () => false, whyNot: () => undefined }, prove)

/** An ordinary layer of this tar. */
function ordinary(tar: Uint8Array, blob = new MemoryBlob(gzipSync(tar))): Made {
  return { descriptor: { mediaType: OCI_LAYER, digest: blob.digest, size: blob.size, annotations: {} }, blob }
}

const tarOf = (text: string) => Buffer.concat([member({ name: 'fix' }, text.padEnd(600)), new Uint8Array(1024)])

test('whoever has an image listed that is believed has nothing of it read but its index, unless all is to be proven', async () => {
  const cache = await open()
  const { part, layers, diffIds } = made()
  const image = imageOf(layers, { diffIds })
  expect((await chainOf(cache, image, 'needed', trustAll)).links).toHaveLength(2)
  expect(part.blob.ranges).toEqual([])
  expect((await chainOf(cache, image, 'all', trustAll)).links).toHaveLength(2)
  expect(part.blob.ranges).toEqual([{ start: 0, end: 2048 }])
})

test('what shows the tree is fetched once when it is opened ahead of the config, too', async () => {
  const cache = await open()
  const { whole, layers, diffIds } = made()
  const image = imageOf(layers, { diffIds })
  const ahead = nameAhead(image, cache.layers, NOTHING_FIRST)
  await closeChain(await chainOf(cache, image, 'none'))
  await ahead
  expect(whole.blob.ranges).toEqual([{ start: 0, end: whole.blob.size }])
})

test('what its tar is called is found out while the tree is built, and once', async () => {
  const cache = await open()
  const { layers, diffIds } = made()
  const image = imageOf(layers, { diffIds })
  const reading = Promise.withResolvers<void>()
  const { builder } = cache
  const [build, examineRaw] = [builder.build.bind(builder), builder.examineRaw.bind(builder)]
  vi.spyOn(builder, 'build').mockImplementation(async (...of) => {
    await reading.promise
    return await build(...of)
  })
  const read = vi.spyOn(builder, 'examineRaw').mockImplementation(async (...of) => {
    reading.resolve()
    return await examineRaw(...of)
  })
  const ahead = nameAhead(image, cache.layers, NOTHING_FIRST)
  const chain = await chainOf(cache, image, 'none', trustAll)
  expect(chain.links).toHaveLength(2)
  await closeChain(chain)
  await ahead
  expect(read).toHaveBeenCalledTimes(1)
})

test('what shows the tree is fetched once for who mounts the image and names no layer, and nothing of it is kept', async () => {
  const cache = await open()
  const { whole, layers, diffIds } = made()
  const image = imageOf(layers, { diffIds })
  const ahead = startAhead(image, cache.layers, NOTHING_FIRST)
  const opened = await openAllLayers(image, cache.layers, refuseWhole)
  await Promise.all([ahead, ...opened.map((each) => each.close())])
  expect(whole.blob.ranges).toEqual([{ start: 0, end: whole.blob.size }])
  expect(cache.store.wholes.has(whole.blob.digest)).toBe(false)
})

test('what is too large for an index is not fetched for it', async () => {
  const { layers } = await open()
  const { part, whole } = made()
  const huge = { ...whole, descriptor: { ...whole.descriptor, size: (128 << 20) + 1 } }
  const image = imageOf([part, huge])
  await keepForIndex(image, huge.descriptor, layers)
  expect(whole.blob.ranges).toEqual([])
})

test('once all of them were read, the layers bear their DiffIDs as any layers do, and the tree has its contents', async () => {
  const cache = await open()
  const { part, whole, layers, diffIds, tar } = made()
  const image = imageOf(layers, { diffIds })
  const before = await chainOf(cache, image, 'none')
  expect(before).toMatchObject({ links: [], why: expect.stringContaining('only claimed') })
  expect(part.blob.ranges).toEqual([])
  expect(whole.blob.ranges).toHaveLength(1) // for its index and for what its tar is called
  const chain = await chainOf(cache, image, 'needed')
  const below = layerId(undefined, { by: 'diffid', digest: diffIds[0] as Digest })
  expect(chain).toMatchObject({
    why: undefined,
    links: [
      { id: below, size: 2048, proven: true },
      { id: layerId(below, { by: 'diffid', digest: diffIds[1] as Digest }), size: tar.length, proven: true },
    ],
  })
  expect(part.blob.ranges).toEqual([{ start: 0, end: 2048 }])
  expect(await contents(chain.links[1]?.layer as LayerLease, 'a')).toBe(FOUR)
  expect(part.blob.ranges).toHaveLength(1)
  expect(chain.links.map((link) => JSON.parse(layerEntry(link, false)))).toMatchObject([
    { 'compressed-diff-digest': diffIds[0], 'diff-digest': diffIds[0], 'diff-size': 2048, compression: 0 },
    { 'compressed-diff-digest': whole.blob.digest, 'diff-digest': diffIds[1], compression: 2 },
  ])
  await closeChain(chain)
  await cache.close()

  // and the next process needs nobody for that
  const read = [part, whole].map(({ blob }) => blob.ranges.length)
  const again = await chainOf(await open(cache.store.dir), image, 'none')
  expect(again.links.map(({ proven }) => proven)).toEqual([true, true])
  expect([part, whole].map(({ blob }) => blob.ranges.length)).toEqual(read)
})

test('where images are believed nothing is read whole but the layer that shows the tree', async () => {
  const cache = await open()
  const { part, layers, diffIds } = made()
  const chain = await chainOf(cache, imageOf(layers, { diffIds }), 'none', trustAll)
  expect(chain).toMatchObject({ why: undefined, links: [{ proven: false }, { proven: false }] }) // it stands on the other
  expect(part.blob.ranges).toEqual([])
  const forged = [part.blob.digest, digest('a tar of somebody else')]
  expect(await chainOf(cache, imageOf(layers, { diffIds: forged }), 'none', trustAll)).toMatchObject({
    links: [],
    why: expect.stringContaining('and its bytes have'),
  })
})

test('a layer that is shown as nothing and begins as a tar does is a lie, and is cut off everywhere', async () => {
  const cache = await open()
  const told: unknown[] = []
  cache.examinations.quarantine.watch((claim) => told.push(claim))
  const { part, layers, diffIds } = made(tarOf('a fix of somebody else'))
  const image = imageOf(layers, { diffIds })
  const believed = await chainOf(cache, image, 'none', trustAll)
  expect(believed.links).toHaveLength(2)
  expect(await chainOf(cache, image, 'needed')).toMatchObject({ links: [] })
  expect(told).toEqual([expect.objectContaining({ blob: part.blob.digest, together: true })])
  expect(await chainOf(cache, image, 'none', trustAll)).toMatchObject({
    links: [],
    why: expect.stringContaining('is quarantined'),
  })
  expect(cache.warnings).toEqual([expect.stringContaining('shows it together with others as what it is not')])
})

test('one that engines may take for an empty layer is never proven, and nothing is held against it', async () => {
  const cache = await open()
  for (const bytes of [new Uint8Array(2048), NOISE.subarray(0, 511)]) {
    const { layers, diffIds } = made(bytes)
    expect(await chainOf(cache, imageOf(layers, { diffIds }), 'needed')).toMatchObject({
      links: [],
      why: expect.stringMatching(/empty (layer|one)/),
    })
  }
  expect([cache.examinations.quarantine.size, cache.warnings]).toEqual([0, []])
})

test('whose ordinary layer was passed off as nothing has it, with its files', async () => {
  const cache = await open()
  const tar = tarOf('a fix')
  const { layers, diffIds } = made(tar)
  const hostile = imageOf(layers, { diffIds })
  expect((await chainOf(cache, hostile, 'none', trustAll)).links).toHaveLength(2)
  expect((await chainOf(cache, hostile, 'needed')).links).toHaveLength(0)
  for (const layer of [ordinary(tar), ordinary(tar, new MemoryBlob(tar))]) {
    const chain = await chainOf(cache, imageOf([layer], { diffIds: [digestOf(tar)] }), 'all')
    expect(chain).toMatchObject({ why: undefined, links: [{ proven: true }] })
    expect(await contents(chain.links[0]?.layer as LayerLease, 'fix')).toMatch(/^a fix/)
  }
})

test('the tar of the layer that shows the tree is an ordinary layer where it stands alone', async () => {
  const cache = await open()
  const { whole, layers, diffIds, diffId } = made()
  const shown = (await chainOf(cache, imageOf(layers, { diffIds }), 'needed')).links[1]?.layer as LayerLease
  const alone = { ...whole, descriptor: { ...whole.descriptor, mediaType: OCI_LAYER, annotations: {} } }
  const image = imageOf([alone], { diffIds: [diffId] })
  expect((await chainOf(cache, image, 'none')).links).toEqual([]) // what was proven was proven of the other tree
  const chain = await chainOf(cache, image, 'all')
  const ordinaryLayer = chain.links[0]?.layer as LayerLease
  expect(ordinaryLayer.tree).not.toBe(shown.tree)
  expect(await contents(ordinaryLayer, 'index')).toContain('parts')
})

test('layers above are ordinary; with one below there is no name for any', async () => {
  const cache = await open()
  const { layers, diffIds } = made()
  const other = ordinary(tarOf('above'))
  const otherId = digestOf(tarOf('above'))
  const above = imageOf([...layers, other], { diffIds: [...diffIds, otherId] })
  expect((await chainOf(cache, above, 'needed')).links).toHaveLength(3)
  const below = imageOf([other, ...layers], { diffIds: [otherId, ...diffIds] })
  expect((await chainOf(cache, below, 'all', trustAll)).links).toEqual([])
})

test('an image that has the same tree on more layers keeps nobody from bearing names, nor gets any', async () => {
  const cache = await open()
  const { part, whole, layers, diffIds } = made()
  const more = makeSealedPair(NOISE.toReversed(), []).part
  const three = [diffIds[0], more.descriptor.digest, diffIds[1]] as Digest[]
  const hostile = imageOf([part, more, whole], { diffIds: three })
  const honest = imageOf(layers, { diffIds })
  const held = await openLayer(hostile, part.descriptor, cache.layers)
  expect((await chainOf(cache, honest, 'needed')).links).toHaveLength(2)
  expect((await chainOf(cache, hostile, 'all', trustAll)).links).toEqual([])
  await (held as LayerLease).close()
})

test('what is shown as nothing is the same for all images that have it, whatever tree stands on it', async () => {
  const { layers } = await open()
  const claims = [made(), made(NOISE, (index) => void index.files.pop())].map(({ layers: made, diffIds }) => {
    const image = imageOf(made, { diffIds })
    return nameClaimsOf(image, layers.plan(image.manifest), [])
  })
  expect(claims[0]?.[0]).toEqual(claims[1]?.[0])
  expect(claims[0]?.[1]).not.toEqual(claims[1]?.[1])
})

test('a layer whose image says how it ends, and that ends otherwise, is not proven, and nothing is held against it', async () => {
  const cache = await open()
  const ends = (index: { parts: { ends?: string }[] }) => Object.assign(index.parts[0] ?? {}, { ends: 'toc' })
  const other = made(NOISE, ends)
  const image = imageOf(other.layers, { diffIds: other.diffIds })
  expect(await chainOf(cache, image, 'needed')).toMatchObject({
    links: [],
    why: expect.stringContaining('does not end in toc'),
  })
  const honest = made()
  expect((await chainOf(cache, imageOf(honest.layers, { diffIds: honest.diffIds }), 'needed')).links).toHaveLength(2)
  const right = made(Buffer.concat([NOISE, header({ name: 'toc' })]), ends)
  expect((await chainOf(cache, imageOf(right.layers, { diffIds: right.diffIds }), 'needed')).links).toHaveLength(2)
})

test('engines put the tar of what shows the tree together without its files, and end at once with the others', async () => {
  const cache = await open()
  const { part, layers, diffIds, tar } = made()
  const image = imageOf(layers, { diffIds })
  const [nothing, tree] = (await chainOf(cache, image, 'none', trustAll)).links.map(({ layer }) => layer as LayerLease)
  const split = async (layer: LayerLease) => {
    const file = await cache.examinations.split(layer, image.blob(layer.descriptor))
    const bytes = await readFile(`/proc/self/fd/${file.fd}`)
    await file.close()
    return gunzipSync(bytes).toString()
  }
  const payloads = (await split(tree as LayerLease)).trimEnd().split('\n')
  const bytes = Buffer.concat(payloads.map((each) => Buffer.from(JSON.parse(each).payload, 'base64')))
  expect(Buffer.compare(bytes, tar)).toBe(0)
  expect(JSON.parse(await split(nothing as LayerLease))).toMatchObject({ type: 1, size: 1 }) // a file that is not there
  expect(part.blob.ranges).toEqual([])
  const empty = await openLayer(image, part.descriptor, cache.layers)
  expect(empty).toMatchObject({ chunks: { length: 0 } })
})
