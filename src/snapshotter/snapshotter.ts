// A snapshotter: what one containerd asks by one name. Requests to make a layer are answered with a lazy one where that can be shown;
// everything else is ordinary directories and overlays.
import { lstat } from 'node:fs/promises'
import { describe, Failure } from '../errors.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease } from '../layer/layer.ts'
import { parseFilters, wantedLabel } from './filters.ts'
import type { Folders, Owner } from './folders.ts'
import { hostRoot } from './mapping.ts'
import { type Mount, mountsOf, readyMounts, withoutRepeats } from './mounts.ts'
import type { LayerNames } from './names.ts'
import type { ParentsCheck } from './parents-check.ts'
import type { Pulls, Refused, Wanted } from './pulls.ts'
import { relabelled } from './relabelled.ts'
import type { Replacements } from './replacements.ts'
import type { ShownTrees } from './shown-trees.ts'
import {
  DIFF_ID,
  GID_MAPPING,
  isSameLayer,
  type Kind,
  type Labels,
  type LazyLayer,
  namespaceOf,
  REMOTE,
  type Snapshot,
  TARGET,
  UID_MAPPING,
  unpackedChain,
  withoutLabel,
  withoutMappings,
} from './snapshot.ts'
import type { Snapshots } from './snapshots.ts'
import { measure, type Usage } from './usage.ts'

export interface SnapshotterParts {
  snapshots: Snapshots
  folders: Folders
  /** A path that leads to these folders, in the mount that trees stand in. */
  besideTrees: string
  trees: Pick<ShownTrees, 'directoryOf' | 'has' | 'hold' | 'letGo' | 'bytesOf'>
  pulls: Pick<Pulls, 'find' | 'whyNeverUnpacked'>
  names: Pick<LayerNames, 'whyHidden'>
  replacements: Pick<Replacements, 'differs' | 'replace'>
  parents: Pick<ParentsCheck, 'check'>
  /** A promise's outcome, or Failure timeout when nothing progresses. The promise itself goes on. */
  patiently<T>(promise: Promise<T>): Promise<T>
  /** Options that this machine's overlays need. */
  overlayOptions: readonly string[]
  /** Is told of what containerd fetches itself: says each message once. */
  left: { leave(message: string, layers: number, why: unknown): void }
}

/** What a client asks to make. */
export interface Wish {
  key: string
  parent: string
  labels: Labels
  /** Whether the client says which namespace it is in with each request, not by keys alone. */
  tellsNamespace: boolean
}

/** `exists`: the layer is there, as a committed snapshot that the client finds by its target. */
export type Prepared = { is: 'mounts'; mounts: Mount[] } | { is: 'exists' }

/** Of a layer without parents. */
const BASE_OWNER: Owner = { uid: 0, gid: 0, mode: 0o755 }

export class Snapshotter {
  readonly #parts: SnapshotterParts
  /** Snapshots that were removed, until their directories are. */
  readonly #removed: Snapshot[] = []
  /** What committed layers take, which does not change. By ID. */
  readonly #usage = new Map<number, Usage>()

  constructor(parts: SnapshotterParts) {
    this.#parts = parts
  }

  /** @throws Failure exists, missing, unsupported, unavailable, limit, system */
  async prepare(wish: Wish): Promise<Prepared> {
    const { key, parent } = wish
    const labels = withoutLabel(wish.labels, REMOTE) // it is ours to say
    const target = labels[TARGET]
    this.#checkNew(key, parent)
    if (target === undefined) {
      await this.#checkUnpackable(key)
      return { is: 'mounts', mounts: await this.#make('active', { ...wish, labels }) }
    }
    const lazy = await this.#lazy({ ...wish, labels }, target)
    if (lazy !== undefined) return lazy
    return { is: 'mounts', mounts: await this.#make('active', { ...wish, labels: withoutMappings(labels) }) }
  }

  /** @throws Failure as `prepare` */
  async view({ key, parent, labels }: Omit<Wish, 'tellsNamespace'>): Promise<Mount[]> {
    this.#checkNew(key, parent)
    return await this.#make('view', { key, parent, labels: withoutLabel(labels, REMOTE) })
  }

  /** @throws Failure missing; unsupported: it is a layer; unavailable: a layer of it cannot be shown */
  mounts(key: string): Mount[] {
    const snapshot = this.#found(key)
    if (snapshot.kind === 'committed') throw Failure.unsupported(`snapshot ${key} is committed`)
    return this.#mountsOf(snapshot)
  }

  /** @throws Failure as Snapshots.commit */
  async commit(key: string, name: string, labels: Labels, parent: string): Promise<void> {
    await this.#parts.snapshots.commit(key, name, withoutLabel(labels, REMOTE), parent)
  }

  /** What is left of it goes when the client says `cleanup`. @throws Failure as Snapshots.remove */
  async remove(key: string): Promise<void> {
    this.#removed.push(await this.#parts.snapshots.remove(key))
  }

  /** @throws Failure missing */
  stat(key: string): Snapshot {
    return this.#found(key)
  }

  /** @param paths of what changes: `labels`, or `labels.<key>`; none: all labels. @throws Failure missing, usage, system */
  async update(key: string, labels: Labels, paths: readonly string[]): Promise<Snapshot> {
    return await this.#parts.snapshots.relabel(key, (before) => relabelled(before, labels, paths))
  }

  /**
   * @param namespace that the client says it is in; undefined: it says none, as the collector does, and is shown all
   * @throws Failure usage
   */
  list(filters: readonly string[], namespace: string | undefined): Iterable<Snapshot> {
    const { snapshots } = this.#parts
    const matches = parseFilters(filters)
    const targets = wantedLabel(filters, TARGET)
    if (targets === undefined) return snapshots.all().filter(matches)
    const isShown = ({ key }: Snapshot) => namespace === undefined || namespaceOf(key) === namespace
    return targets.flatMap((target) => snapshots.madeFor(target)).filter((each) => matches(each) && isShown(each))
  }

  /** @throws Failure missing */
  async usage(key: string): Promise<Usage> {
    const { kind, id, layer } = this.#found(key)
    const { trees, folders } = this.#parts
    if (layer !== undefined) return { bytes: await trees.bytesOf(layer.tree), inodes: 0 }
    const known = this.#usage.get(id)
    if (known !== undefined) return known
    const usage = await measure(folders.upperOf(id))
    if (kind === 'committed') this.#usage.set(id, usage)
    return usage
  }

  /** Lets go of what was removed: directories go behind this. */
  async cleanup(): Promise<void> {
    const { trees, folders } = this.#parts
    for (const { id, layer } of this.#removed.splice(0)) {
      this.#usage.delete(id)
      if (layer === undefined) await folders.remove(id)
      else trees.letGo(layer.tree)
    }
  }

  /** Makes a layer without its bytes, where that can be done; undefined: it cannot be, which is logged. */
  async #lazy(wish: Wish, target: string): Promise<Prepared | undefined> {
    const { pulls, replacements, patiently, left } = this.#parts
    let wanted: Wanted | Refused
    try {
      wanted = await patiently(pulls.find(namespaceOf(wish.key), target, wish.labels))
    } catch (error) {
      left.leave(`a layer for ${target} is left to containerd: ${describe(error)}`, 1, error)
      return undefined
    }
    if ('refused' in wanted) throw Failure.unsupported('this image cannot be pulled', { why: wanted.refused })
    const { pulled, place, chain } = wanted
    const namespace = namespaceOf(wish.key)
    // what stands below may be another image's, which containerd has under the same chain
    const below = chain.slice(0, place)
    if (replacements.differs(namespace, below, pulled.said)) void replacements.replace(namespace, pulled, below) // never rejects
    const giving = new AbortController()
    try {
      const { signal } = giving
      this.#checkPlace(wish.parent, wanted)
      return await patiently(
        pulled.use(place, ({ layer, lease }) => {
          const show = { layer, lease, image: pulled.image }
          return this.#show(wish, target, show, signal)
        }),
      )
    } catch (error) {
      giving.abort() // who was answered otherwise must not find it later
      if (error instanceof Failure && error.code === 'exists') throw error
      const never = pulled.whyNeverUnpacked(place)
      const what = `layer ${pulled.image.manifest.layers[place]?.digest}`
      if (never !== undefined) throw Failure.unsupported(`${what} cannot be shown: ${describe(error)}`, { why: never })
      left.leave(`${what} is left to containerd: ${describe(error)}`, 1, error)
      return undefined
    }
  }

  async #show(
    { key, parent, labels, tellsNamespace }: Wish,
    target: string,
    { layer, lease, image }: { layer: LazyLayer; lease: LayerLease; image: ResolvedImage },
    signal: AbortSignal,
  ): Promise<Prepared | undefined> {
    const { snapshots, trees } = this.#parts
    const all = { ...withoutMappings(labels), [REMOTE]: 'true' }
    await trees.hold(lease, image)
    try {
      signal.throwIfAborted()
      if (labels[DIFF_ID] !== undefined) {
        const made = await snapshots.add({ key, kind: 'active', parent, labels: all, id: snapshots.reserve(), layer })
        return { is: 'mounts', mounts: readyMounts(this.#lowerOf(snapshots.chain(made))) }
      }
      const name = nameOf(namespaceOf(key), target, parent, layer)
      const others = snapshots.madeFor(target).filter((each) => each.parent === parent && each.key !== name)
      // who does not say its namespace is shown them, too, and takes the first that it sees
      if (!tellsNamespace && others.some(({ layer: other }) => !isSameLayer(other, layer)))
        throw Failure.unsupported('another namespace has another layer for the same target')
      if (snapshots.get(name) === undefined)
        await snapshots.add({ key: name, kind: 'committed', parent, labels: all, id: snapshots.reserve(), layer })
      else trees.letGo(layer.tree) // it is held once already
      return { is: 'exists' }
    } catch (error) {
      trees.letGo(layer.tree)
      throw error
    }
  }

  /** That a client which unpacks a layer itself gets what its image means by it. @throws Failure unsupported */
  async #checkUnpackable(key: string): Promise<void> {
    const chain = unpackedChain(key)
    if (chain === undefined) return
    const { pulls } = this.#parts
    const finding = pulls.whyNeverUnpacked(namespaceOf(key), chain)
    const why = await this.#parts.patiently(finding).catch(() => undefined) // then nothing is known of it
    if (why === undefined) return
    throw Failure.unsupported(`this image cannot be pulled by a client that asks for no lazy layers`, {
      why,
      fix: 'Pull it through CRI, or with a containerd of 2.1 or later.',
    })
  }

  /** That a layer stands where its image has it. @throws Failure unsupported */
  #checkPlace(parent: string, { place, chain }: Wanted): void {
    const below = parent === '' ? undefined : this.#found(parent).labels[TARGET]
    if (below === chain[place - 1]) return
    throw Failure.unsupported(`it is to stand on ${below ?? 'nothing'}, and stands on ${chain[place - 1] ?? 'nothing'}`)
  }

  #checkNew(key: string, parent: string): void {
    if (this.#parts.snapshots.get(key) !== undefined) throw Failure.exists(`snapshot ${key} is there already`)
    if (parent !== '' && this.#found(parent).kind !== 'committed')
      throw Failure.unsupported(`parent ${parent} is not committed`)
  }

  /** An ordinary one. */
  async #make(kind: Exclude<Kind, 'committed'>, wish: Pick<Wish, 'key' | 'parent' | 'labels'>): Promise<Mount[]> {
    const { snapshots, folders, parents } = this.#parts
    const { key, parent, labels } = wish
    if (labels[TARGET] === undefined && parent !== '') await parents.check(namespaceOf(key), parent)
    const id = snapshots.reserve()
    await folders.make(id, this.#ownerOf(parent, labels))
    try {
      const made = await snapshots.add({ key, kind, parent, labels, id })
      return this.#mountsOf(made)
    } catch (error) {
      if (snapshots.get(key)?.id !== id) await folders.remove(id)
      throw error
    }
  }

  /** The root of a container is as its image has it; in a user namespace it is its root's. */
  async #ownerOf(parent: string, labels: Labels): Promise<Owner> {
    const owner = parent === '' ? BASE_OWNER : await this.#rootOf(this.#found(parent))
    const uids = labels[UID_MAPPING]
    const gids = labels[GID_MAPPING]
    return {
      mode: owner.mode,
      uid: uids === undefined ? owner.uid : hostRoot(uids),
      gid: gids === undefined ? owner.gid : hostRoot(gids),
    }
  }

  async #rootOf(parent: Snapshot): Promise<Owner> {
    this.#checkShown([parent])
    const { uid, gid, mode } = await lstat(this.#directoryOf(parent))
    return { uid, gid, mode: mode & 0o7777 }
  }

  #mountsOf(snapshot: Snapshot): Mount[] {
    const { folders, besideTrees, snapshots, overlayOptions } = this.#parts
    const { id, kind, labels, layer } = snapshot
    const chain = snapshots.chain(snapshot)
    if (layer !== undefined) return readyMounts(this.#lowerOf(chain))
    const below = chain.slice(1)
    // what is unpacked on a layer is no container of it
    if (labels[TARGET] === undefined) this.#checkNotHidden(below)
    const mapping = Object.entries({ uidmap: labels[UID_MAPPING], gidmap: labels[GID_MAPPING] })
    const mapped = mapping.flatMap(([option, value]) => (value === undefined ? [] : [`${option}=${value}`]))
    // containerd 2.1 and 2.2 map users of one directory that all others are in, and take the container's own for one of them where they read only
    const isBesideTrees = mapped.length > 0 && below.length > 0 && below.every((each) => each.layer !== undefined)
    return mountsOf({
      lower: kind === 'view' && below.length === 0 ? [folders.upperOf(id)] : this.#lowerOf(below),
      own: kind === 'view' ? undefined : folders.ownOf(id, isBesideTrees ? besideTrees : undefined),
      overlay: overlayOptions,
      mapped,
    })
  }

  #lowerOf(chain: readonly Snapshot[]): string[] {
    this.#checkShown(chain)
    return withoutRepeats(chain.map((each) => this.#directoryOf(each)))
  }

  #directoryOf({ id, layer }: Snapshot): string {
    const { trees, folders } = this.#parts
    return layer === undefined ? folders.upperOf(id) : trees.directoryOf(layer.tree)
  }

  /** @throws Failure unavailable */
  #checkShown(chain: readonly Snapshot[]): void {
    const missing = chain.find(({ layer }) => layer !== undefined && !this.#parts.trees.has(layer.tree))?.layer
    if (missing === undefined) return
    throw Failure.unavailable(`layer ${missing.blob} of ${missing.reference} cannot be shown now`, {
      why: 'it is not in the cache any more, and was not fetched again yet',
      fix: 'Look into the log of lazylayer for the reason.',
    })
  }

  /** @throws Failure unavailable */
  #checkNotHidden(chain: readonly Snapshot[]): void {
    for (const { layer } of chain) {
      const why = layer && this.#parts.names.whyHidden(layer)
      if (layer !== undefined && why !== undefined)
        throw Failure.unavailable(`layer ${layer.blob} of ${layer.reference} is not given to containers`, { why })
    }
  }

  #found(key: string): Snapshot {
    const found = this.#parts.snapshots.get(key)
    if (found === undefined) throw Failure.missing(`there is no snapshot ${key}`)
    return found
  }
}

/** A name that tells what it shows, and on what: nobody else's snapshot has it. */
function nameOf(namespace: string, target: string, parent: string, { blob, index, tree }: LazyLayer): string {
  const shows: Digest = digestOf(new TextEncoder().encode(JSON.stringify([parent, blob, index, tree])))
  return `${namespace}/${target}/${shows}`
}
