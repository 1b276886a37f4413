// The main job: Podman starts a real eStargz image whose bytes are still in the registry.
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import { type DockerRegistry, tally } from './engines/registry.ts'
import { suite } from './engines/suite.ts'
import type { WorkDirectory } from './engines/work-directory.ts'
import { type EngineStore, HELLO, makePyStore, PY_CONFIG, PY_LACKS, PY_SIZE } from './py-store.ts'

const ENGINE_TIMEOUT_MS = 600_000
/** What a lazy start of py-esgz may cost at the registry, the engine's own requests included. */
const LAZY_MAX_BYTES = 13_000_000
const LAZY_MAX_REQUESTS = 18

suite('Podman over the additional layer store', PY_LACKS, () => {
  let store: EngineStore
  let work: WorkDirectory
  let registry: DockerRegistry
  let image: string
  let root: string

  beforeAll(async () => {
    store = await makePyStore()
    ;({ work, registry, image, root } = store)
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  function startPodman(flavour: Flavour): Promise<Podman> {
    const additionalLayerStores = [`${join(root, 'layers')}:ref`]
    return Podman.start({ flavour, work: work.path, trust: [registry], additionalLayerStores })
  }

  const dialects: { flavour: Flavour; version: string; flags: string[] }[] = [
    { flavour: 'trixie', version: '5.4.2', flags: [] },
    { flavour: 'debian12', version: '4.3.1', flags: ['--diffid', 'claimed'] },
  ]
  for (const { flavour, version, flags } of dialects) {
    const title = (text: string) => `Podman ${version} ${text}`
    suite(title('and its version'), podmanLacks(flavour), () => {
      test(title('runs it lazily, again after rmi, and after a restart without fetching'), {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}`, ...flags)
        await using podman = await startPodman(flavour)
        await registry.clear()
        await podman.succeed(['pull', '--quiet', image])
        const ran = await podman.container('run', ['--rm', image])
        expect(ran).toMatchObject({ code: 0, stdout: HELLO })
        const first = tally(await registry.log()).all
        expect(first.bytes).toBeLessThanOrEqual(LAZY_MAX_BYTES)
        expect(first.requests).toBeLessThanOrEqual(LAZY_MAX_REQUESTS)
        // the engine took both layers from the store
        expect(await additionalLayers(podman)).toBe(2)
        // and the kernel serves them itself, also after the engine's rmdir, which makes it forget mounts below
        expect(await erofsBelow(root)).toBe(2)
        const [listed] = JSON.parse(await podman.succeed(['images', '--format', 'json'])) as { Size: number }[]
        expect(listed?.Size).toBeGreaterThan(PY_SIZE)

        await podman.succeed(['rmi', image])
        await registry.clear()
        await podman.succeed(['pull', '--quiet', image])
        expect(await additionalLayers(podman)).toBe(2)
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
        const blobs = (await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
        expect(blobs).toEqual([PY_CONFIG])

        // the agent is stopped: Podman itself still works
        expect(await store.stop()).toBe(0)
        await podman.succeed(['images'])
        expect(await podman.container('run', ['--rm', image])).not.toMatchObject({ code: 0 })
        await podman.succeed(['ps', '--all'])

        await registry.clear()
        await store.serve(`cache-${flavour}`, ...flags)
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(HELLO)
        expect(await registry.log()).toEqual([])
      })
    })
  }

  suite('a layer that is no eStargz', podmanLacks('trixie'), () => {
    test('is pulled normally, and the reason is logged once', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const layout = join(work.path, 'layout')
      await mkdir(layout)
      await writeImage({
        dir: layout,
        tag: 'mixed',
        layers: [
          { kind: 'estargz', entries: [{ path: 'lazy', type: 'file', content: Buffer.from('lazy\n') }] },
          { kind: 'gzip', entries: [{ path: 'plain', type: 'file', content: Buffer.from('plain\n') }] },
        ],
      })
      await registry.pushLayout(layout, 'mixed', 'mixed')
      const served = await store.serve('cache-mixed')
      await using podman = await startPodman('trixie')
      const name = `${registry.host}/mixed:mixed`
      await podman.succeed(['pull', '--quiet', name])
      await podman.succeed(['rmi', name])
      await podman.succeed(['pull', '--quiet', name])
      expect(await additionalLayers(podman)).toBe(1)
      const container = await podman.succeed(['create', name, '/none'])
      const mounted = await podman.succeed(['mount', container])
      expect((await podman.exec(['cat', `${mounted}/lazy`, `${mounted}/plain`])).stdout).toBe('lazy\nplain\n')
      await podman.succeed(['umount', container])
      expect(served.log().match(/is not lazy: the manifest has no eStargz TOC digest/g)).toHaveLength(1)
    })
  })

  suite('the blob beside a lazy layer', podmanLacks('trixie'), () => {
    test('is the exact compressed layer', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await store.serve('cache-blob')
      await using podman = await startPodman('trixie')
      await podman.succeed(['pull', '--quiet', image])
      const layers = join(root, 'layers', Buffer.from(image).toString('base64'))
      const toc = 'sha256:d31f49631281e2e31aa1591c5381e2b7fe1421178610956af3dca5ae98df5064'
      const { stdout } = await podman.exec(['sha256sum', join(layers, toc, 'blob')])
      expect(stdout.split(' ')[0]).toBe('fe9477b56d8f29aeed93201fee06526144e5e910afcfd77122d4d87e13941394')
    })
  })
})

/** EROFS mounts below `dir`, once there are as many as layers, or after a while. */
async function erofsBelow(dir: string): Promise<number> {
  let found = 0
  for (let i = 0; i < 40; i++) {
    await sleep(100)
    const table = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
    found = table.filter((line) => line.includes(` ${dir}/`) && line.includes(' - erofs ')).length
    // long enough for what is detached to have been detached
    if (found === 2 && i >= 5) break
  }
  return found
}

async function additionalLayers(podman: Podman): Promise<number> {
  const overlay = join(podman.path, 'graph/overlay')
  const found = await Promise.all(
    (await readdir(overlay, { withFileTypes: true }))
      .filter((each) => each.isDirectory())
      .map(async (each) => (await readdir(join(overlay, each.name))).includes('additionallayer')),
  )
  return found.filter(Boolean).length
}
