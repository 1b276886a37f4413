// The main job: Podman starts an eStargz image whose bytes are still in the registry.
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { successorOf } from './agent.ts'
import { type AppImage, configUri, partsOf, writeApp } from './app-image.ts'
import { type AppStore, makeAppStore, ofImage, STORE_LACKS, withoutProofs } from './engine-store.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import { tally } from './engines/registry.ts'
import { suite } from './engines/suite.ts'
import { findPy, PY_LACKS } from './py-image.ts'

const ENGINE_TIMEOUT_MS = 600_000
const LONG = { timeout: ENGINE_TIMEOUT_MS, interval: 50 }

interface Started {
  name: string
  lacks: string | undefined
  write(layout: string): Promise<AppImage>
  /** What its lazy start may cost at the registry, the engine's own requests included. */
  lazyMax: { bytes: number; requests: number }
}

const STARTED: Started[] = [
  { name: 'our own', lacks: STORE_LACKS, write: writeApp, lazyMax: { bytes: 3_000_000, requests: 25 } },
  { name: 'py-esgz', lacks: PY_LACKS, write: findPy, lazyMax: { bytes: 13_000_000, requests: 18 } },
]
const DIALECTS: { flavour: Flavour; version: string; flags: string[] }[] = [
  { flavour: 'trixie', version: '5.4.2', flags: [] },
  { flavour: 'debian12', version: '4.3.1', flags: ['--diffid', 'claimed'] },
]

/** A store with an image, and one agent at a time. */
function scene(write: Started['write']) {
  let store: AppStore
  beforeAll(async () => {
    store = await makeAppStore(write)
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())
  return {
    store: () => store,
    startPodman(flavour: Flavour): Promise<Podman> {
      const { root, work, registry } = store
      const additionalLayerStores = [`${join(root, 'layers')}:ref`]
      return Podman.start({ flavour, work: work.path, trust: [registry], additionalLayerStores })
    },
  }
}

for (const { name, lacks, write, lazyMax } of STARTED) {
  suite(`Podman starts ${name} over the additional layer store`, lacks, () => {
    const { store: set, startPodman } = scene(write)
    for (const { flavour, version, flags } of DIALECTS) {
      const title = (text: string) => `Podman ${version} ${text}`
      suite(title('and its version'), podmanLacks(flavour), () => {
        test(title('runs it lazily, again after rmi, and after a restart without fetching'), {
          timeout: ENGINE_TIMEOUT_MS,
        }, async () => {
          const store = set()
          const { registry, image, root, app } = store
          await store.serve(`cache-${flavour}`, ...flags)
          await using podman = await startPodman(flavour)
          await registry.clear()
          await podman.succeed(['pull', '--quiet', image])
          const ran = await podman.container('run', ['--rm', image])
          expect(ran).toMatchObject({ code: 0, stdout: app.says })
          const first = tally(withoutProofs(await registry.log())).all
          process.stderr.write(`${name}, ${version}: ${first.requests} requests, ${first.bytes} of ${app.size} bytes\n`)
          expect(first.bytes).toBeLessThanOrEqual(lazyMax.bytes)
          expect(first.requests).toBeLessThanOrEqual(lazyMax.requests)
          // the engine took every layer from the store
          expect(await additionalLayers(podman)).toBe(app.layers.length)
          // and the kernel serves them itself, also after the engine's rmdir, which makes it forget mounts below
          expect(await erofsBelow(root, app.layers.length)).toBe(app.layers.length)
          const [listed] = JSON.parse(await podman.succeed(['images', '--format', 'json'])) as { Size: number }[]
          expect(listed?.Size).toBeGreaterThan(app.size)

          await podman.succeed(['rmi', image])
          await registry.clear()
          await podman.succeed(['pull', '--quiet', image])
          expect(await additionalLayers(podman)).toBe(app.layers.length)
          expect((await podman.container('run', ['--rm', image])).stdout).toBe(app.says)
          const blobs = withoutProofs(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
          expect(blobs).toEqual([configUri(app)])

          // the agent is stopped: Podman itself still works
          expect(await store.stop()).toBe(0)
          await podman.succeed(['images'])
          expect(await podman.container('run', ['--rm', image])).not.toMatchObject({ code: 0 })
          await podman.succeed(['ps', '--all'])

          await registry.clear()
          await store.serve(`cache-${flavour}`, ...flags)
          expect((await podman.container('run', ['--rm', image])).stdout).toBe(app.says)
          expect(ofImage(await registry.log())).toEqual([])
        })
      })
    }
  })
}

suite('Podman over the additional layer store', STORE_LACKS, () => {
  const { store, startPodman } = scene(writeApp)

  suite('a layer that is no eStargz', podmanLacks('trixie'), () => {
    test('is pulled normally, and the reason is logged once', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const { registry, work } = store()
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
      const served = await store().serve('cache-mixed')
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

  suite('a container that runs while its agent is killed', podmanLacks('trixie'), () => {
    test('three times, reads on where it was', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const { image } = store()
      const agent = await store().serve('cache-killed', '--keeper-patience', '120')
      await using podman = await startPodman('trixie')
      await podman.succeed(['pull', '--quiet', image])
      const turns = join(podman.path, 'turns')
      await mkdir(turns)
      const script =
        'for n in 1 2 3; do until [ -e /tmp/$n ]; do sleep 0.1; done; cat /app/part$n* || echo failed; done; /app/hello'
      const running = podman.container('run', ['--rm', '--volume', `${turns}:/tmp`, image, 'sh', '-c', script])
      await expect.poll(async () => (await podman.succeed(['ps', '--quiet'])) !== '', LONG).toBe(true)
      let { pid } = agent
      for (const turn of ['1', '2', '3']) {
        process.kill(pid, 'SIGKILL')
        await writeFile(join(turns, turn), '')
        pid = await successorOf(agent, pid, ENGINE_TIMEOUT_MS)
      }
      const read = ['1', '2', '3'].map(partsOf)
      expect(await running).toMatchObject({ code: 0, stdout: `${read.join('')}hello from the top\n` })
      // and others start, by the last agent
      expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: 'hello from the top\n' })
    })
  })

  suite('the blob beside a lazy layer', podmanLacks('trixie'), () => {
    test('is the exact compressed layer', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const { image, root, app } = store()
      await store().serve('cache-blob')
      await using podman = await startPodman('trixie')
      await podman.succeed(['pull', '--quiet', image])
      const layers = join(root, 'layers', Buffer.from(image).toString('base64'))
      const top = app.layers.at(-1) as AppImage['layers'][number]
      const { stdout } = await podman.exec(['sha256sum', join(layers, top.toc, 'blob')])
      expect(`sha256:${stdout.split(' ')[0]}`).toBe(top.digest)
    })
  })
})

/** EROFS mounts below `dir`, once there are as many as layers, or after a while. */
async function erofsBelow(dir: string, layers: number): Promise<number> {
  let found = 0
  for (let i = 0; i < 100; i++) {
    await sleep(100)
    const table = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
    found = table.filter((line) => line.includes(` ${dir}/`) && line.includes(' - erofs ')).length
    // long enough for what is detached to have been detached
    if (found === layers && i >= 5) break
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
