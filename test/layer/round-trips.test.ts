// How many round trips, one after the other, lie between an image's name and the first byte of a file in it.
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest'
import type { Descriptor } from '../../src/image/manifest.ts'
import { parsePlatform } from '../../src/image/manifest.ts'
import { parseReference } from '../../src/image/reference.ts'
import { startAhead } from '../../src/layer/ahead.ts'
import { Images, openLayer } from '../../src/layer/image.ts'
import { json, MemoryShelf, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from '../fake/image.ts'
import { type FakeRegistry, startRegistry } from '../fake/registry.ts'
import { Rounds } from '../fake/rounds.ts'
import { Settings } from '../fake/settings.ts'
import { contents, lazyLayer, openCache } from '../mount/fixture.ts'
import { folder } from '../store/folder.ts'

/** A start of which nothing is known. */
const NOTHING_FIRST = { prefetch: async () => {}, early: async () => [] }

const PLATFORM = parsePlatform('linux/amd64')
const TEXT = 'as it is in the registry\n'

let settings: Settings
let shelf: MemoryShelf
let registry: FakeRegistry
let rounds: Rounds

beforeEach(async () => {
  settings = await Settings.make()
  shelf = new MemoryShelf()
  rounds = new Rounds()
  registry = await startRegistry({ shelf, faults: [rounds.fault(/./)] })
  await settings.trust(registry.host, registry.cert)
})

afterEach(async () => {
  await settings[Symbol.asyncDispose]()
  await registry.close()
})

/** Adds an image of one lazy layer, in a file of which are TEXT and a note: what another image has in its is not fetched at all. */
async function addImage(tag: string, note = '') {
  const made = await lazyLayer({ file: `${TEXT}${note}` })
  const { size } = made.blob
  shelf.addBlob(await made.blob.read({ start: 0, end: size }))
  const rootfs = { type: 'layers', diff_ids: [made.descriptor.digest] }
  const config = shelf.addBlob(json({ os: 'linux', architecture: 'amd64', rootfs }), OCI_CONFIG)
  const document = { schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [made.descriptor] }
  return { config, layer: made.descriptor, manifest: shelf.addManifest(document, OCI_MANIFEST, tag) }
}

/** A process: what reads TEXT out of an image, and tells in how many round trips. */
async function start(cache: string) {
  const { store, layers, close } = await openCache(cache)
  const registries = settings.registries()
  const images = new Images(
    registries,
    store,
    PLATFORM,
    () => {},
    (image) => void startAhead(image, layers, NOTHING_FIRST),
  )
  const tripsTo = async (name: string) => {
    const image = await images.resolve(parseReference(`${registry.host}/${name}`))
    const layer = await openLayer(image, image.manifest.layers[0] as Descriptor, layers)
    if ('why' in layer) throw new Error(layer.why)
    expect(await contents(layer, 'file')).toContain(TEXT)
    await layer.close()
    return rounds.take()
  }
  return { tripsTo, close }
}

/** Storage that the registry sends to for these blobs. */
async function redirect(...blobs: Descriptor[]) {
  const storage = await startRegistry({ shelf, faults: [rounds.fault(/./)] })
  onTestFinished(() => storage.close())
  await settings.trust(storage.host, storage.cert)
  for (const { digest } of blobs) {
    registry.faults.push({ match: new RegExp(`blobs/${digest}`), redirect: `${storage.url}/v2/x/blobs/${digest}` })
  }
}

/** An index of one image. */
function addIndex(manifest: Descriptor, tag: string): void {
  const manifests = [{ ...manifest, platform: PLATFORM }]
  shelf.addManifest({ schemaVersion: 2, mediaType: OCI_INDEX, manifests }, OCI_INDEX, tag)
}

test('three lead to the first byte of an image that nobody knew: manifest, index, chunk', async () => {
  await addImage('1')
  expect(await (await start(await folder())).tripsTo('app:1')).toBe(3)
  const kinds = registry.seen.map(({ kind, range }) => `${kind}${range === undefined ? '' : ' range'}`)
  // the config and the layer's end go together
  expect([kinds[0], kinds.slice(1, 3).sort()]).toEqual(['manifest', ['blob', 'blob']])
})

test('one more where the tag is an index of platforms', async () => {
  addIndex((await addImage('one')).manifest, '1')
  expect(await (await start(await folder())).tripsTo('app:1')).toBe(4)
})

test('one more where the registry sends to storage, however often it is read', async () => {
  const { config, layer } = await addImage('1')
  await redirect(config, layer)
  expect(await (await start(await folder())).tripsTo('app:1')).toBe(4)
})

test('two more for a first token, one for the first of another repository, none while it lasts', async () => {
  await addImage('1')
  await addImage('2', 'x')
  await addImage('3', 'y')
  registry.auth = { scheme: 'bearer' }
  const { tripsTo } = await start(await folder())
  expect(await tripsTo('app:1')).toBe(5)
  expect(await tripsTo('app:2')).toBe(3)
  expect(await tripsTo('other:3')).toBe(4)
})

test('seven where all of that is new', async () => {
  const { config, layer, manifest } = await addImage('one')
  addIndex(manifest, '1')
  await redirect(config, layer)
  registry.auth = { scheme: 'bearer' }
  expect(await (await start(await folder())).tripsTo('app:1')).toBe(7)
})

test('one where everything is kept: what the tag means now, also after a restart and when it is an index', async () => {
  addIndex((await addImage('one')).manifest, '1')
  const cache = await folder()
  const before = await start(cache)
  await before.tripsTo('app:1')
  expect(await before.tripsTo('app:1')).toBe(1)
  await before.close()
  const { tripsTo } = await start(cache)
  registry.seen.length = 0
  expect(await tripsTo('app:1')).toBe(1)
  expect(registry.seen.map(({ path }) => path)).toEqual(['/v2/app/manifests/1'])
})

test('a tag that has moved is what it is now, and costs what it brings', async () => {
  await addImage('1')
  const { tripsTo } = await start(await folder())
  await tripsTo('app:1')
  await addImage('1', 'new')
  expect(await tripsTo('app:1')).toBe(3)
})
