// Buildah and Skopeo by themselves, on a base image whose bytes are still in the registry.
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { lazylayer } from './agent.ts'
import { configUri } from './app-image.ts'
import { type AppStore, byEngine, type Door, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { lacking, REGISTRY_PROGRAMS } from './engines/needs.ts'
import { type Flavour, podmanLacks } from './engines/podman.ts'
import { tally } from './engines/registry.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000
/** A lazy start of the image, with the indexes of its layers. */
const LAZY_MAX_BYTES = 3_000_000
/** Of the engine's own storage, where it has no copy of a base layer. */
const NO_COPY_MAX_BYTES = 1_000_000

/** 1.9 does not look into /etc by itself. */
const SKOPEO = ['env', 'CONTAINERS_STORAGE_CONF=/etc/containers/storage.conf', 'skopeo']

interface Way {
  flavour: Flavour
  version: string
  door: Door
  /** What layers are called; a layer with a DiffID is not read when an image is built on it. */
  identity: 'DiffID' | 'index'
}

const WAYS: Way[] = [
  { flavour: 'debian12', version: '1.28.2', door: 'layers', identity: 'DiffID' },
  { flavour: 'debian12', version: '1.28.2', door: 'images', identity: 'DiffID' },
  { flavour: 'trixie', version: '1.39.3', door: 'layers', identity: 'index' },
  { flavour: 'trixie', version: '1.39.3', door: 'images', identity: 'index' },
  { flavour: 'trixie', version: '1.39.3', door: 'images', identity: 'DiffID' },
]

suite('Buildah and Skopeo', STORE_LACKS ?? lacking(REGISTRY_PROGRAMS), () => {
  let store: AppStore

  beforeAll(async () => {
    store = await makeAppStore()
    await store.installHelper()
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  for (const { flavour, version, door, identity } of WAYS) {
    const title = `Buildah ${version}, ${door}, by ${identity}:`
    suite(`${title} from, run, commit`, podmanLacks(flavour) ?? lacks(flavour), () => {
      test(`${title} from and run pull no layer${identity === 'DiffID' ? ', and commit reads none' : ''}; Skopeo inspects`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const { root, image, registry, work, app } = store
        const flags = identity === 'DiffID' ? ['--diffid', 'claimed'] : []
        await store.serve(`cache-${flavour}-${door}-${identity}`, ...flags)
        await using engine = await store.startEngine(flavour, door)
        const run = async (...argv: string[]) => {
          const { code, stdout, stderr } = await engine.exec(argv)
          expect([argv.join(' '), code, code === 0 ? '' : stderr]).toEqual([argv.join(' '), 0, ''])
          return stdout.trimEnd()
        }
        expect(await run('buildah', '--version')).toContain(`version ${version} `)
        await registry.clear()
        if (flavour === 'debian12' && door === 'images') {
          expect(await lazylayer(work.path, 'pull', image, '--root', root)).toMatchObject({ code: 0 })
        }
        const container = await run('buildah', 'from', '--quiet', image)
        const inContainer = (text: string) =>
          run('buildah', 'run', '--isolation', 'chroot', container, '--', 'sh', '-c', text)
        expect(await inContainer(`echo built >/said; ${app.line}`)).toBe(app.says.trimEnd())
        const lazily = await registry.log()
        expect(blobs(lazily)).toEqual([configUri(app)])
        expect(tally(lazily).all.bytes).toBeLessThan(LAZY_MAX_BYTES)

        const remote = await run('skopeo', 'inspect', '--no-tags', `docker://${image}`)
        const local = await run(...SKOPEO, 'inspect', `containers-storage:${image}`)
        expect(JSON.parse(local).Layers).toEqual(JSON.parse(remote).Layers)
        expect(new Set(blobs(await registry.log()))).toEqual(new Set([configUri(app)]))

        if (identity === 'index') return
        expect(await run('buildah', 'images', '--no-trunc', '--quiet', image)).toBe(`sha256:${app.id}`)
        await registry.clear()
        await run('buildah', 'commit', '--quiet', container, 'localhost/built')
        expect(await registry.log()).toEqual([])
        expect(
          Number.parseInt(await run('du', '--summarize', '--block-size=1', join(engine.path, 'graph')), 10),
        ).toBeLessThan(NO_COPY_MAX_BYTES)
        const built = await run('buildah', 'from', '--quiet', 'localhost/built')
        expect(await run('buildah', 'run', '--isolation', 'chroot', built, '--', 'cat', '/said')).toBe('built')

        // what is pushed has the base's layers, to the byte
        const pushed = `docker://${registry.host}/app:built-${flavour}-${door}`
        await run('buildah', 'push', '--quiet', 'localhost/built', pushed)
        const diffIds = async (of: string) => JSON.parse(await run('skopeo', 'inspect', '--config', of)).rootfs.diff_ids
        expect((await diffIds(pushed)).slice(0, app.diffIds.length)).toEqual(app.diffIds)
      })
    })
  }
})

/** The host's own; the other roots have them. */
function lacks(flavour: Flavour): string | undefined {
  return flavour === 'debian12' ? lacking(['buildah', 'skopeo']) : undefined
}

/** Blobs that the engine itself fetched. */
function blobs(requests: Parameters<typeof byEngine>[0]): string[] {
  return byEngine(requests).flatMap(({ method, kind, uri }) => (method === 'GET' && kind === 'blob' ? [uri] : []))
}
