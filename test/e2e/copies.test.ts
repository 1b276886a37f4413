// What leaves an engine whose layers are served lazily, through either door: images that are saved, copied and pushed are exact.
import { createHash, randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type WrittenImage, writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { lazylayer } from './agent.ts'
import { byEngine, type Door, type EngineStore, makeStore } from './engine-store.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import { tally } from './engines/registry.ts'
import { suite } from './engines/suite.ts'

/** Whatever a tar can say that a tree cannot: other names of a file, times, owners, attributes, and what is deleted. */
const ODD: readonly (readonly SourceEntry[])[] = [
  [
    { path: 'dir', type: 'dir', mode: 0o1777, mtime: 1_600_000_000_123_456_789n },
    { path: 'dir/file', type: 'file', content: Buffer.from('contents\n'), uid: 1234, gid: 5678, mode: 0o4755 },
    { path: 'dir/other', type: 'hardlink', target: 'dir/file' },
    { path: 'dir/empty', type: 'file' },
    { path: 'dir/link', type: 'symlink', target: '../dir/file' },
    { path: 'dir/device', type: 'char', rdev: [1, 3] },
    { path: 'dir/pipe', type: 'fifo' },
    { path: `dir/${'long'.repeat(50)}`, type: 'file', content: Buffer.from('long\n') },
    { path: 'gone', type: 'file', content: Buffer.from('gone\n') },
    {
      path: 'capable',
      type: 'file',
      content: Buffer.alloc(70_000, 'c'),
      xattrs: new Map([['user.test', Buffer.from('value')]]),
    },
  ],
  [
    { path: '.wh.gone', type: 'file' },
    { path: 'dir', type: 'dir' },
    { path: 'dir/.wh..wh..opq', type: 'file' },
    { path: 'dir/new', type: 'file', content: Buffer.alloc(10_000_000, 'new\n') },
  ],
]

const ENGINE_TIMEOUT_MS = 600_000
/** Skopeo 1.9 does not look into /etc by itself. */
const SKOPEO = ['env', 'CONTAINERS_STORAGE_CONF=/etc/containers/storage.conf', 'skopeo']

interface Way {
  flavour: Flavour
  door: Door
  diffId: 'proven' | 'claimed'
}

const WAYS: Way[] = [
  { flavour: 'debian12', door: 'layers', diffId: 'claimed' },
  { flavour: 'trixie', door: 'layers', diffId: 'proven' },
  { flavour: 'debian12', door: 'images', diffId: 'claimed' },
  { flavour: 'trixie', door: 'images', diffId: 'claimed' },
  { flavour: 'trixie', door: 'images', diffId: 'proven' },
]

suite('images that leave an engine', lacking([...REGISTRY_PROGRAMS, 'fusermount3', 'skopeo']), () => {
  let store: EngineStore
  let written: WrittenImage

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      const layout = join(dir, 'layout')
      written = await writeImage({
        dir: layout,
        tag: 'odd',
        layers: ODD.map((entries) => ({ kind: 'estargz', entries })),
      })
      const large = Array.from({ length: 8 }, (_, i) => ({
        path: `large-${i}`,
        type: 'file' as const,
        content: randomBytes(1 << 20),
      }))
      await writeImage({ dir: layout, tag: 'large', layers: [{ kind: 'estargz', entries: large }] })
      return { layout, tags: ['odd', 'large'] }
    })
    await store.installHelper()
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  for (const door of ['layers', 'images'] as const) {
    suite(`podman save (${door})`, podmanLacks('debian12'), () => {
      test(`podman save of a cold image fetches each layer once (${door})`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const { root, registry, work } = store
        const image = `${registry.host}/large:large`
        await store.serve(`cache-cold-${door}`, '--diffid', 'claimed')
        await lazylayer(work.path, 'pull', image, '--root', root)
        await using engine = await store.startEngine('debian12', door)
        await engine.succeed(['pull', '--quiet', image])
        await registry.clear()
        await engine.succeed(['save', '--quiet', '--format', 'oci-dir', '--output', join(engine.path, 'cold'), image])
        const { bytes } = tally(await registry.log()).all
        expect(bytes).toBeGreaterThan(8 << 20)
        expect(bytes).toBeLessThan(9 << 20)
      })
    })
  }

  for (const { flavour, door, diffId } of WAYS) {
    const title = `${flavour}, ${door}, --diffid ${diffId}`
    suite(title, podmanLacks(flavour), () => {
      test(`skopeo copy, podman save and podman push have every layer to the byte (${title})`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const { root, image, registry, work } = store
        const { diffIds } = written
        await store.serve(`cache-${flavour}-${door}-${diffId}`, '--diffid', diffId)
        if (flavour === 'debian12') await lazylayer(work.path, 'pull', image, '--root', root)
        await using engine = await store.startEngine(flavour, door)
        const run = async (...argv: string[]) => {
          const { code, stderr } = await engine.exec(argv, ENGINE_TIMEOUT_MS)
          expect([argv.join(' '), code, code === 0 ? '' : stderr]).toEqual([argv.join(' '), 0, ''])
        }
        await registry.clear()
        await run('podman', 'pull', '--quiet', image)
        expect(byEngine(await registry.log()).filter(({ kind }) => kind === 'blob')).toHaveLength(1) // the config
        const to = (name: string) => join(engine.path, name)
        await run(...SKOPEO, 'copy', '--quiet', `containers-storage:${image}`, `dir:${to('dir')}`)
        expect(await layersOf(to('dir'), 'manifest.json', (digits) => digits)).toEqual(diffIds)
        await run(...SKOPEO, 'copy', '--quiet', `containers-storage:${image}`, `oci:${to('oci')}:odd`)
        expect(await layersOfLayout(to('oci'))).toEqual(diffIds)
        await run('podman', 'save', '--quiet', '--format', 'oci-dir', '--output', to('saved'), image)
        expect(await layersOfLayout(to('saved'))).toEqual(diffIds)

        const pushed = `${registry.host}/pushed:${flavour}-${door}-${diffId}`
        await run('podman', 'push', '--quiet', image, pushed)
        // an engine that knows no store checks every digest
        await using plain = await Podman.start({ flavour, work: work.path, trust: [registry] })
        await plain.succeed(['pull', '--quiet', pushed])
        expect(await plain.succeed(['image', 'inspect', '--format', '{{json .RootFS.Layers}}', pushed])).toBe(
          JSON.stringify(diffIds),
        )
      })
    })
  }
})

/** Digests of the tars of a layout's only image. */
async function layersOfLayout(layout: string): Promise<string[]> {
  const [manifest] = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')).manifests
  const blob = (digest: string) => join('blobs/sha256', digest)
  return await layersOf(layout, blob(manifest.digest.replace('sha256:', '')), blob)
}

/** Digests of the tars of the layers that a manifest names, each of which is what its name says. */
async function layersOf(dir: string, manifest: string, path: (digits: string) => string): Promise<string[]> {
  const { layers } = JSON.parse(await readFile(join(dir, manifest), 'utf8')) as { layers: { digest: string }[] }
  const digests: string[] = []
  for (const { digest } of layers) {
    const bytes = await readFile(join(dir, path(digest.replace('sha256:', ''))))
    expect(sha256(bytes)).toBe(digest)
    digests.push(bytes[0] === 0x1f && bytes[1] === 0x8b ? sha256(gunzipSync(bytes)) : digest)
  }
  return digests
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
