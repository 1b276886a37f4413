// The main job: how long `podman run` of a real image takes until its program says its line.
import { join } from 'node:path'
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import { lazylayerAgent, stargzAgent } from '../agents.ts'
import type { Case, LinkShape, Ratio } from '../case.ts'
import { NO_DELAY, serveLayout } from '../image.ts'
import { serveNear } from '../near.ts'
import { AGAIN, byPodman, lazylayerByPodman, READY, stargzByPodman } from '../podman-start.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout, writePlainPy } from '../py-image.ts'

const WAN: LinkShape = { roundTripMs: 40, bytesPerSecond: 12.5e6 }

/** Only what is asked for, and what the image wants first. */
const ALONE = `${BY_EROFS}, --background off`
const STARGZ = stargzAgent.name
const PULLED = 'full pull'

interface Form {
  name: string
  link: LinkShape
  /** Whether the image says what a start needs. */
  isOptimized: boolean
  /** Of stargz-store's time. */
  atMost?: number
}

export const podmanStarts: readonly Case[] = [
  { name: 'podman-start-lan', link: NO_DELAY, isOptimized: true, atMost: 0.75 },
  { name: 'podman-start-wan', link: WAN, isOptimized: true, atMost: 0.65 },
  { name: 'podman-start-plain-lan', link: NO_DELAY, isOptimized: false },
  { name: 'podman-start-plain-wan', link: WAN, isOptimized: false, atMost: 0.45 },
].map(podmanStart)

function podmanStart({ name, link, isOptimized, atMost }: Form): Case {
  const ready: Ratio = { metric: READY, of: STARGZ, over: BY_EROFS }
  return {
    name,
    explains: `"podman run" (5.4.2, with an empty storage) of a Python program that imports Flask and prints a line, from an image of
      two layers and 68 MB in eStargz ${isOptimized ? 'that says which files a start needs' : 'that does not say which files a start needs'},
      ${link === NO_DELAY ? 'from nginx on this machine without a link between' : 'over a link of 40 ms and 100 Mbit/s'}. "ready": until the line;
      requests, bytes, CPU time and peak memory of the agent (which runs before, with an empty cache) are those until the program has
      ended, whatever they are for. "again": a second "podman run" right after it, with the link cut; of "${PULLED}", which has no agent, that is the start of a local
      image. Both agents as their makers have them by default. stargz-store: LAZYLAYER_STARGZ_STORE; the image: LAZYLAYER_SAMPLES.`,
    link,
    rounds: 10,
    ratios: [
      atMost === undefined ? ready : { ...ready, atLeast: 1 / atMost },
      { metric: READY, of: STARGZ, over: ALONE },
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
      const image = await (link === NO_DELAY
        ? serveNear(layout, PY.tag, context)
        : serveLayout(layout, PY.tag, context.defer, link))
      return [
        { name: PULLED, open: async () => () => byPodman(work.path, image, {}) },
        stargzByPodman(work.path, image),
        await lazylayerByPodman(work.path, image),
        await lazylayerByPodman(work.path, image, lazylayerAgent(ALONE, ['--background', 'off'])),
      ]
    },
  }
}
