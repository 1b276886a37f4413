import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { Failure } from '../../src/errors.ts'
import { digestOf, hex } from '../../src/image/digest.ts'
import {
  type Descriptor,
  type Manifest,
  type Platform,
  parseManifest,
  parsePlatform,
} from '../../src/image/manifest.ts'
import { parseReference, type Reference, referenceText } from '../../src/image/reference.ts'
import { openAhead } from '../../src/layer/ahead.ts'
import { type EarlyImage, Images, openMerged } from '../../src/layer/image.ts'
import type { OpenLayer } from '../../src/layer/layer.ts'
import { type Documents, resolveImage } from '../../src/registry/manifests.ts'
import type { ImageSource, StoredBlob } from '../../src/registry/source.ts'
import { Store } from '../../src/store/store.ts'
import { ErofsReader } from '../../src/tree/erofs-reader.ts'
import { describeBytes, json, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from '../fake/image.ts'
import { sourceOf } from '../format/memory-blob.ts'
import { unitOf } from '../format/unit.ts'
import { lazyLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

const PLATFORM = parsePlatform('linux/amd64')

/** An image in two documents, and an index of it. */
function makeImage(layers: readonly Descriptor[], note = '') {
  const rootfs = { type: 'layers', diff_ids: layers.map((each) => digestOf(json(each))) }
  const config = json({ os: 'linux', architecture: 'amd64', rootfs, note })
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: describeBytes(config, OCI_CONFIG), layers }
  const manifest = json(document)
  const listed = { ...describeBytes(manifest, OCI_MANIFEST), platform: PLATFORM }
  const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [listed] })
  return { config, manifest, index, digest: digestOf(manifest) }
}

type Made = ReturnType<typeof makeImage>

/** A registry whose tags can be moved, and which can be away. Counts what it is asked for. */
class FakeRegistry {
  readonly roots = new Map<string, { bytes: Uint8Array; image: Made }>()
  readonly asked: string[] = []
  away: Failure | undefined
  /** Called when a config is asked for. */
  config: () => void = () => {}
  /** Of those who asked for a manifest alone. */
  readonly signals: (AbortSignal | undefined)[] = []

  put(reference: string, image: Made, bytes = image.manifest): void {
    this.roots.set(referenceText(parseReference(reference)), { bytes, image })
  }

  source(reference: Reference): ImageSource {
    const name = referenceText(reference)
    const documents: Documents = {
      root: async () => {
        this.asked.push(name)
        if (this.away !== undefined) throw this.away
        const root = this.roots.get(name)
        if (root === undefined) throw Failure.missing(`no ${name}`)
        return { bytes: root.bytes, mediaType: undefined }
      },
      manifest: async () => (this.roots.get(name) as { image: Made }).image.manifest,
      config: async () => {
        this.config()
        return (this.roots.get(name) as { image: Made }).image.config
      },
    }
    return {
      resolve: (platform: Platform, options = {}) => resolveImage(reference, documents, platform, options),
      manifest: async (_, { signal } = {}) => {
        this.signals.push(signal)
        return parseManifest((await documents.root(signal)).bytes, name) as Manifest
      },
      blob: (descriptor: Descriptor): StoredBlob => ({
        digest: descriptor.digest,
        size: descriptor.size,
        origin: 'example.com',
        read: async () => new Uint8Array(),
        stream: async () => {},
      }),
      sizeOf: async () => undefined,
    }
  }
}

async function openImages(
  dir: string,
  registry: FakeRegistry,
  { platform = PLATFORM, early = () => {} }: { platform?: Platform; early?: (image: EarlyImage) => void } = {},
) {
  const messages: string[] = []
  const store = await Store.open(dir, { tryLock: () => true }, () => {})
  onTestFinished(() => store.close())
  return { images: new Images(registry, store, platform, (message) => messages.push(message), early), store, messages }
}

const TAGGED = parseReference('example.com/app:1')
const AWAY = Failure.unavailable('the registry is away')

test('what was resolved is kept: reference, manifest and config', async () => {
  const dir = await folder()
  const registry = new FakeRegistry()
  const image = makeImage([])
  registry.put('example.com/app:1', image)
  const { images, store } = await openImages(dir, registry)
  expect(await images.kept(TAGGED)).toBeUndefined()
  expect(await images.resolve(TAGGED)).toMatchObject({ digest: image.digest, reference: TAGGED })
  expect(await store.getObject(image.digest)).toEqual(Buffer.from(image.manifest))
  expect(await store.getObject(digestOf(image.config))).toEqual(Buffer.from(image.config))
  const later = await openImages(dir, registry)
  const kept = await later.images.kept(TAGGED)
  expect(kept).toMatchObject({ digest: image.digest, manifest: { layers: [] }, config: { platform: PLATFORM } })
  expect(registry.asked).toEqual(['example.com/app:1'])
})

test('what is kept of one platform is not taken for another', async () => {
  const dir = await folder()
  const registry = new FakeRegistry()
  registry.put('example.com/app:1', makeImage([]))
  const { images } = await openImages(dir, registry)
  await images.resolve(TAGGED)
  const other = await openImages(dir, registry, { platform: parsePlatform('linux/arm64') })
  expect(await other.images.kept(TAGGED)).toBeUndefined()
})

for (const [what, bytes] of [
  ['a manifest', (image: Made) => image.manifest],
  ['an index', (image: Made) => image.index],
] as const) {
  test(`by the digest of ${what} an image that is kept is found without the network, also by digest and tag`, async () => {
    const dir = await folder()
    const registry = new FakeRegistry()
    const image = makeImage([])
    const name = `example.com/app@${digestOf(bytes(image))}`
    registry.put(name, image, bytes(image))
    await (await openImages(dir, registry)).images.resolve(parseReference(name))
    registry.away = AWAY
    registry.asked.length = 0
    const { images, messages } = await openImages(dir, registry)
    expect(await images.resolve(parseReference(name))).toMatchObject({ digest: image.digest })
    expect(registry.asked).toEqual([])
    expect(messages).toEqual([])
  })
}

test('a tag is asked for each time, and a moved one is what it is now', async () => {
  const registry = new FakeRegistry()
  registry.put('example.com/app:1', makeImage([]))
  const { images } = await openImages(await folder(), registry)
  await images.resolve(TAGGED)
  const moved = makeImage([], 'newer')
  registry.put('example.com/app:1', moved)
  expect((await images.resolve(TAGGED)).digest).toBe(moved.digest)
  expect((await images.kept(TAGGED))?.digest).toBe(moved.digest)
})

test.each([
  ['unavailable', AWAY],
  ['slow', Failure.timeout('no answer for 30 s')],
])('while the registry is %s a tag is what it was the last time, and a line says so', async (_, failure) => {
  const registry = new FakeRegistry()
  const image = makeImage([])
  registry.put('example.com/app:1', image)
  const { images, messages } = await openImages(await folder(), registry)
  await images.resolve(TAGGED)
  registry.away = failure
  expect((await images.resolve(TAGGED)).digest).toBe(image.digest)
  expect(messages).toEqual([`example.com/app:1: ${failure.message}; using ${image.digest}, as resolved the last time`])
})

test.each([
  ['missing', Failure.missing('no such tag')],
  ['denied', Failure.denied('not yours')],
  ['corrupt', Failure.corrupt('another digest')],
  ['aborted', Failure.aborted('enough')],
])('what is %s is not hidden by what is kept', async (code, failure) => {
  const registry = new FakeRegistry()
  registry.put('example.com/app:1', makeImage([]))
  const { images, messages } = await openImages(await folder(), registry)
  await images.resolve(TAGGED)
  registry.away = failure
  await expect(images.resolve(TAGGED)).rejects.toMatchObject({ code })
  expect(messages).toEqual([])
})

test('an image that was never resolved fails while the registry is away', async () => {
  const registry = new FakeRegistry()
  registry.away = AWAY
  const { images } = await openImages(await folder(), registry)
  await expect(images.resolve(TAGGED)).rejects.toBe(AWAY)
})

test('a manifest that was damaged on disk counts as not kept', async () => {
  const dir = await folder()
  const registry = new FakeRegistry()
  const image = makeImage([])
  registry.put('example.com/app:1', image)
  const { images } = await openImages(dir, registry)
  await images.resolve(TAGGED)
  await writeFile(join(dir, 'objects', hex(image.digest)), 'junk')
  expect(await images.kept(TAGGED)).toBeUndefined()
  expect((await images.resolve(TAGGED)).digest).toBe(image.digest)
})

test('a companion is asked for once, however many layers ask; a failure is not remembered', async () => {
  const registry = new FakeRegistry()
  const carried = describeBytes(json('table'), OCI_LAYER)
  registry.put('example.com/app:1', makeImage([]))
  registry.put('example.com/app:1-tables', makeImage([carried]))
  const { images } = await openImages(await folder(), registry)
  const image = await images.resolve(TAGGED)
  registry.asked.length = 0
  registry.away = AWAY
  await expect(image.companion('-tables')).rejects.toBe(AWAY)
  registry.away = undefined
  const found = await Promise.all([image.companion('-tables'), image.companion('-tables')])
  expect(await image.companion('-tables')).toBe(found[0])
  expect(found[0]).toMatchObject([{ descriptor: carried, blob: { digest: carried.digest } }])
  expect(registry.asked).toEqual(['example.com/app:1-tables', 'example.com/app:1-tables'])
  expect(await image.companion('-other')).toBeUndefined()
})

test('whoever asks for a companion can give up', async () => {
  const registry = new FakeRegistry()
  registry.put('example.com/app:1', makeImage([]))
  const { images } = await openImages(await folder(), registry)
  const image = await images.resolve(TAGGED)
  const { signal } = new AbortController()
  expect(await image.companion('-tables', signal)).toBeUndefined()
  expect(registry.signals).toEqual([signal])
})

test('an image without a tag has no companion', async () => {
  const registry = new FakeRegistry()
  const image = makeImage([])
  const name = `example.com/app@${image.digest}`
  registry.put(name, image)
  const { images } = await openImages(await folder(), registry)
  const resolved = await images.resolve(parseReference(name))
  registry.asked.length = 0
  expect(await resolved.companion('-tables')).toBeUndefined()
  expect(registry.asked).toEqual([])
})

test('a layer of one reference is one blob, whoever resolves it', async () => {
  const registry = new FakeRegistry()
  const layer = describeBytes(json('layer'), OCI_LAYER)
  registry.put('example.com/app:1', makeImage([layer]))
  registry.put('example.com/app:2', makeImage([layer], 'two'))
  const { images } = await openImages(await folder(), registry)
  const blob = (await images.resolve(TAGGED)).blob(layer)
  expect((await images.resolve(TAGGED)).blob(layer)).toBe(blob)
  expect((await images.resolve(parseReference('example.com/app:2'))).blob(layer)).not.toBe(blob)
})

test('what is lazy of an image is opened as soon as its manifest is there, and whoever opens it then reads nothing more', async () => {
  const registry = new FakeRegistry()
  const { layers } = await openCache(await folder())
  const lazy = await lazyLayer({ a: 'one' })
  const plain = describeBytes(json('plain'), OCI_LAYER)
  registry.put('example.com/app:1', makeImage([plain, lazy.descriptor]))
  const order: string[] = []
  const ahead: Promise<void>[] = []
  const early = (image: EarlyImage) => {
    order.push('manifest')
    const blob = (of: Descriptor): StoredBlob => ({ ...image.blob(of), read: (range) => lazy.blob.read(range) })
    ahead.push(openAhead({ ...image, blob }, layers))
  }
  const { images } = await openImages(await folder(), registry, { early })
  registry.config = () => order.push('config')
  await images.resolve(TAGGED)
  expect(order).toEqual(['manifest', 'config'])
  await Promise.all(ahead)
  const read = lazy.blob.ranges.length
  expect(read).toBeGreaterThan(0)
  const source = { ...sourceOf(lazy.blob), repository: 'example.com/app' }
  await layers.open(unitOf(lazy.descriptor), source, 'example.com')
  expect(lazy.blob.ranges.length).toBe(read)
})

test('an image whose layers cannot be opened ahead is resolved all the same', async () => {
  const registry = new FakeRegistry()
  const { layers } = await openCache(await folder())
  const { descriptor } = await lazyLayer({ a: 'one' })
  registry.put('example.com/app:1', makeImage([descriptor]))
  const failing = (image: EarlyImage) => ({
    ...image,
    blob: (of: Descriptor): StoredBlob => ({ ...image.blob(of), read: () => Promise.reject(Failure.missing('gone')) }),
  })
  const ahead: Promise<void>[] = []
  const early = (image: EarlyImage) => void ahead.push(openAhead(failing(image), layers))
  const { images } = await openImages(await folder(), registry, { early })
  expect((await images.resolve(TAGGED)).manifest.layers).toEqual([descriptor])
  expect(await Promise.all(ahead)).toEqual([undefined])
})

test('layers are merged once, also over restarts; a damaged merge is made again', async () => {
  const dir = await folder()
  const below = await lazyLayer({ a: 'below', b: 'stays' })
  const above = await lazyLayer({ a: 'above' })
  let merges = 0
  const merged = async () => {
    const cache = await openCache(dir)
    const opened: OpenLayer[] = []
    for (const each of [below, above])
      opened.push(await cache.layers.open(unitOf(each.descriptor), sourceOf(each.blob), 'registry.example.com'))
    const { image, slot } = await openMerged(opened, cache.store, {
      merge(images) {
        merges++
        return cache.builder.merge(images)
      },
    })
    const bytes = await image.readFile()
    await image.close()
    await cache.close()
    const reader = new ErofsReader(new Uint8Array(bytes))
    expect(reader.attributes(reader.resolve('a') as number).size).toBe('above'.length)
    expect(reader.resolve('b')).toBeDefined()
    return { slot, digest: digestOf(bytes) }
  }
  const first = await merged()
  expect(merges).toBe(1)
  expect(await merged()).toEqual(first)
  expect(merges).toBe(1)
  const path = join(dir, 'trees', hex(first.digest), 'image')
  const bytes = await readFile(path)
  bytes[2000] = (bytes[2000] as number) ^ 1
  await writeFile(path, bytes)
  expect(await merged()).toEqual(first)
  expect(merges).toBe(2)
})
