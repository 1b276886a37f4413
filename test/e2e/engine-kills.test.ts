// Containers of real engines that read and compare their own files while agents are killed one after another: `npm run soak:engine-kills`.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { type Agent, successorOf } from './agent.ts'
import { type EngineStore, makeStore, STORE_LACKS } from './engine-store.ts'
import type { Outcome } from './engines/command.ts'
import { Containerd, type ContainerdFlavour, containerdLacks } from './engines/containerd.ts'
import { type Podman, podmanLacks } from './engines/podman.ts'
import { suite } from './engines/suite.ts'
import { type ReaderImage, writeReaderImage } from './reader-image.ts'
import { readerOf, type VerifyingReader } from './verifying-reader.ts'

/** Of each agent, one after the other. */
const KILLS = Number(process.env.LAZYLAYER_ENGINE_KILLS ?? 0)
/** There are fewer where these do not fit in. */
const SECONDS = Number(process.env.LAZYLAYER_ENGINE_SECONDS ?? Number.POSITIVE_INFINITY)
const TIMEOUT_MS = 600_000 + KILLS * 30_000
/** What is learned and fetched at first does not count as a wait. */
const WARM_KILLS = Math.min(10, Math.ceil(KILLS / 10))
/** runc keeps all containers of a machine in one place. */
const ID = `kills-${process.pid}`
/** Each of four threads in each container: else they leave no processor to the agents. */
const REST = ['--env', 'LAZYLAYER_REST_MS=50']
const CONTAINERDS = (['trixie', 'built'] as const).filter((each) => containerdLacks(each) === undefined)

/** A container that reads. */
interface Reading {
  reader: VerifyingReader
  /** Runs another program in it. */
  exec(...argv: string[]): Promise<Outcome>
}

suite(
  'kills under real engines',
  KILLS === 0 ? 'npm run soak:engine-kills runs it for minutes' : (STORE_LACKS ?? podmanLacks('trixie')),
  () => {
    let store: EngineStore
    let image: ReaderImage
    let agent: Agent
    const podmans: Podman[] = []
    const containerds: Containerd[] = []
    const readings = new Map<string, Reading>()

    beforeAll(async () => {
      store = await makeStore(async (dir) => {
        image = await writeReaderImage(dir)
        return { layout: image.layout, tags: [image.tag] }
      })
      await store.installHelper()
      const prepared = await Promise.all(CONTAINERDS.map(prepare))
      const sockets = prepared.flatMap(({ path, socket }) => {
        return ['--containerd', socket, '--containerd-address', Containerd.addressIn(path)]
      })
      agent = await store.serve('cache', ...sockets, '--keeper-patience', '120', '--background', 'full')
      for (const door of ['layers', 'images'] as const) await readByPodman(door)
      for (const each of prepared) await readByContainerd(each)
    }, TIMEOUT_MS)
    afterAll(async () => {
      for (const { reader } of readings.values()) await reader.end()
      for (const each of containerds) await each.close()
      for (const each of podmans) await each.close()
      await store?.close()
    })

    const devices = () => join(store.root, '.devices')

    async function readByPodman(door: 'layers' | 'images'): Promise<void> {
      const podman = await store.startEngine('trixie', door)
      podmans.push(podman)
      await podman.succeed(['pull', '--quiet', store.image])
      const volumes = [`${image.plain}:/plain:ro`, `${devices()}:/devices:ro`].flatMap((each) => ['--volume', each])
      const args = ['--rm', '--interactive', '--name', door, ...REST, ...volumes, store.image, ...image.command]
      readings.set(`Podman, ${door}`, {
        reader: await readerOf(podman.execWords(podman.containerWords('run', args))),
        exec: (...argv) => podman.run(['exec', door, ...argv]),
      })
    }

    async function prepare(flavour: ContainerdFlavour) {
      const path = join(store.work.path, `c-${flavour}`)
      await mkdir(path)
      const socket = join(path, 's.sock')
      const containerd = await Containerd.prepare(path, {
        flavour,
        work: store.work.path,
        socket,
        trust: [store.registry],
      })
      containerds.push(containerd)
      return { flavour, path, socket, containerd }
    }

    async function readByContainerd({ flavour, containerd }: Awaited<ReturnType<typeof prepare>>): Promise<void> {
      await containerd.start()
      // on a machine with much else to do an agent may be taken for one that hangs, and is away for a while
      const pull = async () => expect(await containerd.pullByCri(store.image)).toMatchObject({ status: 0, message: '' })
      await vi.waitFor(pull, { interval: 500, timeout: 120_000 })
      const mounts = [`src=${image.plain},dst=/plain`, `src=${devices()},dst=/devices`].flatMap((each) => [
        '--mount',
        `type=bind,${each},options=rbind:ro`,
      ])
      const id = `${ID}-${flavour}`
      const args = ['run', '--rm', '--net-host', '--snapshotter', 'lazylayer', ...REST, ...mounts, store.image, id]
      let execs = 0
      readings.set(`containerd, ${flavour}`, {
        reader: await readerOf(containerd.ctrWords('k8s.io', ...args, ...image.command)),
        exec: (...argv) => containerd.ctr('k8s.io', 'tasks', 'exec', '--exec-id', `x${execs++}`, id, ...argv),
      })
    }

    test('containers read on, and programs start in them', { timeout: TIMEOUT_MS }, async () => {
      let { pid } = agent
      const failed: unknown[] = []
      const all = [...readings.values()]
      const until = performance.now() + SECONDS * 1000
      let i = 0
      for (; i < KILLS && performance.now() < until; i++) {
        if (i === WARM_KILLS) await Promise.all(all.map(({ reader }) => reader.warm()))
        const { exec } = all[i % all.length] as Reading
        process.kill(pid, 'SIGKILL')
        const ran = exec('/bin/cat', '/text', '/data/f1')
        const told = agent.log().length
        pid = await successorOf(agent, pid, TIMEOUT_MS).catch((error) => {
          throw new Error(`after ${i} kills: ${agent.log().slice(told)}`, { cause: error })
        })
        const { code, stdout, stderr } = await ran
        if (code !== 0 || !stdout.startsWith(image.text)) failed.push({ kill: i, code, stderr })
        await Promise.all(all.map(({ reader }) => reader.more())).catch(async (error) => {
          const { counters } = await agent.status()
          throw new Error(`after ${i + 1} kills: ${agent.log()}${JSON.stringify(counters)}`, { cause: error })
        })
      }
      const found = await Promise.all(
        [...readings].map(async ([name, { reader }]) => [name, await reader.end()] as const),
      )
      readings.clear()
      console.log(JSON.stringify({ kills: i, starts: i, failed, ...Object.fromEntries(found) }))
      expect(failed).toEqual([])
      for (const [name, each] of found) expect([name, each]).toMatchObject([name, { wrong: 0, errors: [] }])
    })
  },
)
