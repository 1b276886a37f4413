// A store's agent: its mount, and the doors in it.
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe } from '../errors.ts'
import { DoorMount } from '../mount/door-mount.ts'
import { Doors } from '../mount/doors.ts'
import { Grafts } from '../mount/graft.ts'
import { COVER_RECORD, KernelMounts } from '../mount/kernel-mounts.ts'
import { chooseRung, type Rung, type RungChoice } from '../mount/ladder.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { MountSession } from '../mount/session.ts'
import { SNAPSHOTS_DIRECTORY } from '../snapshotter/shown-trees.ts'
import { askers, onlyRootAsks } from '../stores/asker.ts'
import type { DiffIdPolicy } from '../stores/diff-id-policy.ts'
import { AdditionalImageStore } from '../stores/image-store.ts'
import { AdditionalLayerStore } from '../stores/layer-store.ts'
import { LOOKUP_PATIENCE } from '../stores/patience.ts'
import { StandIns } from '../stores/stand-in.ts'
import { S_IFDIR } from '../tree/entry.ts'
import type { Agent } from './agent.ts'
import { places } from './agent-places.ts'
import type { ContainerdDoor, ContainerdDoorParts } from './containerd-door.ts'
import type { ContainerdSocket } from './containerd-sockets.ts'
import { beliefOf, diffIdTrust } from './diff-id-trust.ts'
import { FilledLayers } from './filled-layers.ts'
import { fills } from './fills.ts'
import { openGuard } from './guarding.ts'
import { listenHealth, type MetricsAddress } from './health.ts'
import { prepareImageDoor, type SharedParts } from './image-door.ts'
import { openRecorder } from './learning.ts'
import { log } from './log.ts'
import { proveFilled } from './prove-filled.ts'
import { healthOf } from './served-health.ts'
import { makeDirectory, prepareDirectory, refuseServed, type ServedMount, serveUntilEnd } from './serving.ts'
import { CLOSED, setAccess } from './store-access.ts'
import { choiceOf, holding, restoreTrees, stateOf, takeOver } from './takeover.ts'

export interface StoreSettings {
  root: string
  rung: Rung | 'auto'
  /** SELinux label of everything in the mounts. */
  context: string | undefined
  /** Who gets to the store. */
  mode: number
  /** Whose DiffIDs are trusted, and of which repositories (--trust). */
  diffId: DiffIdPolicy
  trust: readonly string[]
  /** Whether layers are named by their indexes, too. */
  byIndex: boolean
  /** Where containerd asks; none: it is not served. */
  containerd: readonly ContainerdSocket[]
  /** Where kubelet asks instead of containerd, so that its credentials are known; undefined: nowhere. */
  criProxy: { path: string; upstream: string } | undefined
  /** As `diffId`, of images that containerd pulls. */
  containerdDiffId: DiffIdPolicy
  /** Where monitoring asks; undefined: nowhere. */
  metrics: MetricsAddress | undefined
}

/** What nobody uses leaves that soon after it may. */
const LET_GO_EVERY_MS = 60_000
/** What waited for a successor is read by then. */
const AFTER_WAITING_MS = 2_000
/** What its agent says that it serves. */
const STORE = 'store'

/**
 * Serves until the mount ends, and closes the agent then.
 * @param ready called when engines may look
 * @returns the exit code
 * @throws Failure usage, system, unsupported: it was never ready, and the agent is open
 */
export async function serveStore(
  agent: Agent,
  settings: StoreSettings,
  ready: (root: string, rung: Rung) => void,
): Promise<number> {
  const { byIndex, diffId, trust, mode, context } = settings
  const belief = beliefOf(diffId, trust)
  const taken = await takeOver(agent, STORE)
  const health = settings.metrics && (await listenHealth(settings.metrics))
  if (health !== undefined) log(`metrics are at http://${health.address}/metrics`)
  const root = taken?.mounted.dir ?? (await prepareRoot(agent, settings))
  const choice: RungChoice =
    taken === undefined ? await chooseRung(settings.rung, agent.native, agent.store, places().sockets) : choiceOf(taken)
  if (choice.why !== undefined) log(`FUSE answers, not EROFS: ${choice.why}`)
  const standIns = await (taken?.below === undefined ? StandIns.open(root) : StandIns.below(taken.below))
  const trustsDiffIds = await diffIdTrust(belief, agent.registries, agent.store)
  const progress = () => progressOf(agent)
  const keepsApart = [diffId, ...(settings.containerd.length > 0 ? [settings.containerdDiffId] : [])].includes(
    'guarded',
  )
  const { guard, believed, end: endProofs } = await openGuard(agent, keepsApart, progress)
  const openImageDoor = await prepareImageDoor(agent, root, trustsDiffIds, taken !== undefined)
  agent.keeper.mounting(root)
  const doors = new Doors()
  const mounted = { serves: STORE, dir: root, session: root, ...choice }
  const sessionSettings = {
    dir: root,
    fsname: 'lazylayer',
    allowOther: true,
    rootSlot: null,
    control: doors,
    context,
    progress: agent.progress,
    ...holding(agent, taken?.state ?? stateOf(agent, mounted), standIns.fd),
  }
  const session =
    taken === undefined
      ? MountSession.mount(agent.native, sessionSettings)
      : MountSession.resume(agent.native, sessionSettings, taken.fuseFd)
  let isServing = taken === undefined
  session.addDirectory(ROOT_NODE, ROOT_NODE, '', { mode: S_IFDIR | mode, uid: 0, gid: 0, mtime: 0n }, false)
  const grafts = new Grafts(session, log, (mode & ~CLOSED) !== 0)
  const covers = choice.rung === 'erofs' ? new KernelMounts(agent.native, session, grafts, context) : undefined
  const imagesClosed = Promise.withResolvers<void>()
  const mount = new DoorMount({
    session,
    grafts,
    covers,
    ready: imagesClosed.promise,
    isServing: () => isServing,
    log,
  })
  if (taken !== undefined) {
    await covers?.adopt(taken.state.of(COVER_RECORD))
    await restoreTrees(mount, taken.state, agent)
  }
  const recorder = openRecorder(agent, covers)
  const filled =
    agent.background &&
    new FilledLayers({
      background: agent.background,
      async completed(slot, layer, image) {
        const mounted = recorder.over(layer.tree).then(() => mount.completed(slot))
        await Promise.all([mounted, proveFilled(layer, image, agent)])
      },
      log,
    })
  const prefetch: SharedParts['prefetch'] = async (image, layer) => {
    recorder.watch(image, layer)
    await agent.learned.prefetch(image, layer)
  }
  const shared = sharedParts(agent, mount, filled, { trustsDiffIds, byIndex, guard, progress, prefetch })
  const store = layerStore(agent, mount, standIns, shared, mode)
  doors.add(store)
  store.show(session)
  const imageDoor = openImageDoor(session, shared)
  doors.addSoon(imageDoor.then(({ door }) => door))
  const containerd = await openContainerd(agent, settings, session, { ...shared, guard })
  if (taken !== undefined) {
    await Promise.all([imageDoor, containerd?.show()])
    session.begin()
    isServing = true
  }
  // engines read there; what they do in the other door would be writing
  const readOnly = [AdditionalImageStore.DIRECTORY, ...(containerd === undefined ? [] : [SNAPSHOTS_DIRECTORY])]
  const closing = Promise.all(
    readOnly.map((each) =>
      session.closeDirectory(each).catch((error) => log(`${each} is not read-only: ${describe(error)}`)),
    ),
  ).then(() => imagesClosed.resolve())
  const { list, end } = await imageDoor
  await closing
  if (taken === undefined) await containerd?.show()
  await containerd?.listen()
  const lettingGo = setInterval(() => {
    store.letGo().catch((error) => log(`what nobody uses stays: ${describe(error)}`))
  }, LET_GO_EVERY_MS).unref()
  const { ended } = session
  const diffid = { policy: diffId, trust, only: !byIndex }
  const leave = async () => {
    health?.leaving()
    await containerd?.stop()
  }
  const served: ServedMount = {
    dir: root,
    session,
    covers,
    choice,
    agent,
    serves: STORE,
    diffid,
    list,
    fill: fills({ door: containerd, progress, patience: LOOKUP_PATIENCE, log }),
    ended,
    recorder,
    layers: () => mount.trees,
    calls: () => containerd?.calls() ?? [],
    believed,
    leave,
  }
  const told = health && (await healthOf(served))
  const metrics = async () => {
    if (health === undefined || told === undefined) return undefined
    const unready = await told.whyNotReady().catch(describe)
    return { address: health.address, ...(unready === undefined ? {} : { unready }) }
  }
  const code = await serveUntilEnd({ ...served, metrics }, () => {
    if (told !== undefined) health?.serving(told)
    if (taken === undefined) ready(root, choice.rung)
    else log(`goes on with ${root} and its ${mount.trees} trees`)
    // a tenth of a second, in which no read that waited for a successor would be answered
    setTimeout(() => agent.standBy(), taken === undefined ? 0 : AFTER_WAITING_MS).unref()
  })
  clearInterval(lettingGo)
  await health?.close()
  await containerd?.end()
  await end()
  await endProofs()
  await standIns.close()
  return code
}

/** Loaded only where it is asked for: other agents have no part of it in memory. */
async function openContainerd(
  agent: Agent,
  { containerd: sockets, containerdDiffId, trust, criProxy }: StoreSettings,
  session: MountSession,
  shared: SharedParts & Pick<ContainerdDoorParts, 'guard'>,
): Promise<ContainerdDoor | undefined> {
  if (sockets.length === 0) return undefined
  const belief = beliefOf(
    containerdDiffId,
    containerdDiffId === 'guarded' || containerdDiffId === 'claimed' ? trust : [],
  )
  const trustsDiffIds = await diffIdTrust(belief, agent.registries, agent.store)
  const { openContainerdDoor } = await import('./containerd-door.ts')
  return await openContainerdDoor({ ...shared, agent, session, sockets, trustsDiffIds, criProxy })
}

/** The directory to mount on, with what engines stat in it when nothing is mounted. */
async function prepareRoot({ native }: Agent, { root: wanted, mode }: StoreSettings): Promise<string> {
  await refuseServed(wanted)
  const root = await prepareDirectory(native, await makeDirectory(native, wanted, mode))
  const closed = await setAccess(root, mode, places().root)
  if (closed !== undefined)
    log(`--store-mode: other users do not get to the store, because ${closed} is closed to them`)
  // Engines stat this directory at every command: it must be there when the mount is not.
  await mkdir(join(root, AdditionalLayerStore.DIRECTORY), { recursive: true, mode: 0o755 })
  return root
}

function sharedParts(
  { examinations, left }: Agent,
  mount: DoorMount,
  filled: FilledLayers | undefined,
  rest: Pick<SharedParts, 'trustsDiffIds' | 'byIndex' | 'guard' | 'progress' | 'prefetch'>,
): SharedParts {
  return {
    async attach(layer, path, image) {
      const slot = await mount.attach(layer, path, image)
      filled?.shown(slot, layer, image)
      return slot
    },
    release(slot) {
      filled?.released(slot)
      mount.release(slot)
    },
    cover: mount.isCovering ? (layer, path) => mount.cover(layer, path) : undefined,
    uncover: (path) => mount.uncover(path),
    quarantine: examinations.quarantine,
    left,
    now: () => performance.now(),
    ...rest,
  }
}

/** A slow registry stands still, a busy processor does not. */
function progressOf({ registries, builder }: Agent): number {
  return builder.busy ? performance.now() : registries.counters().requests + registries.counters().fetched
}

function layerStore(
  { images, layers, examinations, store }: Agent,
  mount: DoorMount,
  standIns: StandIns,
  shared: SharedParts,
  mode: number,
): AdditionalLayerStore {
  return new AdditionalLayerStore({
    ...shared,
    images,
    layers,
    inUse: () => mount.inUse(),
    isFree: (slot, directory) => mount.isFree(slot, directory),
    async wholeBlob(layer, blob) {
      const file = await examinations.blob(blob)
      // all of it is here now, so what its tar is called costs no byte more
      examinations.verdict(layer, blob).catch((error) => log(`layer ${blob.digest}: not proven: ${describe(error)}`))
      return file
    },
    hint: (op, path) => mount.hint(op, path),
    async fileOf(bytes) {
      const file = await store.unnamed(bytes)
      return { fd: file.fd, close: () => file.close() }
    },
    asker: mode === CLOSED ? onlyRootAsks : askers(log),
    standIn: (path) => standIns.put(path),
    hasStandIn: (path) => standIns.has(path),
    log,
  })
}
