// A real root file system, Debian's, as nydus-image writes it in both versions of RAFS: a mount shows its tar, file by file, on every rung,
// and engines start a program of it lazily. The program is nobody's package:
//
//   LAZYLAYER_NYDUS_IMAGE=/path/to/nydus-image npx vitest run --project e2e test/e2e/nydus-root.test.ts
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { hex } from '../../src/image/digest.ts'
import { RUNGS } from '../../src/mount/ladder.ts'
import { compare, type Line, listTree } from '../fixtures/listing.ts'
import { bareRafs } from '../fixtures/nydus-image.ts'
import { tarListing } from '../fixtures/tar-listing.ts'
import { startAgent } from './agent.ts'
import { byEngine, type Door, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { succeed } from './engines/command.ts'
import { lacking, TRIXIE_PROGRAMS } from './engines/needs.ts'
import { debianRoot, type Flavour, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { type MadeLayer, writeLayers } from './nydus-image.ts'

const TIMEOUT_MS = 900_000
const WRITER = process.env.LAZYLAYER_NYDUS_IMAGE
const LACKS =
  WRITER === undefined
    ? 'LAZYLAYER_NYDUS_IMAGE is not set'
    : (STORE_LACKS ?? lacking([...TRIXIE_PROGRAMS, 'python3', 'tar']))

const VERSIONS = ['v5', 'v6'] as const
/** A start reads a shell, its libraries and little more. */
const SCRIPT = 'cat /etc/debian_version; ls /usr/bin | wc -l'
const LAZY_SHARE = 1 / 10

const doors: { flavour: Flavour; version: string; door: Door }[] = [
  { flavour: 'debian12', version: '4.3.1', door: 'layers' },
  { flavour: 'trixie', version: '5.4.2', door: 'images' },
]

suite('a root file system by nydus-image', LACKS, () => {
  let store: EngineStore
  let tar: string
  let says: string
  const images = new Map<string, { layers: readonly MadeLayer[]; id: string }>()

  beforeAll(async () => {
    store = await makeStore(async (work) => {
      const root = await debianRoot('trixie')
      tar = join(work, 'root.tar')
      await succeed('tar', [
        '--xattrs',
        '--xattrs-include=*',
        '--sort=name',
        '--one-file-system',
        '-cf',
        tar,
        '-C',
        root,
        '.',
      ])
      says = await succeed('chroot', [root, 'sh', '-c', SCRIPT])
      const layout = join(work, 'layout')
      for (const tag of VERSIONS) {
        const blobs = join(work, tag, 'blobs')
        await mkdir(blobs, { recursive: true })
        const made = ['--blob-dir', blobs, '--bootstrap', join(work, tag, 'bootstrap')]
        await succeed(WRITER as string, ['create', '--type', 'tar-rafs', '--fs-version', tag.slice(1), ...made, tar], {
          timeoutMs: TIMEOUT_MS,
        })
        const layers = await bareRafs(work, tag)
        images.set(tag, { layers, id: hex(await writeLayers(layout, tag, layers)) })
      }
      return { layout, tags: VERSIONS }
    })
    await store.installHelper()
  }, TIMEOUT_MS)
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const name = (tag: string) => `${store.registry.host}/${tag}:${tag}`
  const stored = (tag: string) =>
    (images.get(tag)?.layers ?? []).reduce((sum, { descriptor }) => sum + descriptor.size, 0)

  for (const tag of VERSIONS) {
    for (const rung of RUNGS) {
      test(`${tag} is its tar, file by file (${rung})`, { timeout: TIMEOUT_MS }, async () => {
        const dir = join(store.work.path, `${tag}-${rung}`)
        await mkdir(dir)
        const cache = join(store.work.path, `cache-${tag}-${rung}`)
        const args = ['mount', name(tag), dir, '--mount', rung, '--cache', cache, '--cert-dir', store.registry.certDir]
        const agent = await startAgent(store.work.path, dir, args)
        try {
          const lines = await listTree(dir)
          expect(lines.length).toBeGreaterThan(5000)
          expect(compare(tarListing(tar) as Line[], lines)).toEqual([])
        } finally {
          await agent.stop()
        }
      })
    }

    for (const { flavour, version, door } of doors) {
      suite(`Podman ${version}`, podmanLacks(flavour), () => {
        test(`Podman ${version} starts ${tag} at once: no layer is pulled, and little of it is read (${door})`, {
          timeout: TIMEOUT_MS,
        }, async () => {
          await store.serve(`cache-${tag}-${flavour}`, '--diffid', 'guarded')
          await using podman = await store.startEngine(flavour, door)
          await store.registry.clear()
          expect(await podman.succeed(['pull', '--quiet', name(tag)])).toBe(images.get(tag)?.id)
          const run = await podman.container('run', ['--rm', name(tag), 'sh', '-c', SCRIPT])
          expect(run).toMatchObject({ code: 0, stdout: says })
          const blobs = (await store.registry.log()).filter(({ kind, method }) => kind === 'blob' && method === 'GET')
          expect(byEngine(blobs)).toHaveLength(1) // its config
          const bytes = blobs.reduce((sum, each) => sum + each.bytes, 0)
          console.log(`${tag}, Podman ${version}: ${blobs.length} GETs, ${bytes} of ${stored(tag)} bytes`)
          expect(bytes).toBeLessThan(stored(tag) * LAZY_SHARE)
        })
      })
    }
  }
})
