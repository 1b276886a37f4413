// What real engines find when agent and keeper are gone at once, under running containers, and after a reboot without a registry.
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type Agent, gone, lazylayerAs, startAgent, successorOf } from './agent.ts'
import { partsOf } from './app-image.ts'
import { type AppStore, makeAppStore, STORE_LACKS } from './engine-store.ts'
import { command } from './engines/command.ts'
import { Containerd, containerdLacks } from './engines/containerd.ts'
import { type Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { mountsBelow } from './engines/work-directory.ts'

const TIMEOUT_MS = 600_000
/** runc keeps all containers of a machine in one place. */
const ID = `reboot-${process.pid}`

suite('keeper and agent gone at once', STORE_LACKS ?? podmanLacks('trixie') ?? containerdLacks('trixie'), () => {
  let store: AppStore
  let agent: Agent
  /** One looks through each door. */
  let podmans: { layers: Podman; images: Podman }
  let containerd: Containerd
  let path: string
  let serve: () => Promise<Agent>
  const DOORS = ['layers', 'images'] as const
  const NAME = ['--snapshotter', 'lazylayer']

  beforeAll(async () => {
    store = await makeAppStore()
    const { work, registry } = store
    await store.installHelper()
    path = join(work.path, 'c')
    await mkdir(path)
    const socket = join(path, 's.sock')
    const args = ['--containerd', socket, '--containerd-address', Containerd.addressIn(path), '--keeper-patience', '60']
    serve = () => store.serve('cache', ...args)
    containerd = await Containerd.prepare(path, { flavour: 'trixie', work: work.path, socket, trust: [registry] })
    agent = await serve()
    await containerd.start()
    podmans = {
      layers: await store.startEngine('trixie', 'layers'),
      images: await store.startEngine('trixie', 'images'),
    }
    for (const each of DOORS) await podmans[each].succeed(['pull', '--quiet', store.image])
    // on a machine with much else to do an agent may be taken for one that hangs, and is away for a while
    const pull = async () => expect(await containerd.pullByCri(store.image)).toMatchObject({ status: 0, message: '' })
    await vi.waitFor(pull, { interval: 500, timeout: 120_000 })
  }, TIMEOUT_MS)
  afterAll(async () => {
    await containerd?.close()
    for (const each of DOORS) await podmans?.[each].close()
    await store?.close()
  })

  /** As the kernel does when it kills all that there is. */
  async function killAll({ status, ended }: Agent): Promise<void> {
    const { pid } = await status()
    const keeper = Number((await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ').at(-1)?.split(' ')[1])
    process.kill(keeper, 'SIGKILL')
    process.kill(pid, 'SIGKILL')
    await ended
    await gone(pid)
  }

  const ctr = (...args: string[]) => containerd.ctr('k8s.io', ...args)
  /** containerd tries to connect again up to 3 s after it could not. */
  const runsByContainerd = () =>
    expect
      .poll(() => ctr('run', '--rm', '--net-host', ...NAME, store.image, `${ID}-once`), {
        interval: 500,
        timeout: 20_000,
      })
      .toMatchObject({ code: 0, stdout: store.app.says })

  interface Finding {
    name: string
    state: string
    found: string
    fix?: string
  }
  /** What doctor says of containers that have to do with this test: others may run beside it. */
  async function named(): Promise<Finding[]> {
    const { work, root } = store
    const env = {
      ...process.env,
      RUNTIME_DIRECTORY: join(work.path, 'run'),
      CONTAINERS_STORAGE_CONF: join(work.path, 'none'),
    }
    const args = ['doctor', '--root', root, '--cache', join(work.path, 'cache'), '--format', 'json']
    const { stdout } = await lazylayerAs({ env }, ...args)
    const findings = (JSON.parse(stdout) as Finding[]).filter(({ name }) => name === 'containers')
    expect(findings).not.toEqual([]) // it looked
    return findings.filter(({ found }) => found.includes(work.path))
  }

  test('doctor names each container that has to start anew, until it has', { timeout: TIMEOUT_MS }, async () => {
    const ids: string[] = []
    for (const each of DOORS) {
      // of a mount that is gone, the system may take back whatever nothing maps: it starts no program any more
      const args = ['--detach', '--name', each, store.image, 'sleep', '1000']
      const { code, stdout, stderr } = await podmans[each].container('run', args)
      expect(code === 0 ? '' : stderr).toBe('')
      ids.push(stdout.trim().slice(0, 12))
    }
    const task = [`${ID}-task`, 'sleep', '1000']
    expect(await ctr('run', '--detach', '--net-host', ...NAME, store.image, ...task)).toMatchObject({ code: 0 })
    expect(await named()).toEqual([])

    await killAll(agent)
    // the kernel ends the connection when the last descriptor is closed, some milliseconds after the process
    const start = { state: 'problem', fix: expect.stringContaining(`Start lazylayer serve ${store.root}. `) }
    await expect.poll(named, { interval: 500 }).toMatchObject([start, start, start])
    agent = await serve()
    const found = await named()
    const fixes = found.map(({ fix }) => fix)
    expect(fixes).toEqual(expect.arrayContaining(ids.map((id) => `Run podman stop ${id}, and podman start ${id}.`)))
    expect(found.map((each) => each.found)).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/^container layers, [0-9a-f]{12}, of Podman \(process \d+, sleep\)/),
        expect.stringMatching(/^container images, [0-9a-f]{12}, of Podman \(process \d+, sleep\)/),
        expect.stringMatching(`^container ${ID}-task of containerd in namespace k8s.io \\(process \\d+, sleep\\)`),
      ]),
    )
    expect(found).toHaveLength(3)
    // as it says
    for (const [i, each] of DOORS.entries()) {
      const id = ids[i] as string
      await podmans[each].succeed(['stop', '--time', '0', id])
      await podmans[each].succeed(['start', id])
    }
    expect((await named()).map((each) => each.found)).toEqual([expect.stringContaining(`${ID}-task`)])
    expect(await ctr('tasks', 'kill', '-s', 'KILL', `${ID}-task`)).toMatchObject({ code: 0 })
    await expect.poll(() => ctr('containers', 'rm', `${ID}-task`)).toMatchObject({ code: 0 })
    expect(await named()).toEqual([])
    // one layer has a name in each store: a successor answers for it under all of them
    const { pid } = agent
    process.kill(pid, 'SIGKILL')
    for (const [i, each] of DOORS.entries()) {
      const cat = ['exec', each, 'sh', '-c', `cat /app/part${i + 1}*`]
      expect(await podmans[each].run(cat)).toMatchObject({ code: 0, stdout: partsOf(`${i + 1}`) })
    }
    await successorOf(agent, pid, TIMEOUT_MS)
  })

  test('after a reboot all is listed before the agent is ready, and starts, without a registry', {
    timeout: TIMEOUT_MS,
  }, async () => {
    const { work, root, registry, image, app } = store
    // each has been started once, so what a start reads is there
    for (const each of DOORS) expect((await podmans[each].container('run', ['--rm', image])).stdout).toBe(app.says)
    await runsByContainerd()
    const dir = join(work.path, 'mounted')
    await mkdir(dir)
    /** Beside the store, by the same cache. */
    const mountsBeside = async () => {
      const args = ['mount', image, dir, '--cache', join(work.path, 'cache'), '--cert-dir', registry.certDir]
      const mounted = await startAgent(work.path, dir, args)
      try {
        expect(await readFile(join(dir, 'app/greeting'), 'utf8')).toBe(app.says)
        expect(await readFile(join(dir, 'app/name'), 'utf8')).toBe('the middle\n')
      } finally {
        await mounted.stop()
      }
    }
    await mountsBeside()
    const listed = async () => ({
      images: JSON.parse(await readFile(join(root, 'images/overlay-layers/layers.json'), 'utf8')),
      trees: (await readdir(join(root, 'snapshots'))).sort(),
    })
    const before = await listed()
    expect(before.images).toHaveLength(app.layers.length)
    expect(before.trees).toHaveLength(app.layers.length)

    // everything ends, and what is in memory is lost
    for (const each of DOORS) {
      const line = `podman stop --all --time 0; umount --lazy --all --types overlay; rm -rf ${podmans[each].path}/run/*`
      await podmans[each].exec(['sh', '-c', line])
    }
    await containerd.kill()
    await killAll(agent)
    for (const each of await mountsBelow(work.path)) {
      if (each !== work.path) await command('umount', ['--lazy', '--no-canonicalize', each])
    }
    for (const each of ['run', 'c/state', 'c/c.sock', 'c/s.sock'])
      await rm(join(work.path, each), { recursive: true, force: true })
    await registry.stop()

    agent = await serve()
    expect(await listed()).toEqual(before)
    for (const each of DOORS) {
      // one that was made before, and a new one
      const { code, stderr } = await podmans[each].run(['start', each])
      expect(code === 0 ? '' : stderr).toBe('')
      expect(await podmans[each].run(['exec', each, 'cat', '/app/greeting'])).toMatchObject({ stdout: app.says })
      expect(await podmans[each].container('run', ['--rm', image])).toMatchObject({ code: 0, stdout: app.says })
    }
    await containerd.start()
    await runsByContainerd()
    await mountsBeside()
    expect(await named()).toEqual([])
  })
})
