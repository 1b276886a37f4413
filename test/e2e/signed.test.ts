// --diffid signed: layers of an image that a key of policy.json signed bear the DiffIDs that it claims, so that Podman 4.3.1, which knows
// no other names, starts it lazily at once; those of others do not.
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { simpleSignature } from '../policy/simple-signature.ts'
import { lazylayerAs, startAgent } from './agent.ts'
import { configUri } from './app-image.ts'
import { type AppStore, byEngine, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const ENGINE_TIMEOUT_MS = 600_000

suite('Podman 4.3.1 and signed images', STORE_LACKS ?? podmanLacks('debian12'), () => {
  let store: AppStore

  beforeAll(async () => {
    store = await makeAppStore()
  })
  afterAll(() => store?.close())

  test('an image that is signed is lazy at its first start, by its DiffIDs; one that is not is pulled', {
    timeout: ENGINE_TIMEOUT_MS,
  }, async () => {
    const { registry, image, root, work, app } = store
    await registry.pushLayout(app.layout, app.tag, 'unsigned')
    const home = join(work.path, 'home')
    const put = async (path: string, content: string | Uint8Array) => {
      await mkdir(dirname(join(home, path)), { recursive: true })
      await writeFile(join(home, path), content)
    }
    const { key, place, signature } = await simpleSignature(app.tag, image, app.manifest)
    await put('key', key)
    await put(`lookaside/${place}`, signature)
    await put('.config/containers/registries.d/all.yaml', `default-docker:\n  lookaside: file://${home}/lookaside\n`)
    const signedBy = { type: 'signedBy', keyType: 'GPGKeys', keyPath: join(home, 'key') }
    await put('.config/containers/policy.json', JSON.stringify({ default: [signedBy] }))

    const env = { ...process.env, RUNTIME_DIRECTORY: `${work.path}/run`, HOME: home }
    const args = [
      'serve',
      root,
      '--cache',
      join(work.path, 'cache'),
      '--cert-dir',
      registry.certDir,
      '--diffid',
      'signed',
    ]
    const agent = await startAgent(work.path, root, args, { env })
    try {
      const pull = async (name: string) => (await lazylayerAs({ env }, 'pull', name, '--root', root)).stdout
      const unsigned = `${registry.host}/unsigned:${app.tag}`
      await pull(image)
      await pull(unsigned)
      const options = { flavour: 'debian12', work: work.path, trust: [registry] } as const
      await using podman = await Podman.start({ ...options, additionalImageStores: [join(root, 'images')] })
      await registry.clear()
      expect(await podman.succeed(['pull', '--quiet', image])).toBe(app.id)
      const log = await registry.log()
      expect(byEngine(log).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))).toEqual([configUri(app)])
      expect(await podman.container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: app.says })
      const bytes = (await registry.log()).reduce((sum, request) => sum + request.bytes, 0)
      expect(bytes).toBeLessThan(app.size / 3)
      await agent.stop()
      const again = await startAgent(work.path, root, args, { env })
      await registry.clear()
      expect((await podman.container('run', ['--rm', image])).stdout).toBe(app.says)
      await again.stop()
      expect(again.log()).not.toContain('not listed again')

      const strict = await startAgent(work.path, root, args, { env })
      const doors = [`${join(root, 'layers')}:ref`]
      await using other = await Podman.start({ ...options, additionalLayerStores: doors })
      await registry.clear()
      await other.succeed(['pull', '--quiet', unsigned])
      expect(byEngine(await registry.log()).filter(({ kind }) => kind === 'blob').length).toBeGreaterThan(1)
      expect(strict.log()).toContain('it has no simple signature')
      await strict.stop()
    } finally {
      await agent.stop().catch(() => {}) // it has ended
    }
  })
})
