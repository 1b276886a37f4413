// containerd-stargz-grpc as containerd's users start it: the snapshotter of stargz-snapshotter, with its own defaults.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { answers, end } from '../test/e2e/engines/registry.ts'
import type { Served } from './image.ts'
import { detachBelow } from './mount.ts'
import { spawnStargz, stargzSnapshotterProgram } from './stargz-store.ts'

const READY_TIMEOUT_MS = 30_000
const POLL_MS = 10

export interface StargzSnapshotter {
  pid: number
  stop(): Promise<void>
}

/** @param dir below a WorkDirectory, so that containerd sees what is mounted in it */
export async function serveStargzSnapshotter(image: Served, dir: string, socket: string): Promise<StargzSnapshotter> {
  const root = join(dir, 'root')
  await mkdir(root, { recursive: true })
  const words = ['--root', root, '--address', socket, '--log-level', 'error']
  const { child, complaint } = await spawnStargz(stargzSnapshotterProgram(), words, image, dir)
  const stop = async () => {
    await end(child)
    await detachBelow(dir)
  }
  const deadline = performance.now() + READY_TIMEOUT_MS
  while (!(await answers(socket))) {
    if (child.exitCode !== null) throw new Error(`containerd-stargz-grpc ended: ${complaint()}`)
    if (performance.now() > deadline) {
      await stop()
      throw new Error('containerd-stargz-grpc did not listen')
    }
    await setTimeout(POLL_MS)
  }
  return { pid: child.pid as number, stop } // it was spawned, and execs
}
