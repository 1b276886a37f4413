// Two containerds on one agent, each with a socket and a state of its own over the same layers and cache; namespaces of one; and a registry
// that hangs, which stops neither.
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { writeImage } from '../../src/build/layout-writer.ts'
import type { Digest } from '../../src/image/digest.ts'
import { type Agent, startAgent } from './agent.ts'
import { type AppImage, referenceOf, withPrograms, writeApp } from './app-image.ts'
import { STORE_LACKS } from './engine-store.ts'
import { directoryIn } from './engines/buildkit.ts'
import { Containerd, type ContainerdFlavour, containerdLacks } from './engines/containerd.ts'
import { suite } from './engines/suite.ts'
import { makeWorkDirectory, type WorkDirectory } from './engines/work-directory.ts'
import { type LayoutRegistry, serveLayout } from './registry.ts'

/** runc keeps all containers of a machine in one place. */
const ID = `two-${process.pid}`
const TIMEOUT_MS = 180_000
/** Its ctr asks for lazy layers in any namespace; older ones never do. */
const NEWER = (['built', 'sid'] as const).find((each) => containerdLacks(each) === undefined)

suite('two containerds', STORE_LACKS ?? containerdLacks('trixie'), () => {
  let work: WorkDirectory
  let app: AppImage
  /** Digest of its layer. */
  let hanging: Digest
  let registry: LayoutRegistry
  let agent: Agent
  let serve: () => Promise<Agent>
  /** By the names of their snapshotters. */
  const containerds = new Map<string, Containerd>()
  const root = () => join(work.path, 'store')

  beforeAll(async () => {
    work = await makeWorkDirectory()
    app = await writeApp(join(work.path, 'app'))
    hanging = await writeHanging(app.layout)
    registry = await serveLayout(app.layout, work.path)
    const places = await Promise.all(['one', 'two'].map((name) => directoryIn(work.path, name)))
    const socketIn = (path: string) => join(path, 's.sock')
    const flags = places.flatMap((path, i) => [
      ...['--containerd', `${['one', 'two'][i]}=${socketIn(path)}`],
      ...['--containerd-address', Containerd.addressIn(path)],
    ])
    const args = ['serve', root(), '--cache', join(work.path, 'cache'), '--cert-dir', registry.certDir, ...flags]
    serve = () => startAgent(work.path, root(), args)
    agent = await serve()
    const trust = [{ host: registry.host, caFile: join(registry.certDir, 'ca.crt') }]
    const flavours: ContainerdFlavour[] = ['trixie', NEWER ?? 'trixie']
    for (const [i, name] of ['one', 'two'].entries()) {
      const path = places[i] as string
      const options = {
        flavour: flavours[i] as ContainerdFlavour,
        work: work.path,
        socket: socketIn(path),
        trust,
        name,
      }
      const containerd = await Containerd.prepare(path, options)
      containerds.set(name, containerd)
      await containerd.start()
    }
  }, TIMEOUT_MS)
  afterAll(async () => {
    for (const each of containerds.values()) await each.close()
    await agent?.stop()
    await registry?.close()
    await work?.remove()
  })

  const of = (name: string) => containerds.get(name) as Containerd
  const ctr = (name: string, namespace: string, ...args: string[]) => of(name).ctr(namespace, ...args)
  let runs = 0
  const run = (name: string, namespace = 'k8s.io', image = referenceOf(app, registry), ...command: string[]) => {
    const how = ['--rm', '--net-host', '--snapshotter', name]
    return ctr(name, namespace, 'run', ...how, image, `${ID}-${runs++}`, ...command)
  }
  const works = () => ({ code: 0, stdout: app.says })
  const snapshots = async (name: string, namespace = 'k8s.io') => {
    const { stdout } = await ctr(name, namespace, 'snapshots', '--snapshotter', name, 'ls')
    return stdout.split('\n').slice(1).filter(Boolean).length
  }
  /** CRI gives an image three names. */
  const removeAll = async (name: string, namespace: string) => {
    const { stdout } = await ctr(name, namespace, 'images', 'ls', '-q')
    for (const each of stdout.split('\n').filter(Boolean))
      expect(await ctr(name, namespace, 'images', 'rm', '--sync', each)).toMatchObject({ code: 0 })
  }
  const trees = () => readdir(join(root(), 'snapshots'))
  /** Not by the agent, beside configs. */
  const layersFetched = () =>
    registry.seen.filter(
      ({ kind, sent, header }) => kind === 'blob' && sent > 2_000 && header('user-agent') !== 'lazylayer',
    )

  test('have an image each, over the same trees, and what one removes the other goes on with', {
    timeout: TIMEOUT_MS,
  }, async () => {
    for (const name of ['one', 'two']) {
      expect(await of(name).pullByCri(referenceOf(app, registry))).toMatchObject({ status: 0, message: '' })
      expect(await run(name)).toMatchObject(works())
    }
    expect(await trees()).toHaveLength(3)
    await removeAll('one', 'k8s.io')
    await expect.poll(() => snapshots('one')).toBe(0)
    expect(await snapshots('two')).toBe(3)
    expect(await trees()).toHaveLength(3)
    expect(await run('two', 'k8s.io', referenceOf(app, registry), 'cat', '/app/part7')).toMatchObject({
      code: 0,
      stdout: 'part 7\n'.repeat(300),
    })
    expect(layersFetched()).toEqual([])
  })

  if (NEWER !== undefined)
    test('have it in each namespace by itself', { timeout: TIMEOUT_MS }, async () => {
      const hosts = ['--hosts-dir', join(of('two').path, 'certs.d')]
      const pull = ['images', 'pull', ...hosts, '--snapshotter', 'two', referenceOf(app, registry)]
      expect(await ctr('two', 'other', ...pull)).toMatchObject({ code: 0 })
      expect(await run('two', 'other')).toMatchObject(works())
      expect([await snapshots('two'), await snapshots('two', 'other')]).toEqual([3, 3])
      await removeAll('two', 'k8s.io')
      await expect.poll(() => snapshots('two')).toBe(0)
      expect(await run('two', 'other', referenceOf(app, registry), 'cat', '/app/part8')).toMatchObject({
        code: 0,
        stdout: 'part 8\n'.repeat(300),
      })
      expect(await trees()).toHaveLength(3)
      expect(layersFetched()).toEqual([])
    })

  test('are answered while a registry hangs: the agent ends though a layer is waited for, and removals and pulls go on without it', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const reference = `${registry.host}/hanging:hanging`
    const hung = Promise.withResolvers<void>()
    registry.faults = [{ match: new RegExp(hanging), held: hung.promise }]
    const asked = (byAgent: boolean) => () =>
      registry.seen.filter(
        ({ path, header }) => path.endsWith(hanging) && (header('user-agent') === 'lazylayer') === byAgent,
      ).length
    const ended = of('two').pullByCri(reference)
    await expect.poll(asked(true), { timeout: 60_000 }).toBeGreaterThan(0)
    expect(await agent.stop()).toBe(0)
    expect((await ended).status).not.toBe(0)
    agent = await serve()

    await expect
      .poll(() => of('one').pullByCri(referenceOf(app, registry)), { interval: 500, timeout: 20_000 })
      .toMatchObject({ status: 0 })
    const before = asked(true)()
    const pulling = of('one').pullByCri(reference)
    await expect.poll(asked(true), { timeout: 60_000 }).toBeGreaterThan(before)
    await removeAll('one', 'k8s.io')
    // but what the pull may unpack into by then
    await expect.poll(() => snapshots('one')).toBeLessThanOrEqual(1)
    await expect.poll(asked(false), { timeout: 60_000 }).toBe(1)
    expect(agent.log()).toMatch(/is left to containerd: no progress for/)
    registry.faults = []
    hung.resolve()
    expect(await pulling).toMatchObject({ status: 0, message: '' })
    expect(await run('one', 'k8s.io', reference)).toMatchObject({ code: 0, stdout: 'late\n' })
  })
})

/** An image of one layer, which no other has. @returns its digest */
async function writeHanging(layout: string): Promise<Digest> {
  const entries = [
    ...(await withPrograms(['cat'])),
    { path: 'etc/who', type: 'file' as const, content: Buffer.from('late\n') },
  ]
  const config = { Cmd: ['/bin/cat', '/etc/who'] }
  const { layers } = await writeImage({ dir: layout, tag: 'hanging', config, layers: [{ kind: 'estargz', entries }] })
  return layers[0]?.digest as Digest
}
