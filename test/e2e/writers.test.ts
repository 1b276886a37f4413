// Images as other tools write them: eStargz whose tar ends before its index, one tar in several compressions, what Go leaves out.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Digest, digestOf, hex } from '../../src/image/digest.ts'
import { type Item, item, stargz } from '../format/estargz/stargz-craft.ts'
import { archive, member } from '../format/tar/tar-craft.ts'
import { type Agent, lazylayer } from './agent.ts'
import { type CraftedImage, type CraftedLayer, writeCrafted } from './crafted-layout.ts'
import { byEngine, type Door, type EngineStore, makeStore } from './engine-store.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000
const ZSTD_LAYER = 'application/vnd.oci.image.layer.v1.tar+zstd'

const ITEMS: Item[] = [
  item({ name: 'who', type: 'reg' }, 'good\n'),
  item({ name: 'large' }, 'large\n'.repeat(50_000)),
  item({ name: 'd/', type: 'dir', mode: 0o644 }),
]
const ENDED = stargz(ITEMS, { ended: true })
const EMPTY = stargz([], { ended: true, entries: null })
const TAR = archive(member({ name: 'who' }, 'good\n'), member({ name: 'large' }, 'large\n'.repeat(50_000)))

const lazy = ({ blob, descriptor: { annotations } }: typeof ENDED): CraftedLayer => ({
  blob,
  annotations,
  tar: gunzipSync(blob),
})

const platform = { os: 'linux', architecture: 'amd64' }

/** By tag: layers, and what is put into config and manifest. */
const IMAGES: Record<string, CraftedImage> = {
  ended: { layers: [lazy(EMPTY), lazy(ENDED)], config: platform },
  nameless: { layers: [lazy(ENDED)], config: {} },
  gzip: { layers: [{ blob: gzipSync(TAR, { level: 1 }), tar: TAR }], config: { ...platform, author: 'gzip' } },
  best: { layers: [{ blob: gzipSync(TAR, { level: 9 }), tar: TAR }], config: { ...platform, author: 'best' } },
  zstd: {
    layers: [{ blob: zstdCompressSync(TAR), mediaType: ZSTD_LAYER, tar: TAR }],
    config: { ...platform, author: 'zstd' },
  },
  none: {
    layers: [],
    config: { ...platform, rootfs: { type: 'layers', diff_ids: null }, history: null },
    manifest: { layers: null, annotations: null },
  },
}

suite('images as other tools write them', lacking([...REGISTRY_PROGRAMS, 'fusermount3']), () => {
  let store: EngineStore
  let agent: Agent

  beforeAll(async () => {
    store = await makeStore((work) => writeCrafted(work, IMAGES))
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const name = (tag: string) => `${store.registry.host}/${tag}:${tag}`
  const pull = async (tag: string, ...more: string[]) =>
    await lazylayer(store.work.path, 'pull', ...more, name(tag), '--root', store.root)

  /** Blobs that the engine itself fetched, but for the config, which it always does. */
  async function blobs(podman: Podman, tag: string): Promise<string[]> {
    await store.registry.clear()
    await podman.succeed(['pull', '--quiet', name(tag)])
    const requests = byEngine(await store.registry.log()).filter(({ kind }) => kind === 'blob')
    const layers = IMAGES[tag]?.layers.map(({ blob }) => digestOf(blob) as string) ?? []
    return requests.map(({ uri }) => uri.split('/').pop() as string).filter((digest) => layers.includes(digest))
  }

  async function contents(podman: Podman, tag: string): Promise<string> {
    const mounted = await podman.succeed(['mount', await podman.succeed(['create', name(tag), '/none'])])
    return (await podman.exec(['sh', '-c', `cd ${mounted} && ls -A && cat who && wc -c < large`])).stdout
  }

  for (const [flavour, version, door] of [
    ['debian12', '4.3.1', 'images'],
    ['debian12', '4.3.1', 'layers'],
    ['trixie', '5.4.2', 'images'],
    ['sid', '5.8', 'images'],
  ] as const satisfies (readonly ['debian12' | 'trixie' | 'sid', string, Door])[]) {
    suite(`Podman ${version}, ${door}`, podmanLacks(flavour), () => {
      test('eStargz whose tar ends before its index is proven and not pulled, and shows the files of its tar', {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        agent = await store.serve(`cache-${flavour}-${door}`)
        expect(await pull('ended', '--prove')).toMatchObject({
          code: 0,
          stdout: `${name('ended')}: 2 of 2 layers listed (2 by DiffID)\n`,
        })
        expect(await pull('nameless', '--prove')).toMatchObject({ code: 0 })
        await store.installHelper().catch(() => undefined) // one is there
        await using podman = await store.startEngine(flavour, door)
        expect(await blobs(podman, 'ended')).toEqual([])
        expect(await contents(podman, 'ended')).toBe('d\nlarge\nwho\ngood\n300000\n')
        expect(await blobs(podman, 'nameless')).toEqual([])
        expect(await contents(podman, 'nameless')).toBe('d\nlarge\nwho\ngood\n300000\n')
        expect(agent.log()).not.toContain('quarantined')
        // engines put the tar together again, with what is behind its end
        const folder = join(podman.path, 'tmp/saved')
        await podman.succeed(['save', '--format', 'docker-dir', '--output', folder, name('ended')])
        const { layers } = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
        const tars = layers.map(async ({ digest }: { digest: Digest }) => {
          const bytes = await readFile(join(folder, hex(digest)))
          return digestOf(bytes[0] === 0x1f ? gunzipSync(bytes) : bytes)
        })
        expect(await Promise.all(tars)).toEqual(IMAGES.ended?.layers.map(({ tar }) => digestOf(tar)))
      })

      test('one tar in several compressions is found by each of them', { timeout: ENGINE_TIMEOUT_MS }, async () => {
        await store.serve(`cache-${flavour}-${door}-tar`)
        for (const tag of ['gzip', 'best', 'zstd']) {
          expect(await pull(tag)).toMatchObject({
            code: 0,
            stdout: `${name(tag)}: 1 of 1 layer listed (1 by DiffID)\n`,
          })
        }
        await using podman = await store.startEngine(flavour, door)
        for (const tag of ['zstd', 'gzip', 'best']) {
          expect([tag, await blobs(podman, tag)]).toEqual([tag, []])
          expect(await contents(podman, tag)).toBe('large\nwho\ngood\n300000\n')
        }
        await podman.succeed(['rmi', '--all', '--force'])
        expect(await blobs(podman, 'best')).toEqual([])
      })

      test('an image without layers, as Go writes it, is one', { timeout: ENGINE_TIMEOUT_MS }, async () => {
        await store.serve(`cache-${flavour}-${door}-none`)
        expect(await pull('none')).toMatchObject({ code: 0, stdout: `${name('none')}: 0 of 0 layers listed\n` })
        await using podman = await store.startEngine(flavour, door)
        expect(await blobs(podman, 'none')).toEqual([])
      })
    })
  }
})
