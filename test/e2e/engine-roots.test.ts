// What the storage roots of real engines refer to: Podman 4.3.1, where it found layers in our image store, and where it did not.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { inUse, type ListedLayer, referenced } from '../../src/stores/engine-roots.ts'
import type { References } from '../../src/stores/read-roots.ts'
import { type Agent, lazylayer, startAgent } from './agent.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import type { DockerRegistry } from './engines/registry.ts'
import { startEngineRegistry } from './engines/small-registry.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'

const TIMEOUT_MS = 300_000

interface Layer extends ListedLayer {
  'diff-digest'?: string
}

suite('storage roots of Podman 4.3.1', podmanLacks('debian12'), () => {
  let work: WorkDirectory
  let registry: DockerRegistry
  let agent: Agent
  let podman: Podman
  let root: string

  beforeAll(async () => {
    work = await makeWorkDirectory()
    registry = await startEngineRegistry({ dir: work.path })
    for (const [name, count] of [
      ['two', 2],
      ['three', 3],
      ['unused', 1],
    ] as const) {
      const layers = Array.from({ length: count }, (_, i) => ({
        kind: 'estargz' as const,
        entries: [{ path: `${name}-${i}`, type: 'file' as const, content: Buffer.from(`${name} ${i}\n`) }],
      }))
      const dir = join(work.path, `layout-${name}`)
      await writeImage({ dir, tag: 'v1', layers })
      await registry.pushLayout(dir, 'v1', name)
    }
    root = join(work.path, 'store')
    const flags = ['--cache', join(work.path, 'cache'), '--cert-dir', registry.certDir, '--diffid', 'claimed']
    agent = await startAgent(work.path, root, ['serve', root, ...flags])
    for (const name of ['two', 'three', 'unused']) {
      const pulled = await lazylayer(work.path, 'pull', `${registry.host}/${name}:v1`, '--root', root)
      expect(pulled).toMatchObject({ code: 0 })
    }
    const additionalImageStores = [join(root, 'images')]
    podman = await Podman.start({ flavour: 'debian12', work: work.path, trust: [registry], additionalImageStores })
  })

  afterAll(async () => {
    await podman?.close()
    await agent?.stop()
    await registry?.stop()
    await work?.remove()
  })

  const listed = async () =>
    JSON.parse(await readFile(join(root, 'images/overlay-layers/layers.json'), 'utf8')) as Layer[]

  async function references(): Promise<References> {
    const warnings: string[] = []
    const found = await referenced([{ dir: join(podman.path, 'graph'), run: join(podman.path, 'run') }], (message) =>
      warnings.push(message),
    )
    expect(warnings).toEqual([])
    return found as References // or there would be a warning
  }

  /** Of how many layers the images are whose layers are in use. */
  const used = async () => inUse(await listed(), await references()).size

  test('images and containers keep our layers, whatever is removed first, and nothing else does', {
    timeout: TIMEOUT_MS,
  }, async () => {
    expect(await listed()).toHaveLength(6)
    expect(await used()).toBe(0)
    await podman.succeed(['pull', '--quiet', `${registry.host}/two:v1`])
    expect(await used()).toBe(2)
    await podman.succeed(['pull', '--quiet', `${registry.host}/three:v1`])
    expect(await used()).toBe(5)
    const container = await podman.container('create', [`${registry.host}/two:v1`, '/none'])
    expect(container).toMatchObject({ code: 0 })
    // the container's links alone lead to the image's layers, too
    const { links } = await references()
    expect(inUse(await listed(), { ids: new Set(), links }).size).toBe(2)
    await podman.succeed(['rmi', `${registry.host}/three:v1`])
    expect(await used()).toBe(2)
    await podman.succeed(['rmi', '--force', `${registry.host}/two:v1`])
    expect(await used()).toBe(0)
  })

  test('an image that was built on our layers keeps them when its base goes', { timeout: TIMEOUT_MS }, async () => {
    await podman.succeed(['pull', '--quiet', `${registry.host}/three:v1`])
    const created = await podman.container('create', ['--name', 'base', `${registry.host}/three:v1`, '/none'])
    expect(created).toMatchObject({ code: 0 })
    await podman.succeed(['cp', '/etc/hostname', 'base:/hostname'])
    await podman.succeed(['commit', '--quiet', 'base', 'localhost/built'])
    await podman.succeed(['rm', 'base'])
    await podman.succeed(['untag', `${registry.host}/three:v1`])
    expect(await used()).toBe(3)
    await podman.succeed(['rmi', '--force', 'localhost/built'])
    await podman.succeed(['rmi', '--all', '--force'])
    expect(await used()).toBe(0)
  })
})
