// Agents that show an image's layers as directories, each as its users start it, behind one interface: so that one case measures them all.
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { TOC_DIGEST } from '../src/format/estargz/estargz.ts'
import type { Subject, Turn } from './case.ts'
import type { Served } from './image.ts'
import { mountNydusd, nydusdProgram, nydusdVersion } from './nydusd.ts'
import { BY_EROFS, serveStore } from './product.ts'
import { serveStargz, stargzVersion } from './stargz-store.ts'
import { atRest } from './usage.ts'

export interface Running {
  /** None before a process is started for the image. */
  pid: number | undefined
  /** Directories of the image's layers, the uppermost first. */
  show(image: Served): Promise<string[]>
  stop(): Promise<void>
}

export interface Agent {
  name: string
  version?: () => Promise<string>
  /** A new process with an empty cache, below `dir`, before it knows of any image. */
  start(dir: string, image: Served): Promise<Running>
}

/** @param flags of `serve`, beside those that say where everything is */
export function lazylayerAgent(name: string = BY_EROFS, flags: readonly string[] = []): Agent {
  return {
    name,
    async start(dir) {
      const cache = await emptied(join(dir, 'cache'))
      const store = await serveStore(
        { dir: join(dir, 'store'), cache, run: join(dir, 'run'), rung: 'erofs' },
        [],
        flags,
      )
      const { pid } = await store.status()
      return { pid, show: (image) => store.list(image.reference), stop: store.stop }
    },
  }
}

export const stargzAgent: Agent = {
  name: 'stargz-store',
  version: stargzVersion,
  async start(dir, image) {
    const at = { dir: join(dir, 'stargz'), cache: await emptied(join(dir, 'stargz-cache')) }
    const store = await serveStargz({ image, ...at })
    return {
      pid: store.pid,
      stop: store.stop,
      async show(shown) {
        const reference = Buffer.from(shown.reference.replace('docker://', '')).toString('base64')
        const found = shown.layers
          .map(({ annotations }) => join(at.dir, reference, annotations[TOC_DIGEST] ?? '', 'diff'))
          .reverse()
        await Promise.all(found.map((each) => readdir(each)))
        return found
      },
    }
  },
}

/** Of nydus images only; it is started when the image is shown, for it is a process an image. */
export const nydusdAgent: Agent = {
  name: 'nydusd',
  version: nydusdVersion,
  async start(dir) {
    const at = { dir: join(dir, 'nydusd'), cache: await emptied(join(dir, 'nydusd-cache')) }
    const program = nydusdProgram()
    let mounted: Awaited<ReturnType<typeof mountNydusd>> | undefined
    return {
      pid: undefined,
      async show(image) {
        mounted = await mountNydusd({ program, image, ...at })
        return [at.dir]
      },
      stop: async () => await mounted?.stop(),
    }
  },
}

/** `use` with a new agent each turn. */
export function withAgent(
  { name, version, start }: Agent,
  dir: string,
  image: () => Promise<Served>,
  use: (agent: Running, image: Served) => ReturnType<Turn>,
): Subject {
  return {
    name,
    ...(version === undefined ? {} : { version }),
    async open() {
      const served = await image()
      return async () => {
        const agent = await start(dir, served)
        if (agent.pid !== undefined) await atRest(agent.pid)
        try {
          return await use(agent, served)
        } finally {
          await agent.stop()
        }
      }
    },
  }
}

async function emptied(dir: string): Promise<string> {
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir, { recursive: true })
  return dir
}
