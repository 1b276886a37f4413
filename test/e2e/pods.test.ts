// A node that starts twenty pods at once: of one image, and of twenty that share no layer.
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { programEntries } from '../fixtures/programs.ts'
import { type Agent, lazylayer } from './agent.ts'
import { byEngine, type EngineStore, makeStore } from './engine-store.ts'
import { lacking } from './engines/needs.ts'
import { type Flavour, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const PODS = 20
const TIMEOUT_MS = 600_000

const nodes: { flavour: Flavour; version: string; diffId: 'proven' | 'claimed' }[] = [
  { flavour: 'debian12', version: '4.3.1', diffId: 'claimed' },
  { flavour: 'trixie', version: '5.4.2', diffId: 'proven' },
]

suite(`${PODS} pods at once`, lacking(['fusermount3', 'ldd']), () => {
  let store: EngineStore
  const configs = new Set<string>()

  beforeAll(async () => {
    const tags = ['one', ...Array.from({ length: PODS }, (_, i) => `pod${i}`)]
    store = await makeStore(async (dir) => {
      const layout = join(dir, 'layout')
      const shell = await programEntries('/bin/sh')
      for (const tag of tags) {
        const own = { path: 'own', type: 'file' as const, content: Buffer.from(`${tag}\n`) }
        const { config } = await writeImage({
          dir: layout,
          tag,
          layers: [
            { kind: 'estargz', entries: [...shell, own] },
            { kind: 'estargz', entries: [{ ...own, path: 'name' }] },
          ],
          config: { Cmd: ['/bin/sh', '-c', 'read -r name </name; echo "$name"'] },
        })
        configs.add(config.digest)
      }
      return { layout, tags }
    })
    await store.installHelper()
  }, TIMEOUT_MS)
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  for (const { flavour, version, diffId } of nodes) {
    suite(`Podman ${version}`, podmanLacks(flavour), () => {
      for (const [title, tags] of [
        ['one image', Array.from({ length: PODS }, () => 'one')],
        [`${PODS} images`, Array.from({ length: PODS }, (_, i) => `pod${i}`)],
      ] as const) {
        test(`Podman ${version}, ${title}: all run, and no layer is pulled`, {
          timeout: TIMEOUT_MS,
        }, async () => {
          const agent = await store.serve(`cache-${flavour}-${new Set(tags).size}`, '--diffid', diffId)
          await runAll(flavour, tags, agent)
        })
      }
    })
  }

  async function runAll(flavour: Flavour, tags: readonly string[], agent: Agent): Promise<void> {
    const { work, registry, root } = store
    await using podman = await store.startEngine(flavour, 'images')
    const references = tags.map((tag) => `${registry.host}/${tag}:${tag}`)
    if (flavour === 'debian12') {
      // it knows no helper
      const pulls = [...new Set(references)].map((each) => lazylayer(work.path, 'pull', each, '--root', root))
      for (const { code, stdout, stderr } of await Promise.all(pulls)) {
        expect({ code, stdout, stderr }).toMatchObject({
          code: 0,
          stdout: expect.stringContaining('2 of 2 layers listed'),
        })
      }
    }
    await registry.clear()
    const run = (reference: string) => podman.container('run', ['--rm', '--quiet', reference], TIMEOUT_MS)
    const outcomes = await Promise.all(references.map(run))
    expect(outcomes.map(({ code, stdout, stderr }) => ({ code, stdout, stderr }))).toEqual(
      tags.map((tag) => ({ code: 0, stdout: `${tag}\n`, stderr: '' })),
    )
    const blobs = byEngine(await registry.log()).flatMap(({ kind, uri }) => (kind === 'blob' ? [uri] : []))
    expect(blobs.filter((uri) => !configs.has(uri.split('/').pop() ?? ''))).toEqual([])
    expect((await agent.status()).counters).toMatchObject({ expired: 0, reads_failed: 0, chunks_corrupt: 0 })
  }
})
