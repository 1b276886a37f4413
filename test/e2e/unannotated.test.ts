// A containerd that says of no layer which image it is of, as k3s and RKE2 configure theirs: the registry's port is known from kubelet.
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { byEngine, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { directoryIn } from './engines/buildkit.ts'
import { Containerd, containerdLacks } from './engines/containerd.ts'
import { Cri } from './engines/cri.ts'
import { suite } from './engines/suite.ts'

/** The newest that is here. */
const FLAVOUR = (['built', 'sid', 'trixie'] as const).find((each) => containerdLacks(each) === undefined)

suite('a containerd without annotations', STORE_LACKS ?? containerdLacks(FLAVOUR ?? 'trixie'), () => {
  let store: Awaited<ReturnType<typeof makeAppStore>>
  let containerd: Containerd
  let cri: string

  beforeAll(async () => {
    store = await makeAppStore()
    const { registry, work } = store
    const path = await directoryIn(work.path, 'c')
    const socket = join(path, 's.sock')
    const address = Containerd.addressIn(path)
    cri = join(path, 'p.sock')
    await store.serve('cache', '--containerd', socket, '--containerd-address', address, '--cri-proxy', cri)
    const options = { flavour: FLAVOUR ?? 'trixie', work: work.path, socket, trust: [registry], annotations: false }
    containerd = await Containerd.prepare(path, options)
    await containerd.start()
  })
  afterAll(async () => {
    await containerd?.close()
    await store?.close()
  })

  test('fetches no layer of what kubelet pulls past the agent', async () => {
    const { registry, image, app } = store
    await registry.clear()
    expect(await new Cri(cri).pullImage(image)).toMatchObject({ status: 0, message: '' })
    const how = ['--rm', '--net-host', '--snapshotter', 'lazylayer']
    expect(await containerd.ctr('k8s.io', 'run', ...how, image, `unannotated-${process.pid}`)).toMatchObject({
      code: 0,
      stdout: app.says,
    })
    const blobs = byEngine(await registry.log()).filter(({ kind, bytes }) => kind === 'blob' && bytes > 2_000)
    expect(blobs).toEqual([])
  })
})
