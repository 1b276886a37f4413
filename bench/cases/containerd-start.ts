// The main job by containerd: how long a pull and a run of a real image take until its program says its line.
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import type { Case, LinkShape } from '../case.ts'
import { ALONE, byContainerd, PULLED, READY, STARGZ_GRPC } from '../containerd-start.ts'
import { NO_DELAY, serveLayout } from '../image.ts'
import { serveNear } from '../near.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout } from '../py-image.ts'

const WAN: LinkShape = { roundTripMs: 40, bytesPerSecond: 12.5e6 }

export const containerdStarts: readonly Case[] = [
  { name: 'containerd-start-lan', link: NO_DELAY },
  { name: 'containerd-start-wan', link: WAN },
].map(containerdStart)

function containerdStart({ name, link }: { name: string; link: LinkShape }): Case {
  return {
    name,
    explains: `A pull by containerd's CRI plugin, as kubelet asks for it, and "ctr run" of a Python program that imports Flask and prints a line,
      from an image of two layers and 68 MB in eStargz that says which files a start needs,
      ${link === NO_DELAY ? 'from nginx on this machine without a link between' : 'over a link of 40 ms and 100 Mbit/s'}, with a new containerd
      (LAZYLAYER_TEST_CONTAINERD, or Debian 13's 1.7) and a new snapshotter each turn. "ready": pull and run until the line; requests and bytes
      are containerd's and the snapshotter's together, up to then; CPU time and peak memory are the snapshotter's. "again": a second
      "ctr run". "${PULLED}" is containerd's own snapshotter. stargz-snapshotter: LAZYLAYER_STARGZ_STORE; the image: LAZYLAYER_SAMPLES.`,
    link,
    rounds: 5,
    ratios: [
      { metric: READY, of: STARGZ_GRPC, over: BY_EROFS, atLeast: 1 },
      { metric: 'requests', of: STARGZ_GRPC, over: ALONE, atLeast: 1 },
      { metric: 'MB down', of: STARGZ_GRPC, over: ALONE, atLeast: 1 },
      { metric: READY, of: PULLED, over: BY_EROFS },
      { metric: 'cpu s', of: STARGZ_GRPC, over: BY_EROFS },
      { metric: 'again s', of: STARGZ_GRPC, over: BY_EROFS },
    ],
    async prepare(context) {
      const work = await makeWorkDirectory()
      context.defer(() => work.remove())
      const image = await (link === NO_DELAY
        ? serveNear(pyLayout(), PY.tag, context)
        : serveLayout(pyLayout(), PY.tag, context.defer, link))
      return byContainerd(work.path, image)
    },
  }
}
