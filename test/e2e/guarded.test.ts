// Two images that claim one DiffID, one of them falsely, in an engine that knows layers by DiffID alone: whose files it runs, in whichever
// order they come, by what the agent believes.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { lazylayer } from './agent.ts'
import { claim } from './claim.ts'
import { type Door, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'

const TIMEOUT_MS = 300_000
const GOOD = 'good\n'
const EVIL = 'evil\n'
/** The agent's log says that of a liar. */
const FALSE = 'are found not to have the DiffID'
const ORDERS = [
  ['hostile', 'victim'],
  ['victim', 'hostile'],
] as const
const DOORS: readonly Door[] = ['images', 'layers']

suite('images that are only believed', STORE_LACKS ?? podmanLacks('debian12'), () => {
  let store: EngineStore

  beforeAll(async () => {
    store = await makeStore(writePairs)
  })
  afterEach(() => store.stop())
  afterAll(() => store?.close())

  const startPodman = (door: Door) =>
    Podman.start({
      flavour: 'debian12',
      work: store.work.path,
      trust: [store.registry],
      additionalLayerStores: door === 'layers' ? [`${join(store.root, 'layers')}:ref`] : [],
      additionalImageStores: door === 'images' ? [join(store.root, 'images')] : [],
    })
  const named = (tag: string) => `${store.registry.host}/${tag}:${tag}`

  /** The agent is told of an image, as by the auth helper, which Podman 4.3 does not run; then it is pulled. */
  async function pull(podman: Podman, tag: string): Promise<void> {
    await lazylayer(store.work.path, 'pull', named(tag), '--root', store.root)
    await podman.run(['pull', '--quiet', named(tag)])
  }

  /** What a program in a container of the image reads; undefined: there can be none. */
  async function who(podman: Podman, tag: string): Promise<string | undefined> {
    const created = await podman.run(['create', named(tag), '/none'])
    const mounted = await podman.run(['mount', created.stdout.trim()])
    if (created.code !== 0 || mounted.code !== 0) return undefined
    return (await podman.exec(['cat', `${mounted.stdout.trim()}/who`])).stdout
  }

  for (const policy of ['guarded', 'proven'] as const) {
    test(`--diffid ${policy}: a victim has its own files, whoever came first`, { timeout: TIMEOUT_MS }, async () => {
      const agent = await store.serve(`cache-${policy}`, '--diffid', policy)
      for (const door of DOORS) {
        await using podman = await startPodman(door)
        // where nothing is believed, whoever comes first is shown to nobody under a DiffID
        for (const order of policy === 'proven' ? ORDERS.slice(0, 1) : ORDERS) {
          const of = pair(policy, door, order[0])
          for (const which of order) await pull(podman, `${which}-${of}`)
          expect([of, await who(podman, `victim-${of}`)]).toEqual([of, GOOD])
        }
      }
      if (policy === 'guarded') expect(agent.log()).toContain(FALSE) // at once, because a victim came
    })
  }

  test('--diffid claimed: whoever came first is believed until the link is idle; then a liar has no files at either door', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const agent = await store.serve('cache-claimed', '--diffid', 'claimed')
    await using engines = new AsyncDisposableStack()
    const started = new Map<Door, Podman>()
    for (const door of DOORS) {
      const podman = engines.use(await startPodman(door))
      started.set(door, podman)
      const [lies, honest] = [pair('claimed', door, 'hostile'), pair('claimed', door, 'victim')]
      for (const tag of [`victim-${honest}`, `hostile-${honest}`, `hostile-${lies}`]) await pull(podman, tag)
      expect(await who(podman, `victim-${honest}`)).toBe(GOOD)
    }
    // those that came first, and the one that the layer store has shown to whoever asks by its name
    const found = () => agent.log().split(FALSE).length - 1
    await expect.poll(found, { timeout: 60_000 }).toBe(3)
    const expectCutOff = async (door: Door, podman: Podman) => {
      expect(await who(podman, `hostile-${pair('claimed', door, 'hostile')}`)).not.toBe(EVIL)
      // nobody else lost anything
      expect(await who(podman, `victim-${pair('claimed', door, 'victim')}`)).toBe(GOOD)
      await podman.succeed(['images'])
    }
    for (const each of started) await expectCutOff(...each)
    await store.stop()
    await store.serve('cache-claimed', '--diffid', 'claimed')
    for (const each of started) await expectCutOff(...each)
  })
})

const pair = (policy: string, door: Door, first: string) => `${policy}-${door}-${first}`

/** For each case a victim, and a hostile image that claims its DiffID for other files. */
async function writePairs(dir: string): Promise<{ layout: string; tags: string[] }> {
  const layout = join(dir, 'pairs')
  await mkdir(layout)
  const tags: string[] = []
  const write = async (tag: string, who: string) => {
    tags.push(tag)
    const entries = Object.entries({ who, tag }).map(([path, text]) => ({
      path,
      type: 'file' as const,
      content: Buffer.from(text),
    }))
    return await writeImage({ dir: layout, tag, config: { Labels: { tag } }, layers: [{ kind: 'estargz', entries }] })
  }
  for (const policy of ['guarded', 'proven', 'claimed']) {
    for (const door of DOORS) {
      for (const [first] of ORDERS) {
        const of = pair(policy, door, first)
        const victim = await write(`victim-${of}`, GOOD)
        const hostile = await write(`hostile-${of}`, EVIL)
        await claim(layout, hostile.manifestDigest, victim.diffIds)
      }
    }
  }
  return { layout, tags }
}
