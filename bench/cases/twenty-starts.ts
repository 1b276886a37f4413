// How long it takes until all of twenty containers of one image run that are started at once.
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import { type Agent, lazylayerAgent, stargzAgent } from '../agents.ts'
import type { Case, Sample, Subject } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { freshPodman, lazylayerStores, type Stores, stargzStores, startByPodman } from '../podman-start.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout } from '../py-image.ts'

const STARTS = 20
const ALL = 'all ready s'

export const twentyStarts: Case = {
  name: 'twenty-starts',
  explains: `${STARTS} "podman run" at once (5.4.2, with an empty storage) of a Python program that imports Flask and prints a line, from an eStargz image of
    two layers and 68 MB that says which files a start needs, over the link of --link; the agent runs before, with an empty cache.
    Most of it is Podman's own work on two processors. stargz-store: LAZYLAYER_STARGZ_STORE; the image: LAZYLAYER_SAMPLES.`,
  rounds: 3,
  ratios: [{ metric: ALL, of: stargzAgent.name, over: BY_EROFS }],
  async prepare({ defer, link }) {
    const work = await makeWorkDirectory()
    defer(() => work.remove())
    const image = await serveLayout(pyLayout(), PY.tag, defer, link)
    return [
      starting(stargzAgent, work.path, image, stargzStores(work.path)),
      starting(lazylayerAgent(), work.path, image, await lazylayerStores(work.path)),
    ]
  },
}

function starting(agent: Agent, work: string, image: Served, stores: Stores): Subject {
  const turn = async (): Promise<Sample> => {
    const running = await agent.start(work, image)
    try {
      await using podman = await freshPodman(work, image, stores)
      const before = image.counters()
      const started = await Promise.all(Array.from({ length: STARTS }, () => startByPodman(podman, image, PY.says)))
      const ready = started.map(({ readySeconds }) => readySeconds)
      const { requests, bytesDown } = image.counters()
      return {
        'first ready s': Math.min(...ready),
        [ALL]: Math.max(...ready),
        requests: requests - before.requests,
        'MB down': (bytesDown - before.bytesDown) / 1e6,
      }
    } finally {
      await running.stop()
    }
  }
  return {
    name: agent.name,
    ...(agent.version === undefined ? {} : { version: agent.version }),
    open: async () => turn,
  }
}
