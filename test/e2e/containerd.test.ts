// containerd with lazylayer as its snapshotter: pulls fetch no layer, containers run, and nothing that either was told is lost.
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Agent, gone } from './agent.ts'
import { type AppStore, byEngine, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { CONTAINERD_LACKS, Containerd } from './engines/containerd.ts'
import { suite } from './engines/suite.ts'

suite('containerd 1.7', STORE_LACKS ?? CONTAINERD_LACKS, () => {
  let store: AppStore
  let containerd: Containerd
  let agent: Agent
  let serve: () => Promise<Agent>

  beforeAll(async () => {
    store = await makeAppStore()
    const path = join(store.work.path, 'c')
    await mkdir(path)
    const socket = join(path, 's.sock')
    serve = () => store.serve('cache', '--containerd', socket, '--containerd-address', Containerd.addressIn(path))
    const { registry, work } = store
    containerd = await Containerd.prepare(path, { flavour: 'trixie', work: work.path, socket, trust: [registry] })
    agent = await serve()
    await containerd.start()
  })
  afterAll(async () => {
    await containerd?.close()
    await store?.close()
  })

  const NAME = ['--snapshotter', 'lazylayer']
  const run = (id: string, namespace = 'k8s.io') =>
    containerd.ctr(namespace, 'run', '--rm', '--net-host', ...NAME, store.image, id)
  const snapshots = async (namespace = 'k8s.io') =>
    (await containerd.ctr(namespace, 'snapshots', ...NAME, 'ls')).stdout.split('\n').slice(1).filter(Boolean).length
  /** Layers that containerd itself has asked for. */
  const layersFetched = async () =>
    byEngine(await store.registry.log()).filter(({ uri }) =>
      store.app.layers.some(({ digest }) => uri.includes(digest)),
    )
  const works = { code: 0, stdout: '' }
  /** containerd tries to connect again up to 3 s after it could not. */
  const runsSoon = (id: string) =>
    expect.poll(() => run(`${id}${Math.random()}`), { interval: 500, timeout: 20_000 }).toMatchObject(works)

  test('an image that kubelet has pulled runs, and containerd has fetched no layer of it', async () => {
    works.stdout = store.app.says
    await store.registry.clear()
    expect(await containerd.pullByCri(store.image)).toEqual({ status: 0, message: '' })
    expect(await run('one')).toMatchObject(works)
    expect(await layersFetched()).toEqual([])
    expect(await snapshots()).toBe(3)
  })

  test('it runs after the agent or containerd was killed, without the registry', async () => {
    process.kill(agent.pid, 'SIGKILL')
    await gone(agent.pid)
    await agent.ended
    await store.registry.clear()
    agent = await serve()
    await runsSoon('two')
    await containerd.kill()
    await containerd.start()
    expect(await run('three')).toMatchObject(works)
    expect(await store.stop()).toBe(0)
    agent = await serve()
    await runsSoon('four')
    expect(await layersFetched()).toEqual([])
  })

  test('what containerd removes is gone, and what it pulls again is lazy again', async () => {
    expect(await containerd.ctr('k8s.io', 'images', 'rm', '--sync', store.image)).toMatchObject({ code: 0 })
    const { stdout } = await containerd.ctr('k8s.io', 'images', 'ls', '-q')
    for (const left of stdout.split('\n').filter(Boolean))
      await containerd.ctr('k8s.io', 'images', 'rm', '--sync', left)
    await expect.poll(() => snapshots()).toBe(0)
    await expect.poll(() => readdir(join(store.root, 'snapshots'))).toEqual([])
    await store.registry.clear()
    expect(await containerd.pullByCri(store.image)).toEqual({ status: 0, message: '' })
    expect(await run('five')).toMatchObject(works)
    expect(await layersFetched()).toEqual([])
  })
})
