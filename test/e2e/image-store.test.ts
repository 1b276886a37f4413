// The second door: engines find layers listed in an additional image store, by TOC identity, or by DiffID where claims are believed.
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type WrittenImage, writeImage } from '../../src/build/layout-writer.ts'
import type { SourceEntry } from '../../src/build/source-entry.ts'
import { lazylayer, startAgent } from './agent.ts'
import { configUri, referenceOf } from './app-image.ts'
import { buildOn } from './build-on.ts'
import { claim } from './claim.ts'
import { type AppStore, byEngine, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import type { DockerRegistry } from './engines/registry.ts'
import { startEngineRegistry } from './engines/small-registry.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow, type WorkDirectory } from './engines/work-directory.ts'

const ENGINE_TIMEOUT_MS = 600_000

suite('Podman over the additional image store', STORE_LACKS, () => {
  let store: AppStore
  let work: WorkDirectory
  let registry: DockerRegistry
  let image: string
  let root: string
  let helper: string

  beforeAll(async () => {
    store = await makeAppStore()
    ;({ work, registry, image, root } = store)
    helper = await store.installHelper()
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  function startPodman(
    flavour: Flavour,
    trust = [registry],
    additionalLayerStores: readonly string[] = [],
  ): Promise<Podman> {
    return Podman.start({
      flavour,
      work: work.path,
      trust,
      additionalLayerStores,
      additionalImageStores: [join(root, 'images')],
      registriesConf: `additional-layer-store-auth-helper = "${helper}"\n`,
    })
  }

  /** As containers whose users are mapped need it: they reach what they are made of by these users' rights. */
  async function openToAll(podman: Podman): Promise<void> {
    for (const each of ['', 'tmp', 'graph', 'run']) await chmod(join(podman.path, each), 0o755)
  }

  /** Pulls it; @returns the engine's own requests for blobs */
  async function pull(podman: Podman): Promise<{ id: string; blobs: string[] }> {
    await registry.clear()
    const id = await podman.succeed(['pull', '--quiet', image])
    return { id, blobs: byEngine(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : [])) }
  }

  for (const [flavour, version] of [
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} by TOC identity`, podmanLacks(flavour), () => {
      test(`Podman ${version} pulls no layer, again after rmi, and runs it after a restart without a request`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        const first = await pull(podman)
        expect(first.blobs).toEqual([configUri(store.app)])
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
        // its own, read-only, and a layer's each
        expect((await mountsBelow(join(root, 'images'))).length).toBe(1 + store.app.layers.length)
        const [listed] = JSON.parse(await podman.succeed(['images', '--no-trunc', '--format', 'json'])) as {
          Id: string
          Size: number
        }[]
        expect(listed?.Id).toBe(first.id)
        expect(listed?.Size).toBeGreaterThan(store.app.size)

        await podman.succeed(['rmi', image])
        expect(await pull(podman)).toEqual(first)
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
        const container = (await podman.container('create', [image])).stdout.trim()

        expect(await store.stop()).toBe(0)
        await registry.clear()
        await store.serve(`cache-${flavour}`)
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
        // what was made before has the same layers
        expect((await podman.run(['start', '--attach', container])).stdout).toBe(store.app.says)
        await podman.succeed(['rm', container])
        expect(await registry.log()).toEqual([])
      })

      test(`Podman ${version} works when the agent is stopped, and pulls what it needs`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        await pull(podman)
        await store.stop()
        for (const command of [['images'], ['ps', '--all'], ['info']]) await podman.succeed(command)
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
      })

      test(`Podman ${version} maps users`, { timeout: ENGINE_TIMEOUT_MS }, async () => {
        await store.serve(`cache-${flavour}`)
        await using podman = await startPodman(flavour)
        await openToAll(podman)
        await pull(podman)
        const mapped = ['--rm', '--uidmap', '0:100000:65536']
        expect(await podman.container('run', [...mapped, image])).toMatchObject({ code: 0, stdout: store.app.says })
        const stat = await podman.container('run', [
          ...mapped,
          '--entrypoint',
          'stat',
          image,
          '-c',
          '%u:%g',
          '/etc/shadow',
        ])
        expect(stat.stdout).toBe('0:42\n')
      })
    })
  }

  for (const [flavour, version] of [
    ['debian12', '4.3.1'],
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} by DiffID`, podmanLacks(flavour), () => {
      test(`Podman ${version} finds what lazylayer pull listed, by DiffIDs that are believed, and builds on it without a copy`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`claimed-${flavour}`, '--diffid', 'claimed')
        const told = await lazylayer(work.path, 'pull', image, '--root', root)
        expect(told).toMatchObject({ code: 0, stdout: `${image}: 3 of 3 layers listed (3 by DiffID)\n` })
        await using podman = await startPodman(flavour)
        expect(await pull(podman)).toEqual({ id: store.app.id, blobs: [configUri(store.app)] })
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
        await buildOn(podman, image, registry)
        await podman.succeed(['rmi', '--all', '--force'])
        expect(await pull(podman)).toEqual({ id: store.app.id, blobs: [configUri(store.app)] })

        expect(await store.stop()).toBe(0)
        await store.serve(`claimed-${flavour}`, '--diffid', 'claimed')
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
        // claims that are not believed any more are not listed again, unless they were proven meanwhile
        expect(await store.stop()).toBe(0)
        for (const each of ['proofs', 'twins/proofs']) {
          await rm(join(work.path, `claimed-${flavour}`, each), { recursive: true, force: true })
        }
        const unbelieving = await store.serve(`claimed-${flavour}`)
        expect(await podman.exec(['cat', join(root, 'images/overlay-layers/layers.json')])).toMatchObject({
          stdout: '[]\n',
        })
        expect(unbelieving.log()).toContain('this one is only claimed by the image')
      })
    })
  }

  suite('a layer that is no eStargz', podmanLacks('trixie'), () => {
    const file = (path: string) => [{ path, type: 'file' as const, content: Buffer.from(`${path}\n`) }]

    /** Between two lazy layers one that is none. */
    async function pushMixed(tag: string, plain: readonly SourceEntry[]): Promise<WrittenImage> {
      const layout = join(work.path, `layout-${tag}`)
      await mkdir(layout)
      const image = await writeImage({
        dir: layout,
        tag,
        layers: [
          { kind: 'estargz', entries: file('lowest') },
          { kind: 'gzip', entries: plain },
          { kind: 'estargz', entries: file('highest') },
        ],
      })
      await registry.pushLayout(layout, tag, tag)
      return image
    }

    test('ends what is listed, and the engine pulls the rest; unless it is fetched for it', {
      timeout: ENGINE_TIMEOUT_MS,
    }, async () => {
      const large = { path: 'large', type: 'file' as const, content: randomBytes(9 << 20) }
      const { layers } = await pushMixed('mixed', [...file('plain'), large])
      const served = await store.serve('cache-mixed')
      await using podman = await startPodman('trixie')
      const name = `${registry.host}/mixed:mixed`
      await registry.clear()
      await podman.succeed(['pull', '--quiet', name])
      const uris = byEngine(await registry.log()).map(({ uri }) => uri.split('/').pop())
      expect(uris).not.toContain(layers[0]?.digest)
      expect(uris).toEqual(expect.arrayContaining([layers[1]?.digest, layers[2]?.digest]))
      const container = await podman.succeed(['create', name, '/none'])
      const mounted = await podman.succeed(['mount', container])
      const { stdout } = await podman.exec(['sh', '-c', `cat ${mounted}/lowest ${mounted}/plain ${mounted}/highest`])
      expect(stdout).toBe('lowest\nplain\nhighest\n')
      await podman.succeed(['umount', container])
      const told = await lazylayer(work.path, 'pull', name, '--root', root)
      expect(told.stdout).toBe(`${name}: 3 of 3 layers listed (1 by DiffID, 2 by index)\n`)
      expect(served.log().match(/are left to the engine: it is not lazy/g)).toHaveLength(1)
      await podman.succeed(['rm', '--all'])
      await podman.succeed(['rmi', '--all', '--force'])
      await registry.clear()
      await podman.succeed(['pull', '--quiet', name])
      expect(byEngine(await registry.log()).filter(({ kind }) => kind === 'blob')).toHaveLength(1)
    })

    test('is fetched for the lazy layers above it while the engine waits, when it is small', {
      timeout: ENGINE_TIMEOUT_MS,
    }, async () => {
      await pushMixed('small', file('plain'))
      const served = await store.serve('cache-small')
      await using podman = await startPodman('trixie')
      const name = `${registry.host}/small:small`
      await registry.clear()
      await podman.succeed(['pull', '--quiet', name])
      expect(byEngine(await registry.log()).filter(({ kind }) => kind === 'blob')).toHaveLength(1)
      const container = await podman.succeed(['create', name, '/none'])
      const mounted = await podman.succeed(['mount', container])
      const { stdout } = await podman.exec(['sh', '-c', `cat ${mounted}/lowest ${mounted}/plain ${mounted}/highest`])
      expect(stdout).toBe('lowest\nplain\nhighest\n')
      await podman.succeed(['umount', container])
      expect(served.log()).not.toMatch(/left to the engine/)
    })
  })

  for (const [flavour, version] of [
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(`${version} and an image that claims to be another`, podmanLacks(flavour), () => {
      test(`Podman ${version} runs the victim's files after the attacker was pulled, lazily, under its DiffID`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const layout = join(work.path, `poison-${flavour}`)
        await mkdir(layout)
        const file = (content: string) => [{ path: 'who', type: 'file' as const, content: Buffer.from(content) }]
        const image = (tag: string, kind: 'estargz' | 'gzip') =>
          writeImage({ dir: layout, tag, layers: [{ kind, entries: file(`${tag}\n`) }] })
        const victim = await image('victim', 'gzip')
        const attacker = await image('attacker', 'estargz')
        await claim(layout, attacker.manifestDigest, victim.diffIds)
        for (const tag of ['attacker', 'victim']) await registry.pushLayout(layout, tag, tag)
        await store.serve(`cache-poison-${flavour}`)
        await using podman = await startPodman(flavour)
        const contents = async (tag: string) => {
          const name = `${registry.host}/${tag}:${tag}`
          await podman.succeed(['pull', '--quiet', name])
          const mounted = await podman.succeed(['mount', await podman.succeed(['create', name, '/none'])])
          return (await podman.exec(['cat', `${mounted}/who`])).stdout
        }
        expect(await contents('attacker')).toBe('attacker\n')
        const list = await podman.exec(['cat', join(root, 'images/overlay-layers/layers.json')])
        expect(JSON.parse(list.stdout)).toMatchObject([{ flags: { 'expected-layer-diffid': victim.diffIds[0] } }])
        expect(await contents('victim')).toBe('victim\n')
      })
    })
  }

  suite('a registry that wants credentials', podmanLacks('trixie'), () => {
    test('is asked by the agent with those that the engine was given', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      const closed = await startEngineRegistry({ dir: work.path, credentials: { username: 'ada', password: 'pass' } })
      onTestFinished(() => closed.stop())
      await closed.pushLayout(store.app.layout, store.app.tag, store.app.tag)
      const name = referenceOf(store.app, closed)
      const args = ['serve', root, '--cache', join(work.path, 'cache-closed'), '--cert-dir', closed.certDir]
      const agent = await startAgent(work.path, root, args)
      onTestFinished(async () => void (await agent.stop()))
      await using podman = await startPodman('trixie', [closed])
      await podman.succeed(['pull', '--quiet', '--creds', 'ada:pass', name])
      const blobs = byEngine(await closed.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
      expect(new Set(blobs)).toEqual(new Set([configUri(store.app)]))
      expect(await podman.container('run', ['--rm', name])).toMatchObject({ code: 0, stdout: store.app.says })
      expect(agent.log()).not.toContain('pass')
    })
  })

  suite('both doors', podmanLacks('trixie'), () => {
    test('may be configured at once', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await store.serve('cache-both')
      await using podman = await startPodman('trixie', [registry], [`${join(root, 'layers')}:ref`])
      const first = await pull(podman)
      expect(first.blobs).toEqual([configUri(store.app)])
      expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
      await podman.succeed(['rmi', image])
      expect(await pull(podman)).toEqual(first)
      expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
    })
  })

  suite('FUSE alone', podmanLacks('trixie'), () => {
    test('serves what is listed, too', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await store.serve('cache-fuse', '--mount', 'fuse')
      await using podman = await startPodman('trixie')
      expect((await pull(podman)).blobs).toEqual([configUri(store.app)])
      expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
      expect(await mountsBelow(join(root, 'images'))).toEqual([join(root, 'images')])
    })
  })

  suite('twenty at once', podmanLacks('trixie'), () => {
    test('all pull and run one image', { timeout: ENGINE_TIMEOUT_MS }, async () => {
      await store.serve('cache-twenty')
      await using podman = await startPodman('trixie')
      await registry.clear()
      const all = Array.from({ length: 20 }, () =>
        podman.container('run', ['--rm', '--quiet', image], ENGINE_TIMEOUT_MS),
      )
      const outcomes = await Promise.all(all)
      expect(outcomes.filter(({ code, stdout }) => code !== 0 || stdout !== store.app.says)).toEqual([])
      const blobs = new Set(byEngine(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : [])))
      expect([...blobs]).toEqual([configUri(store.app)])
    })
  })
})
