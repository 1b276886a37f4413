// A node with twenty pods that start at once from an empty cache, and whose agent is killed again and again under them. It takes minutes, and
// runs where LAZYLAYER_POD_KILLS says how often (npm run soak:pods).
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import { type Agent, successorOf } from './agent.ts'
import { type AppImage, named, writeApp } from './app-image.ts'
import { byEngine, type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import { directoryIn } from './engines/buildkit.ts'
import { Containerd, containerdLacks } from './engines/containerd.ts'
import type { Pod } from './engines/cri.ts'
import { suite } from './engines/suite.ts'

const KILLS = Number(process.env.LAZYLAYER_POD_KILLS ?? 0)
const LACKS = KILLS > 0 ? undefined : 'LAZYLAYER_POD_KILLS does not say how often'
const FLAVOUR = (['built', 'sid', 'trixie'] as const).find((each) => containerdLacks(each) === undefined) ?? 'trixie'
const PODS = 20
const TIMEOUT_MS = 3_600_000

suite(`${PODS} pods of containerd`, STORE_LACKS ?? LACKS ?? containerdLacks(FLAVOUR), () => {
  let store: EngineStore
  let app: AppImage
  let containerd: Containerd
  let agent: Agent
  let pods: Pod[] = []

  beforeAll(async () => {
    store = await makeStore(async (dir) => {
      app = await writeApp(join(dir, 'app'))
      const config = { Entrypoint: ['/bin/sleep', '1000000'] }
      const entries = await named(['sleep'])
      await writeImage({ dir: app.layout, tag: 'pause', config, layers: [{ kind: 'estargz', entries }] })
      return { layout: app.layout, tags: [app.tag, 'pause'] }
    })
    const { registry, work } = store
    const path = await directoryIn(work.path, 'c')
    const socket = join(path, 's.sock')
    const address = ['--containerd-address', Containerd.addressIn(path)]
    agent = await store.serve('cache', '--containerd', socket, ...address, '--keeper-patience', '120')
    containerd = await Containerd.prepare(path, { flavour: FLAVOUR, work: work.path, socket, trust: [registry] })
    await containerd.start()
  }, TIMEOUT_MS)
  afterAll(async () => {
    await containerd?.close()
    await store?.close()
  }, TIMEOUT_MS)

  test('all start at the first try, and no layer is fetched by containerd', { timeout: TIMEOUT_MS }, async () => {
    await store.registry.clear()
    // as each kubelet's pod has its image pulled first
    const line = 'while :; do cat /app/greeting >/dev/null || echo failed >>/failed; sleep 0.5; done'
    pods = await Promise.all(
      Array.from({ length: PODS }, async (_, i) => {
        expect(await containerd.pullByCri(store.image)).toMatchObject({ status: 0 })
        return await containerd.cri.runPod(`pod${i}`, { image: store.image, command: ['sh', '-c', line] })
      }),
    )
    const says = await Promise.all(pods.map((pod) => pod.exec('/app/hello')))
    expect(says).toEqual(pods.map(() => app.says))
    const blobs = byEngine(await store.registry.log()).filter(({ kind, bytes }) => kind === 'blob' && bytes > 2_000)
    expect(blobs).toEqual([])
  })

  test('none notices that the agent is killed, also where it reads what is not cached', {
    timeout: TIMEOUT_MS,
  }, async () => {
    let { pid } = await agent.status()
    for (let turn = 0; turn < KILLS; turn++) {
      const pod = pods[turn % PODS] as Pod
      process.kill(pid, 'SIGKILL')
      const [read, next] = await Promise.all([
        pod.exec('cat', `/app/part${turn % 100}`),
        successorOf(agent, pid, 120_000),
      ])
      expect(read).toBe(`part ${turn % 100}\n`.repeat(300))
      pid = next
    }
    const failed = await Promise.all(pods.map((pod) => pod.exec('sh', '-c', '[ ! -e /failed ] || cat /failed')))
    expect(failed).toEqual(pods.map(() => ''))
    for (const pod of pods) await pod.remove()
  })
})
