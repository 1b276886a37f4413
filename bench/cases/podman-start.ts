// The main job: how long `podman run` of a real image takes until its program says its line.
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Podman } from '../../test/e2e/engines/podman.ts'
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import type { Case, LinkShape, Ratio, Sample, Subject, Turn } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { freshPodman, helperFor, type Stores, startByPodman } from '../podman-start.ts'
import { BY_EROFS, serveStore } from '../product.ts'
import { PY, pyLayout, writePlainPy } from '../py-image.ts'
import { serveStargz, stargzStoreVersion } from '../stargz-store.ts'
import { usageOf } from '../usage.ts'

const LAN: LinkShape = { roundTripMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY }
const WAN: LinkShape = { roundTripMs: 40, bytesPerSecond: 12.5e6 }

const STARGZ = 'stargz-store'
const PULLED = 'full pull'
const READY = 'ready s'
const AGAIN = 'again s'

interface Form {
  name: string
  link: LinkShape
  /** Whether the image says what a start needs. */
  isOptimized: boolean
  /** Of stargz-store's time. */
  atMost?: number
}

export const podmanStarts: readonly Case[] = [
  { name: 'podman-start-lan', link: LAN, isOptimized: true, atMost: 0.75 },
  { name: 'podman-start-wan', link: WAN, isOptimized: true, atMost: 0.65 },
  { name: 'podman-start-plain-lan', link: LAN, isOptimized: false },
  { name: 'podman-start-plain-wan', link: WAN, isOptimized: false, atMost: 0.45 },
].map(podmanStart)

function podmanStart({ name, link, isOptimized, atMost }: Form): Case {
  const ready: Ratio = { metric: READY, of: STARGZ, over: BY_EROFS }
  return {
    name,
    explains: `"podman run" (5.4.2, with an empty storage) of a Python program that imports Flask and prints a line, from an image of
      two layers and 68 MB in eStargz ${isOptimized ? 'that says which files a start needs' : 'that does not say which files a start needs'},
      ${link === LAN ? 'from a registry on this machine without a link between' : 'over a link of 40 ms and 100 Mbit/s'}. "ready": until the line;
      requests, bytes, CPU time and peak memory of the agent (which runs before, with an empty cache) are those until the program has
      ended, whatever they are for. "again": a second "podman run" right after it, with the link cut; of "${PULLED}", which has no agent, that is the start of a local
      image. Both agents as their makers have them by default. stargz-store: LAZYLAYER_STARGZ_STORE; the image: LAZYLAYER_SAMPLES.`,
    link,
    rounds: 10,
    ratios: [
      atMost === undefined ? ready : { ...ready, atLeast: 1 / atMost },
      { metric: READY, of: PULLED, over: BY_EROFS },
      { metric: AGAIN, of: PULLED, over: BY_EROFS, atLeast: 1 / 1.1 },
      { metric: 'cpu s', of: STARGZ, over: BY_EROFS, atLeast: 1 },
      { metric: 'peak MB', of: STARGZ, over: BY_EROFS },
    ],
    async prepare(context) {
      const work = await makeWorkDirectory()
      context.defer(() => work.remove())
      const layout = isOptimized ? pyLayout() : join(context.dir, 'plain')
      if (!isOptimized) await writePlainPy(layout, 'estargz')
      const image = await serveLayout(layout, PY.tag, context.defer, context.link)
      return [
        { name: PULLED, open: async () => () => starting(work.path, image, {}, undefined) },
        { name: STARGZ, version: stargzStoreVersion, open: async () => byStargz(work.path, image) },
        lazylayer(work.path, image, BY_EROFS, []),
      ]
    },
  }
}

function byStargz(work: string, image: Served): Turn {
  const at = { dir: join(work, 'stargz'), cache: join(work, 'stargz-cache') }
  return async () => {
    await rm(at.cache, { recursive: true, force: true })
    const store = await serveStargz({ image, ...at })
    try {
      return await starting(work, image, { additionalLayerStores: [`${at.dir}:ref`] }, store.pid)
    } finally {
      await store.stop()
    }
  }
}

function lazylayer(work: string, image: Served, name: string, flags: readonly string[]): Subject {
  const at = { dir: join(work, 'store'), cache: join(work, 'cache'), run: join(work, 'run'), rung: 'erofs' as const }
  return {
    name,
    async open() {
      const registriesConf = await helperFor(work, at.dir)
      return async () => {
        await rm(at.cache, { recursive: true, force: true })
        const store = await serveStore(at, [], flags)
        try {
          const { pid } = await store.status()
          const stores = { additionalImageStores: [join(at.dir, 'images')], registriesConf }
          return await starting(work, image, stores, pid)
        } finally {
          await store.stop()
        }
      }
    },
  }
}

/** @param agent process whose use of the machine counts */
async function starting(work: string, image: Served, stores: Stores, agent: number | undefined): Promise<Sample> {
  await using podman: Podman = await freshPodman(work, image, stores)
  const before = { ...image.counters(), cpu: agent === undefined ? 0 : (await usageOf(agent)).cpuSeconds }
  const first = await startByPodman(podman, image, PY.says)
  const { requests, bytesDown } = image.counters()
  const usage = agent === undefined ? undefined : await usageOf(agent)
  image.link.cut()
  try {
    const again = await startByPodman(podman, image, PY.says)
    return {
      [READY]: first.readySeconds,
      'exit s': first.exitSeconds,
      requests: requests - before.requests,
      'MB down': (bytesDown - before.bytesDown) / 1e6,
      ...(usage === undefined ? {} : { 'cpu s': usage.cpuSeconds - before.cpu, 'peak MB': usage.peakMb }),
      [AGAIN]: again.readySeconds,
    }
  } finally {
    image.link.mend()
  }
}
