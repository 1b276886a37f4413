// The snapshotters of `serve --containerd`: on each socket one a name, with the snapshots that it had, and beside the stores of other engines
// in the same mount. Loaded only where it is asked for.
import { mkdir, readFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import type { MountSession } from '../mount/session.ts'
import { inUserNamespace } from '../mount/user-namespace.ts'
import { type CallDurations, CallTimes } from '../snapshotter/call-times.ts'
import { ContentStore } from '../snapshotter/content-store.ts'
import { ContentWriter } from '../snapshotter/content-writer.ts'
import { type CriProxyParts, serveCriProxy } from '../snapshotter/cri-proxy.ts'
import { type FilledImage, type FillParts, fillImage } from '../snapshotter/fill.ts'
import { Folders } from '../snapshotter/folders.ts'
import { type GrpcSocket, listenGrpc } from '../snapshotter/grpc-socket.ts'
import { ImageEvents } from '../snapshotter/image-events.ts'
import { ImageFinder } from '../snapshotter/image-finder.ts'
import { ImageWatch } from '../snapshotter/image-watch.ts'
import { ParentsCheck } from '../snapshotter/parents-check.ts'
import { PresentImages } from '../snapshotter/present-images.ts'
import { Pulls } from '../snapshotter/pulls.ts'
import { readBack, readLeft } from '../snapshotter/read-back.ts'
import { RegistryPorts } from '../snapshotter/registry-ports.ts'
import { Replacements } from '../snapshotter/replacements.ts'
import { snapshotsRoutes } from '../snapshotter/routes.ts'
import { ShownTrees } from '../snapshotter/shown-trees.ts'
import type { LazyLayer } from '../snapshotter/snapshot.ts'
import { Snapshots } from '../snapshotter/snapshots.ts'
import { Snapshotter } from '../snapshotter/snapshotter.ts'
import type { ToldPull } from '../snapshotter/told-pull.ts'
import type { Store } from '../store/store.ts'
import type { TrustsDiffIds } from '../stores/identity.ts'
import { type Patience, patiently } from '../stores/patience.ts'
import type { Agent } from './agent.ts'
import { ContainerdNames, type ContainerdNamesParts } from './containerd-names.ts'
import type { ContainerdSocket } from './containerd-sockets.ts'
import { folderOf } from './containerd-sockets.ts'
import type { SharedParts } from './image-door.ts'
import { log } from './log.ts'
import { containerdHosts } from './open-registries.ts'

export interface ContainerdDoorParts
  extends Pick<SharedParts, 'attach' | 'release' | 'uncover' | 'cover' | 'prefetch' | 'left'> {
  guard: ContainerdNamesParts['guard']
  agent: Agent
  session: MountSession
  sockets: readonly ContainerdSocket[]
  trustsDiffIds: TrustsDiffIds
  /** Undefined: kubelet is not asked to tell its credentials. */
  criProxy: Pick<CriProxyParts, 'path' | 'upstream'> | undefined
}

export interface ContainerdDoor {
  /** Shows again what snapshots showed. To be called once, before `listen`. */
  show(): Promise<void>
  /** Begins to answer; the directory of trees must be read-only by then. @throws Failure system */
  listen(): Promise<void>
  /**
   * Brings what an image lacks into the content store of each containerd that has it.
   * @param names what it may be called there
   * @param namespace undefined: each that has a lazy layer
   * @throws Failure missing: none has it; as fillImage
   */
  fill(names: readonly string[], namespace: string | undefined): Promise<FilledImage[]>
  /** How long calls took to be answered. */
  calls(): readonly CallDurations[]
  /** Takes nothing new, and ends what is under way within a second. */
  stop(): Promise<void>
  /** For when the mount is gone. Never rejects. */
  end(): Promise<void>
}

/**
 * A client waits as long as its pull does, but not for a registry that brings nothing: what is left to containerd then it asks for itself.
 * In all: a layer of 10 GB at 100 Mbit/s, which is fetched whole.
 */
const PREPARE_PATIENCE: Patience = { stallMs: 20_000, totalMs: 15 * 60_000 }

/** Shows the directory of trees, in a mount whose layers nobody has covered yet. @throws Failure system, usage */
export async function openContainerdDoor(parts: ContainerdDoorParts): Promise<ContainerdDoor> {
  const { agent, session, sockets, attach, release, uncover, cover = async () => {}, guard } = parts
  const { images, layers, examinations, store, platform, registries, builder } = agent
  const { trustsDiffIds } = parts
  const { quarantine } = examinations
  const names = new ContainerdNames({ guard, quarantine, trustsDiffIds, layers, log })
  const trees = new ShownTrees({ root: session.dir, attach, release, uncover, cover }, session)
  const overlayOptions = await optionsOfOverlays()
  const ports = new RegistryPorts(containerdHosts())
  const state = join(dirname(session.dir), 'containerd') // beside the mount, which it must outlive
  await mkdir(state, { recursive: true, mode: 0o711 })
  // not requests: one that is tried again brings nothing
  const progress = () => (builder.busy ? performance.now() : registries.counters().fetched)
  const opened = await Promise.all(
    sockets.map(async (socket) => {
      const contents = new ContentStore(socket.address)
      const finder = new ImageFinder(contents, ports)
      const keepObject: Store['putObject'] = (digest, bytes) => store.putObject(digest, bytes)
      const pulls = new Pulls({ finder, images, keepObject, layers, names, prefetch: parts.prefetch, log })
      const byName = new Map<string, Snapshotter>()
      const all: Snapshots[] = []
      const replacing: Replacements[] = []
      const present = new PresentImages()
      const source = new ImageEvents(socket.address)
      const watching = { source, present, finder, pulls, replacements: replacing, platform, layers }
      const watch = new ImageWatch({ ...watching, signal: layers.signal, log })
      for (const name of socket.names) {
        const folder = folderOf(state, socket.path, name)
        await mkdir(folder, { recursive: true, mode: 0o711 })
        const snapshots = await Snapshots.open(join(folder, 'records'), log)
        const ids = new Set([...snapshots.all()].flatMap(({ id, layer }) => (layer === undefined ? [id] : [])))
        const unknown = snapshots.isDamaged ? 'is kept' : 'is removed'
        const folders = await Folders.open(join(folder, 'snapshots'), (id) => ids.has(id), unknown, log)
        const waits = <T>(promise: Promise<T>) => patiently(promise, progress, PREPARE_PATIENCE)
        const replacements = new Replacements({ snapshots, trees, names, log })
        replacing.push(replacements)
        const checking = { snapshots, images: watch, present, contents, pulls, replacements, names, log }
        const parents = new ParentsCheck(checking)
        const besideTrees = trees.link(`${basename(dirname(folder))}-${name}`, join(folder, 'snapshots'))
        const rest = { trees, replacements, parents, pulls, names, patiently: waits, overlayOptions, left: parts.left }
        byName.set(name, new Snapshotter({ snapshots, folders, besideTrees, ...rest }))
        all.push(snapshots)
      }
      const filling: FillParts = {
        finder,
        contents,
        sink: new ContentWriter(socket.address),
        platform,
        resolve: (found) => pulls.resolve(found),
        wholeBlob: (blob) => examinations.blob(blob),
      }
      return { socket, byName, all, pulls, watch, source, replacing, filling }
    }),
  )
  const layersNow = () =>
    opened.flatMap(({ all }) => all.flatMap((each) => [...each.all()].flatMap(({ layer }) => layer ?? [])))
  const reading = { images, layers, trees, names, layersNow, signal: layers.signal, log }
  const listening: GrpcSocket[] = []
  const times = new CallTimes()
  let left: LazyLayer[] = []
  const told = async ({ reference, credentials }: ToldPull) => {
    ports.note(reference)
    if (credentials !== undefined) await agent.registries.remember(reference, credentials)
  }
  return {
    async show() {
      left = await readBack(reading)
    },
    async listen() {
      void readLeft(left, reading) // never rejects
      for (const { socket, byName, watch } of opened) {
        void watch.run() // never rejects
        const find = (name: string) => {
          const found = byName.get(name)
          if (found !== undefined) return found
          throw Failure.missing(`nobody is called ${JSON.stringify(name)} at ${socket.path}`, {
            fix: `Serve it as --containerd ${name}=${socket.path}.`,
          })
        }
        listening.push(await listenGrpc(socket.path, snapshotsRoutes(find, log, times)))
      }
      if (parts.criProxy !== undefined) listening.push(await serveCriProxy({ ...parts.criProxy, told }))
    },
    async fill(names, namespace) {
      const filled: FilledImage[] = []
      for (const { source, replacing, filling } of opened) {
        const all = new Set(replacing.flatMap((each) => [...each.namespaces()]))
        for (const each of namespace === undefined ? all : [namespace]) {
          const target = await firstOf(names, (name) => source.named(each, name))
          if (target !== undefined) filled.push(await fillImage(target, filling, layers.signal))
        }
      }
      if (filled.length > 0) return filled
      const where = namespace === undefined ? 'that has a lazy image' : namespace
      throw Failure.missing(`containerd has no image ${names[0]} in a namespace ${where}`)
    },
    calls: () => times.all(),
    async stop() {
      await Promise.all(listening.splice(0).map((each) => each.close()))
    },
    async end() {
      for (const { all, pulls } of opened) {
        await pulls.close()
        for (const each of all) await each.close().catch(() => {}) // all of it is on disk
      }
    },
  }
}

/** What every overlay is mounted with here, as containerd's own snapshotter has it. */
async function optionsOfOverlays(): Promise<string[]> {
  const index = await readFile('/sys/module/overlay/parameters/index', 'utf8').catch(() => 'N') // not loaded yet: the default
  return [...(index.startsWith('Y') ? ['index=off'] : []), ...(inUserNamespace() ? ['userxattr'] : [])]
}

async function firstOf<T, R>(all: readonly T[], find: (one: T) => Promise<R | undefined>): Promise<R | undefined> {
  for (const one of all) {
    const found = await find(one)
    if (found !== undefined) return found
  }
  return undefined
}
