// A build on an image in a registry that runs one program of it, by BuildKit's OCI worker: each time a new buildkitd, and a new snapshotter with
// an empty cache.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { BuildKit } from '../test/e2e/engines/buildkit.ts'
import type { Sample, Subject } from './case.ts'
import { ALONE, lazylayerSnapshotter, type SnapshotterKind, stargzSnapshotter } from './containerd-start.ts'
import type { Served } from './image.ts'
import { BY_EROFS } from './product.ts'
import { PY } from './py-image.ts'
import { usageOf } from './usage.ts'

export const BUILT = 'build s'

/** Those that are compared. @param work a WorkDirectory's path */
export function byBuildKit(work: string, image: Served): Subject[] {
  const kinds = [
    stargzSnapshotter,
    lazylayerSnapshotter(BY_EROFS, []),
    lazylayerSnapshotter(ALONE, ['--background', 'off']),
  ]
  return [
    { name: 'overlayfs', open: async () => () => build(work, image, undefined) },
    ...kinds.map((kind): Subject => {
      const { name, version } = kind
      return { name, ...(version === undefined ? {} : { version }), open: async () => () => build(work, image, kind) }
    }),
  ]
}

async function build(work: string, image: Served, kind: SnapshotterKind | undefined): Promise<Sample> {
  const path = await mkdtemp(join(work, 'b'))
  const caFile = join(path, 'registry.crt')
  await writeFile(caFile, image.certificate)
  const host = new URL(image.origin).host
  const socket = kind === undefined ? undefined : join(path, 's.sock')
  const snapshotter =
    kind === undefined || socket === undefined
      ? undefined
      : await kind.start(image, join(path, 'agent'), socket, BuildKit.addressIn(path))
  const trust = [{ host, caFile }]
  const name = kind === undefined ? 'overlayfs' : 'stargz'
  const buildKit = await BuildKit.start(path, { work, worker: { is: 'oci', socket }, name, trust })
  try {
    const before = {
      ...image.counters(),
      cpu: snapshotter === undefined ? 0 : (await usageOf(snapshotter.pid)).cpuSeconds,
    }
    const begin = performance.now()
    const { code, stderr } = await buildKit.build(
      `FROM ${host}/${image.repository}:${image.tag}\nRUN python3 /app/app.py\n`,
    )
    const seconds = (performance.now() - begin) / 1000
    if (code !== 0 || !stderr.includes(PY.says)) throw new Error(`the build ended with ${code}\n${stderr}`)
    const { requests, bytesDown } = image.counters()
    const usage = snapshotter === undefined ? undefined : await usageOf(snapshotter.pid)
    return {
      [BUILT]: seconds,
      requests: requests - before.requests,
      'MB down': (bytesDown - before.bytesDown) / 1e6,
      ...(usage === undefined ? {} : { 'cpu s': usage.cpuSeconds - before.cpu, 'peak MB': usage.peakMb }),
    }
  } finally {
    await buildKit.close()
    await snapshotter?.stop()
    await rm(path, { recursive: true, force: true })
  }
}
