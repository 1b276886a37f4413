// What a running containerd says of its snapshotters: what it was configured with, which no file tells for certain.
import { createClient } from '@connectrpc/connect'
import { describe, Failure } from '../errors.ts'
import { containerdAt } from './containerd-calls.ts'
import { Introspection } from './generated/introspection_pb.ts'
import { Version } from './generated/version_pb.ts'

export interface SnapshotterPlugin {
  id: string
  exports: Readonly<Record<string, string>>
  capabilities: readonly string[]
  /** Why it cannot be used; undefined: it can. */
  failed: string | undefined
}

export interface RunningContainerd {
  version: string
  snapshotters: readonly SnapshotterPlugin[]
}

const CALL_MS = 5_000

/** @param address of its socket. @throws Failure unavailable */
export async function askContainerd(address: string): Promise<RunningContainerd> {
  const transport = containerdAt(address)
  const options = { timeoutMs: CALL_MS }
  try {
    const { version } = await createClient(Version, transport).version({}, options)
    const filters = ['type==io.containerd.snapshotter.v1']
    const { plugins } = await createClient(Introspection, transport).plugins({ filters }, options)
    const snapshotters = plugins.map(({ id, exports, capabilities, initErr }) => {
      return { id, exports, capabilities, failed: initErr?.message || undefined }
    })
    return { version, snapshotters }
  } catch (cause) {
    throw Failure.unavailable(`containerd does not answer at ${address}`, { why: describe(cause) })
  }
}
