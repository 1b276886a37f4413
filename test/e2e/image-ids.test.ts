// Images that an engine cannot tell apart by the indexes of their layers (docs/upstream-image-ids.md): each keeps its own configuration
// and its own files, whichever was pulled first.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type WrittenImage, writeImage } from '../../src/build/layout-writer.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import { byEngine, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000
/** Two that differ in their configurations alone, and two with another layer of their own, which no index describes, on a lazy one. */
const TAGS = ['victim', 'twin', 'mixed', 'other'] as const
type Tag = (typeof TAGS)[number]

interface Seen {
  id: string
  blobs: Digest[]
}

suite('images with the same indexes', STORE_LACKS, () => {
  let store: EngineStore
  const images = new Map<Tag, WrittenImage>()

  beforeAll(async () => {
    store = await makeStore(async (work) => {
      const layout = join(work, 'layout')
      await mkdir(layout)
      const file = (path: string, content: string) => ({ path, type: 'file' as const, content: Buffer.from(content) })
      const lazy = (name: string) => ({ kind: 'estargz' as const, entries: [file(name, name)] })
      const plain = (tag: Tag) => ({ kind: 'gzip' as const, entries: [file('own', tag)] })
      const layers = (tag: Tag) => [lazy('base'), tag === 'victim' || tag === 'twin' ? lazy('top') : plain(tag)]
      for (const tag of TAGS) {
        images.set(tag, await writeImage({ dir: layout, tag, config: { Cmd: [tag] }, layers: layers(tag) }))
      }
      return { layout, tags: TAGS }
    })
    await store.installHelper()
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const nameOf = (tag: Tag) => `${store.registry.host}/${tag}:${tag}`
  const configOf = (tag: Tag) => images.get(tag)?.config.digest as Digest
  const layersOf = (tag: Tag) => images.get(tag)?.layers.map(({ digest }) => digest) as Digest[]

  /** @returns the image's ID, and the layers that the engine itself asked for */
  async function pull(podman: Podman, tag: Tag): Promise<Seen> {
    await store.registry.clear()
    const id = await podman.succeed(['pull', '--quiet', nameOf(tag)])
    const uris = byEngine(await store.registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
    return { id, blobs: layersOf(tag).filter((each) => uris.some((uri) => uri.endsWith(each))) }
  }

  /** Of each image: its command, and its files. */
  async function look(podman: Podman, tags: readonly Tag[]): Promise<void> {
    for (const tag of tags) {
      expect(await podman.succeed(['inspect', '--format', '{{index .Config.Cmd 0}}', nameOf(tag)])).toBe(tag)
      const mounted = await podman.succeed(['mount', await podman.succeed(['create', nameOf(tag), '/none'])])
      const own = tag === 'victim' || tag === 'twin' ? ['top', 'top'] : ['own', tag]
      expect((await podman.exec(['cat', `${mounted}/base`, `${mounted}/${own[0]}`])).stdout).toBe(`base${own[1]}`)
    }
  }

  for (const [flavour, version] of [
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(version, podmanLacks(flavour), () => {
      for (const [first, second] of [
        ['victim', 'twin'],
        ['twin', 'victim'],
      ] as const) {
        test(`Podman ${version} runs each as it is, ${first} first`, { timeout: ENGINE_TIMEOUT_MS }, async () => {
          const cache = `cache-${flavour}-${first}`
          await store.serve(cache)
          await using podman = await store.startEngine(flavour, 'images')
          const lazy = await pull(podman, first)
          expect(lazy).toEqual({ id: expect.not.stringContaining(hex(configOf(first))), blobs: [] })
          expect(await pull(podman, second)).toEqual({ id: hex(configOf(second)), blobs: [] })
          for (const tag of ['mixed', 'other'] as const) {
            const [, own] = layersOf(tag)
            expect(await pull(podman, tag)).toEqual({ id: hex(configOf(tag)), blobs: [own] })
          }
          await look(podman, TAGS)
          await store.stop()
          await store.serve(cache)
          await look(podman, TAGS)
          expect(await pull(podman, first)).toEqual({ id: hex(configOf(first)), blobs: [] })
          await look(podman, TAGS)
          await podman.succeed(['rmi', '--all', '--force'])
        })
      }

      test(`Podman ${version} is shown no index where layers are named by DiffIDs alone, whether or not the agent is told of an image`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-diffid-only`, '--diffid-only')
        const additionalImageStores = [join(store.root, 'images')]
        const trust = [store.registry]
        await using podman = await store.startEngine(flavour, 'images')
        expect(await pull(podman, 'victim')).toEqual({ id: hex(configOf('victim')), blobs: [] })
        expect(await pull(podman, 'twin')).toEqual({ id: hex(configOf('twin')), blobs: [] })
        await look(podman, ['victim', 'twin'])
        await using untold = await Podman.start({ flavour, work: store.work.path, trust, additionalImageStores })
        expect(await pull(untold, 'other')).toEqual({ id: hex(configOf('other')), blobs: [layersOf('other')[1]] })
        await look(untold, ['other'])
      })

      test(`Podman ${version} pulls images that differ in what it pulls itself`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-mixed`)
        await using podman = await store.startEngine(flavour, 'images')
        const [, own] = layersOf('mixed')
        expect(await pull(podman, 'mixed')).toMatchObject({ blobs: [own] })
        expect(await pull(podman, 'other')).toEqual({ id: hex(configOf('other')), blobs: [layersOf('other')[1]] })
        await look(podman, ['mixed', 'other'])
      })
    })
  }
})
