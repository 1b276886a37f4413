// The snapshots service as containerd calls it: requests and answers of the wire, for the snapshotters of one socket. Each answer has a
// deadline of its own, because the callers set none, and hold locks that stop a whole node.
import { create } from '@bufbuild/protobuf'
import { timestampFromMs } from '@bufbuild/protobuf/wkt'
import { Code, ConnectError, type ConnectRouter } from '@connectrpc/connect'
import { describe, Failure, type Code as FailureCode } from '../errors.ts'
import type { CallCode, CallTimes } from './call-times.ts'
import { NAMESPACE } from './containerd-calls.ts'
import { type Mount as MountMessage, MountSchema } from './generated/mount_pb.ts'
import { type Info, InfoSchema, Snapshots as Service } from './generated/snapshots_pb.ts'
import type { Mount } from './mounts.ts'
import { KINDS, type Snapshot, TARGET } from './snapshot.ts'
import type { Snapshotter } from './snapshotter.ts'

/** Who answers for a name; throws Failure where nobody does. */
export type FindSnapshotter = (
  name: string,
) => Pick<
  Snapshotter,
  'prepare' | 'view' | 'mounts' | 'commit' | 'remove' | 'stat' | 'update' | 'list' | 'usage' | 'cleanup'
>

/** Of what waits for nothing but the disk. */
const ANSWER_MS = 20_000
/** What a container stands on may be proven first. kubelet waits two minutes for a container. */
const CONTAINER_MS = 60_000
/** A layer may be fetched whole meanwhile; that ends when nothing comes (patience.ts), and this is the net below. kubelet waits as long as a pull goes on. */
const PREPARE_MS = 20 * 60_000
/** containerd's own service sends so many. */
const INFOS_AT_ONCE = 100

const CODES: Readonly<Record<FailureCode, Code>> = {
  usage: Code.InvalidArgument,
  missing: Code.NotFound,
  exists: Code.AlreadyExists,
  denied: Code.PermissionDenied,
  unsupported: Code.FailedPrecondition,
  corrupt: Code.FailedPrecondition,
  limit: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
  timeout: Code.Unavailable,
  aborted: Code.Unavailable,
  system: Code.Internal,
}

/** @param log is told of what fails for a reason that is none of the client's */
export function snapshotsRoutes(
  find: FindSnapshotter,
  log: (message: string) => void,
  times: Pick<CallTimes, 'note'>,
): (router: ConnectRouter) => void {
  const answer = async <T>(call: string, key: string, work: () => T | Promise<T>, ms = ANSWER_MS): Promise<T> => {
    const begun = performance.now()
    const note = (code: CallCode) => times.note(call, code, (performance.now() - begun) / 1000)
    try {
      const answered = await within(Promise.try(work), ms)
      note('ok')
      return answered
    } catch (error) {
      const code = error instanceof Failure ? CODES[error.code] : Code.Internal
      const isOurs = code === Code.Internal || code === Code.Unavailable
      note(isOurs ? 'failed' : 'refused')
      if (isOurs) log(`${call} ${key}: ${describe(error)}`)
      throw new ConnectError(describe(error), code) // what clients switch on, and people read
    }
  }
  return (router) => {
    router.service(Service, {
      async prepare({ snapshotter, key, parent, labels }, { requestHeader }) {
        const tellsNamespace = requestHeader.get(NAMESPACE) !== null
        const prepare = () => find(snapshotter).prepare({ key, parent, labels, tellsNamespace })
        const prepared = await answer('Prepare', key, prepare, labels[TARGET] === undefined ? CONTAINER_MS : PREPARE_MS)
        if (prepared.is === 'exists') throw new ConnectError(`the layer for ${key} is there`, Code.AlreadyExists)
        return { mounts: prepared.mounts.map(messageOf) }
      },
      view: ({ snapshotter, key, parent, labels }) =>
        answer(
          'View',
          key,
          async () => ({ mounts: (await find(snapshotter).view({ key, parent, labels })).map(messageOf) }),
          CONTAINER_MS,
        ),
      mounts: ({ snapshotter, key }) =>
        answer('Mounts', key, () => ({ mounts: find(snapshotter).mounts(key).map(messageOf) })),
      commit: ({ snapshotter, key, name, labels, parent }) =>
        answer('Commit', key, async () => {
          await find(snapshotter).commit(key, name, labels, parent)
          return {}
        }),
      remove: ({ snapshotter, key }) =>
        answer('Remove', key, async () => {
          await find(snapshotter).remove(key)
          return {}
        }),
      stat: ({ snapshotter, key }) => answer('Stat', key, () => ({ info: infoOf(find(snapshotter).stat(key)) })),
      update: ({ snapshotter, info, updateMask }) =>
        answer('Update', info?.name ?? '', async () => {
          const { name = '', labels = {} } = info ?? {}
          return { info: infoOf(await find(snapshotter).update(name, labels, updateMask?.paths ?? [])) }
        }),
      async *list({ snapshotter, filters }, { requestHeader }) {
        const namespace = requestHeader.get(NAMESPACE) ?? undefined
        const found = await answer('List', '', () => find(snapshotter).list(filters, namespace))
        let info: Info[] = []
        for (const each of found) {
          info.push(infoOf(each))
          if (info.length < INFOS_AT_ONCE) continue
          yield { info }
          info = []
        }
        if (info.length > 0) yield { info }
      },
      usage: ({ snapshotter, key }) =>
        answer('Usage', key, async () => {
          const { bytes, inodes } = await find(snapshotter).usage(key)
          return { size: BigInt(bytes), inodes: BigInt(inodes) }
        }),
      cleanup: ({ snapshotter }) =>
        answer('Cleanup', '', async () => {
          await find(snapshotter).cleanup()
          return {}
        }),
    })
  }
}

async function within<T>(work: Promise<T>, ms: number): Promise<T> {
  const late = Promise.withResolvers<never>()
  // a timer that is cleared costs a tenth of a signal that is aborted, which takes down where that was
  const timer = setTimeout(() => late.reject(Failure.timeout(`not done after ${ms} ms`)), ms)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

function messageOf({ type, source, options }: Mount): MountMessage {
  return create(MountSchema, { type, source, options: [...options] })
}

function infoOf({ key, parent, kind, createdAt, updatedAt, labels }: Snapshot): Info {
  return create(InfoSchema, {
    name: key,
    parent,
    kind: KINDS.indexOf(kind) + 1, // 0 is unknown
    createdAt: timestampFromMs(createdAt),
    updatedAt: timestampFromMs(updatedAt),
    labels,
  })
}
