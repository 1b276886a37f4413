// The main job over a slow link to another continent: what a start takes beside what the link and the machine themselves take.
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import { stargzAgent } from '../agents.ts'
import type { Case, LinkShape, Sample, Subject } from '../case.ts'
import { type Served, serveLayout } from '../image.ts'
import { serveNear } from '../near.ts'
import { AGAIN, freshPodman, lazylayerByPodman, READY, stargzByPodman, startByPodman } from '../podman-start.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout, pyPrioritizedBytes } from '../py-image.ts'

const LINK: LinkShape = { roundTripMs: 150, bytesPerSecond: 2.5e6 }
const LOCAL = 'local image'
const BOUND_TIMES = 1.3
const BOUND_ROUND_TRIPS = 6

export const podmanFar: Case = {
  name: 'podman-start-far',
  explains: `As "podman-start-wan", over a link of 150 ms and 20 Mbit/s. "${LOCAL}": what a start may take, which is ${BOUND_TIMES} times what the link takes for the bytes that
    the image wants first, ${BOUND_ROUND_TRIPS} round trips, and the start of an image that is here already ("again").`,
  link: LINK,
  rounds: 5,
  ratios: [
    { metric: READY, of: LOCAL, over: BY_EROFS, atLeast: 1 },
    { metric: READY, of: stargzAgent.name, over: BY_EROFS },
  ],
  async prepare({ dir, defer, link }) {
    const work = await makeWorkDirectory()
    defer(() => work.remove())
    const near = await serveNear(pyLayout(), PY.tag, { dir, defer })
    const image = await serveLayout(pyLayout(), PY.tag, defer, link)
    return [local(work.path, near, defer), stargzByPodman(work.path, image), await lazylayerByPodman(work.path, image)]
  },
}

/** @param near the image without a link between, to be pulled once */
function local(work: string, near: Served, defer: (close: () => Promise<void>) => void): Subject {
  return {
    name: LOCAL,
    async open() {
      const wanted = await pyPrioritizedBytes()
      const podman = await freshPodman(work, near, {})
      defer(() => podman.close())
      return async (): Promise<Sample> => {
        const { readySeconds } = await startByPodman(podman, near, PY.says)
        const linkSeconds = (BOUND_TIMES * wanted) / LINK.bytesPerSecond
        const roundTripSeconds = (BOUND_ROUND_TRIPS * LINK.roundTripMs) / 1000
        return {
          [READY]: linkSeconds + roundTripSeconds + readySeconds,
          [AGAIN]: readySeconds,
          'MB down': wanted / 1e6,
        }
      }
    },
  }
}
