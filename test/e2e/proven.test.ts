// DiffIDs that were proven: layers that were read whole bear them, in both stores, for every engine; those whose index lies bear nothing.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Digest, hex } from '../../src/image/digest.ts'
import { lazylayer } from './agent.ts'
import { buildOn } from './build-on.ts'
import { asSchema2, claim, lie } from './claim.ts'
import { type AppStore, byEngine, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { type Flavour, Podman, podmanLacks } from './engines/podman.ts'
import type { DockerRegistry } from './engines/registry.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000

suite('Podman and proven layers', STORE_LACKS, () => {
  let store: AppStore
  let registry: DockerRegistry
  let image: string
  let docker: string
  let work: string
  let root: string

  beforeAll(async () => {
    store = await makeAppStore()
    ;({ registry, image, root } = store)
    work = store.work.path
    const schema2 = join(work, 'schema2')
    await asSchema2(store.app.layout, schema2)
    await registry.pushLayout(schema2, store.app.tag, 'docker')
    docker = `${registry.host}/docker:${store.app.tag}`
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const config = () => `sha256:${store.app.id}`

  function startPodman(flavour: Flavour, additionalLayerStores: readonly string[] = []): Promise<Podman> {
    const additionalImageStores = additionalLayerStores.length > 0 ? [] : [join(root, 'images')]
    return Podman.start({ flavour, work, trust: [registry], additionalLayerStores, additionalImageStores })
  }

  /** @returns the image's ID and the blobs that the engine itself asked for */
  async function pull(podman: Podman, image: string): Promise<{ id: string; blobs: string[] }> {
    await registry.clear()
    const id = await podman.succeed(['pull', '--quiet', image])
    const requests = byEngine(await registry.log())
    return { id, blobs: requests.flatMap(({ kind, uri }) => (kind === 'blob' ? [uri.split('/').pop() as string] : [])) }
  }

  for (const [flavour, version] of [
    ['debian12', '4.3.1'],
    ['trixie', '5.4.2'],
    ['sid', '5.8'],
  ] as const) {
    suite(version, podmanLacks(flavour), () => {
      test(`Podman ${version} takes a proven image by its DiffIDs, saves it byte for byte, and runs it after a restart`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}`)
        const told = await lazylayer(work, 'pull', '--prove', image, '--root', root)
        expect(told).toMatchObject({ code: 0, stdout: `${image}: 3 of 3 layers listed (3 by DiffID)\n` })
        await using podman = await startPodman(flavour)
        expect(await pull(podman, image)).toEqual({ id: store.app.id, blobs: [config()] })
        expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
        await saved(podman, image)
        expect(await store.stop()).toBe(0)
        await store.serve(`cache-${flavour}`)
        await registry.clear()
        expect((await podman.container('run', ['--rm', image])).stdout).toBe(store.app.says)
        expect(await registry.log()).toEqual([])
      })

      test(`Podman ${version} takes a Docker schema 2 image that was fetched for it, with the ID of a normal pull`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        await store.serve(`cache-${flavour}-docker`)
        const told = await lazylayer(work, 'pull', docker, '--root', root)
        expect(told).toMatchObject({ code: 0, stdout: `${docker}: 3 of 3 layers listed (3 by DiffID)\n` })
        await using podman = await startPodman(flavour)
        expect(await pull(podman, docker)).toEqual({ id: store.app.id, blobs: [config()] })
        expect(await podman.container('run', ['--rm', docker])).toMatchObject({ code: 0, stdout: store.app.says })
        await buildOn(podman, docker, registry)
        await saved(podman, docker)
        await podman.succeed(['rmi', '--force', 'built', docker])
        expect(await pull(podman, docker)).toEqual({ id: store.app.id, blobs: [config()] })
      })

      test(`Podman ${version} runs the victim's files, whatever claimed to be the victim before`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const served = await store.serve(`cache-${flavour}-poison`)
        const layout = join(work, `poison-${flavour}`)
        await mkdir(layout)
        const file = (path: string, content: string) => ({ path, type: 'file' as const, content: Buffer.from(content) })
        const write = (tag: string, who: string) =>
          writeImage({
            dir: layout,
            tag,
            config: { Labels: { tag } },
            layers: [{ kind: 'estargz', entries: [file('who', who), file('other', 'evil\n'), file('tag', tag)] }],
          })
        const victim = await write('victim', 'good\n')
        // one claims the victim's DiffID in its config; the tar of the other is an honest one's, but its index shows another
        const claims = await write('claims', 'evil\n')
        await claim(layout, claims.manifestDigest, victim.diffIds)
        const lies = await write('lies', 'good\n')
        await lie(layout, lies.manifestDigest, (toc) => {
          const find = (name: string) => toc.entries.find((each) => each.name === name)
          const { offset, chunkDigest, innerOffset = 0 } = find('other') ?? {}
          Object.assign(find('who') ?? {}, { offset, chunkDigest, innerOffset })
        })
        const name = (tag: string) => `${registry.host}/${tag}:${tag}`
        for (const tag of ['claims', 'lies', 'victim']) await registry.pushLayout(layout, tag, tag)
        await using podman = await startPodman(flavour)
        const who = async (tag: string) => {
          const mounted = await podman.succeed(['mount', await podman.succeed(['create', name(tag), '/none'])])
          return (await podman.exec(['cat', `${mounted}/who`])).stdout
        }
        for (const [tag, why] of [
          ['claims', 'claims DiffID'],
          ['lies', 'it is quarantined'],
        ] as const) {
          const proving = await lazylayer(work, 'pull', '--prove', name(tag), '--root', root)
          expect(proving.stdout).toContain('0 of 1 layer listed')
          expect(proving.stdout).toContain(why)
        }
        expect(served.log()).toContain('is quarantined')
        // whatever the engine makes of them: 4.3.1 does not mind a false claim, later ones do
        for (const tag of ['claims', 'lies']) await podman.run(['pull', '--quiet', name(tag)])
        await lazylayer(work, 'pull', '--prove', name('victim'), '--root', root)
        await podman.succeed(['pull', '--quiet', name('victim')])
        expect(await who('victim')).toBe('good\n')
        const status = await served.status()
        expect(status.counters.quarantined).toBe(1)
      })
    })
  }

  for (const [flavour, version, door] of [
    ['debian12', '4.3.1', 'images'],
    ['trixie', '5.4.2', 'images'],
    ['sid', '5.8', 'images'],
    ['debian12', '4.3.1', 'layers'],
    ['trixie', '5.4.2', 'layers'],
  ] as const) {
    suite(`${version} and an image that is found to lie (${door})`, podmanLacks(flavour), () => {
      test(`Podman ${version} makes no container of it from then on; what is mounted stays, and everything else works`, {
        timeout: ENGINE_TIMEOUT_MS,
      }, async () => {
        const cache = `cache-${flavour}-${door}-lies`
        const served = await store.serve(cache, '--diffid', 'claimed')
        const layout = join(work, `lies-${flavour}-${door}`)
        await mkdir(layout)
        const file = (path: string, content: string) => ({ path, type: 'file' as const, content: Buffer.from(content) })
        const entries = [file('who', 'good\n'), file('other', 'evil\n'), file('flavour', `${flavour} ${door}`)]
        const { manifestDigest } = await writeImage({
          dir: layout,
          tag: 'liar',
          layers: [{ kind: 'estargz', entries }],
        })
        await lie(layout, manifestDigest, (toc) => {
          const find = (name: string) => toc.entries.find((each) => each.name === name)
          const { offset, chunkDigest, innerOffset = 0 } = find('other') ?? {}
          Object.assign(find('who') ?? {}, { offset, chunkDigest, innerOffset })
        })
        await registry.pushLayout(layout, 'liar', `liar-${flavour}-${door}`)
        const liar = `${registry.host}/liar-${flavour}-${door}:liar`
        for (const each of [liar, image]) await lazylayer(work, 'pull', each, '--root', root)
        await using podman = await startPodman(flavour, door === 'layers' ? [`${join(root, 'layers')}:ref`] : [])
        for (const each of [liar, image]) await podman.succeed(['pull', '--quiet', each])
        const mount = async () => podman.succeed(['mount', await podman.succeed(['create', liar, '/none'])])
        const mounted = await mount()
        const who = async () => (await podman.exec(['cat', `${mounted}/who`])).stdout
        expect(await who()).toBe('evil\n')

        expect((await lazylayer(work, 'pull', '--prove', liar, '--root', root)).code).toBe(1)
        await expect.poll(() => served.log()).toContain('is quarantined')
        const expectTheRest = async () => {
          await expect(mount()).rejects.toThrow(/directory|invalid argument/)
          const names = await podman.succeed(['images', '--format', '{{.Repository}}:{{.Tag}}'])
          expect(names.split('\n').sort()).toEqual([liar, image].sort())
          await podman.succeed(['ps', '--all'])
          expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: store.app.says })
        }
        expect(await who()).toBe('evil\n')
        await expectTheRest()
        expect(await who()).toBe('evil\n')
        await podman.succeed(['rm', '--all', '--force'])
        await store.stop()
        await store.serve(cache, '--diffid', 'claimed')
        await expectTheRest()
        await podman.succeed(['rmi', '--force', liar])
        if (door === 'images') return
        // the engine pulls it as if there were no store, and shows what its tar has
        await podman.succeed(['pull', '--quiet', liar])
        const pulled = await mount()
        expect((await podman.exec(['cat', `${pulled}/who`])).stdout).toBe('good\n')
      })
    })
  }

  suite('the layer store', podmanLacks('debian12'), () => {
    test('Podman 4.3.1 finds proven layers in it by their DiffIDs, whatever they are stored as', {
      timeout: ENGINE_TIMEOUT_MS,
    }, async () => {
      await store.serve('cache-layers')
      await lazylayer(work, 'pull', '--prove', image, '--root', root)
      await lazylayer(work, 'pull', docker, '--root', root)
      await using podman = await startPodman('debian12', [`${join(root, 'layers')}:ref`])
      for (const each of [docker, image]) {
        expect(await pull(podman, each)).toEqual({ id: store.app.id, blobs: [config()] })
        expect(await podman.container('run', ['--rm', each])).toMatchObject({ code: 0, stdout: store.app.says })
        await saved(podman, each)
        await podman.succeed(['rmi', each])
      }
    })
  })

  suite('an image that was pulled by TOC identity', podmanLacks('trixie'), () => {
    test('can be saved: what is missing of it is fetched then; once proven and pulled again it bears its DiffIDs', {
      timeout: ENGINE_TIMEOUT_MS,
    }, async () => {
      await store.serve('cache-toc')
      await lazylayer(work, 'pull', image, '--root', root)
      await using podman = await startPodman('trixie')
      const { id, blobs } = await pull(podman, image)
      expect(blobs).toEqual([config()])
      expect(id).not.toBe(store.app.id)
      await saved(podman, image)
      await lazylayer(work, 'pull', '--prove', image, '--root', root)
      expect((await pull(podman, image)).id).toBe(store.app.id)
      await buildOn(podman, image, registry)
    })
  })

  /** Saves an image; each layer in the archive is the tar that its DiffID names. */
  async function saved(podman: Podman, image: string): Promise<void> {
    const folder = join(podman.path, 'tmp', 'saved')
    await podman.succeed(['save', '--format', 'docker-dir', '--output', folder, image])
    const { layers } = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8'))
    const digests = await Promise.all(layers.map(({ digest }: { digest: Digest }) => hashOf(join(folder, hex(digest)))))
    expect(digests).toEqual(layers.map(({ digest }: { digest: Digest }) => digest))
    expect((await readdir(folder)).length).toBeGreaterThanOrEqual(layers.length + 2)
    await podman.exec(['rm', '-rf', folder])
  }
})

async function hashOf(path: string): Promise<Digest> {
  const hash = createHash('sha256')
  for await (const piece of createReadStream(path)) hash.update(piece)
  return `sha256:${hash.digest('hex')}`
}
