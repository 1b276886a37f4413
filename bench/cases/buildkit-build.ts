// A build on a lazy image: how long it takes to run one program of it.
import { makeWorkDirectory } from '../../test/e2e/engines/work-directory.ts'
import { BUILT, byBuildKit } from '../buildkit-build.ts'
import type { Case } from '../case.ts'
import { ALONE, STARGZ_GRPC } from '../containerd-start.ts'
import { serveLayout } from '../image.ts'
import { BY_EROFS } from '../product.ts'
import { PY, pyLayout } from '../py-image.ts'

export const buildKitBuild: Case = {
  name: 'buildkit-build',
  explains: `"buildctl build" of a Dockerfile that runs one command, a Python program that imports Flask, on an image of two layers and 68 MB in
    eStargz that says which files a start needs, over a link of 40 ms and 100 Mbit/s, with a new buildkitd (its OCI worker;
    LAZYLAYER_TEST_BUILDKIT) and a new snapshotter each turn. Requests and bytes are BuildKit's and the snapshotter's together. "overlayfs" is
    BuildKit's own snapshotter. stargz-snapshotter: LAZYLAYER_STARGZ_STORE; the image: LAZYLAYER_SAMPLES.`,
  link: { roundTripMs: 40, bytesPerSecond: 12.5e6 },
  rounds: 5,
  ratios: [
    { metric: BUILT, of: STARGZ_GRPC, over: BY_EROFS, atLeast: 1 },
    { metric: 'requests', of: STARGZ_GRPC, over: ALONE },
    { metric: 'MB down', of: STARGZ_GRPC, over: ALONE },
    { metric: BUILT, of: 'overlayfs', over: BY_EROFS },
  ],
  async prepare(context) {
    const work = await makeWorkDirectory()
    context.defer(() => work.remove())
    return byBuildKit(work.path, await serveLayout(pyLayout(), PY.tag, context.defer, context.link))
  },
}
