// What a door needs of a mount: layers shown at paths from its root, by FUSE and, where that is done, by the kernel over it; and an end
// to that, when nobody uses them any more. As long as a layer is shown, or the kernel reads it, it is held open.
//
//   attach ──▶ shown ──release──▶ leaving ──the kernel has let go──▶ gone: tree, device, descriptors
//                ▲──attach again──┘
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import { type KeptPlace, placeOfLayer } from '../layer/reopen.ts'
import type { Grafts } from './graft.ts'
import type { KernelMounts } from './kernel-mounts.ts'
import { lowerDirsBelow } from './overlays.ts'
import type { MountSession } from './session.ts'
import { DEVICE_RECORD } from './shown-devices.ts'

/** In a session's state: what is shown in that slot. */
export const TREE_RECORD = 'tree '

/** Such a record. */
export interface ShownTree extends KeptPlace {
  path: readonly string[]
}

function shownTree(layer: OpenLayer, path: readonly string[], image: ResolvedImage): ShownTree {
  return { path, ...placeOfLayer(layer, image) }
}

/** The kernel lets go of what it was told to within so many milliseconds, if nobody uses it; looked at after each. */
const FORGOTTEN_AFTER_MS = [1, 5, 20, 100]
/** Those that are released together leave together. */
const SOON_MS = 50
/** What is still used is looked at again. */
const AGAIN_MS = 30_000
/** That many are looked at at once. */
const AT_ONCE = 64
/** More sources of one layer are all the same registry. */
const LEASES_MAX = 4

export interface DoorMountParts {
  session: Pick<MountSession, 'dir' | 'invalidate' | 'isTreeKnown'> & { state?: MountSession['state'] }
  grafts: Pick<Grafts, 'layer' | 'devicesOf' | 'remove'>
  /** Undefined: FUSE alone answers. */
  covers: KernelMounts | undefined
  /** Resolves when nothing is mounted any more over what is covered. */
  ready: Promise<void>
  /** Whether requests are answered; default: they are. */
  isServing?: () => boolean
  /** The lower directories of overlays below a directory. */
  lowerDirs?: (dir: string) => Promise<Set<string>>
  log(message: string): void
}

/** A layer that is shown, or was. */
interface Shown {
  readonly path: readonly string[]
  readonly tree: Digest
  /** Of the layers that build this tree; at least one. */
  readonly leases: LayerLease[]
  /** How often it was attached, less how often released. */
  holders: number
}

export class DoorMount {
  readonly #parts: DoorMountParts
  readonly #lowerDirs: (dir: string) => Promise<Set<string>>
  /** By slot. */
  readonly #shown = new Map<number, Shown>()
  readonly #leaving = new Set<number>()
  /** Slots that the kernel may know from a process that is gone: nobody knows how often that told it of them. */
  readonly #lasting = new Set<number>()
  #due: { at: number; timer: NodeJS.Timeout } | undefined
  /** One look at a time, and one that comes after it for whoever asks meanwhile. */
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined

  constructor(parts: DoorMountParts) {
    this.#parts = parts
    this.#lowerDirs = parts.lowerDirs ?? lowerDirsBelow
  }

  /** Layers that are held open. */
  get size(): number {
    return this.#shown.size
  }

  /** Trees that are shown. */
  get trees(): number {
    return new Set([...this.#shown.values()].map(({ tree }) => tree)).size
  }

  /** Whether the kernel answers for layers, not FUSE alone. */
  get isCovering(): boolean {
    return this.#parts.covers !== undefined
  }

  /**
   * Makes a layer's tree answer at a path from the root, and holds the layer open; the names of that path are the door's.
   * @param layer open until this resolves
   * @param image of which it is a layer, for a process that goes on with the mount
   * @returns its slot there, to be released as often as it is attached
   */
  async attach(layer: LayerLease, path: readonly string[], image?: ResolvedImage): Promise<number> {
    const name = path.join('/')
    const { slot } = await layer.numbersAs(name)
    // held before it is grafted: what is leaving stays, or is gone already and grafted anew
    const shown = this.#shown.get(slot) ?? { path, tree: layer.tree, leases: [], holders: 0 }
    this.#shown.set(slot, shown)
    this.#leaving.delete(slot)
    shown.holders++
    const isHeld = shown.leases.some(({ descriptor }) => descriptor.digest === layer.descriptor.digest)
    if (!isHeld && shown.leases.length < LEASES_MAX) shown.leases.push(layer.again())
    if (image !== undefined) this.#parts.session.state?.set(`${TREE_RECORD}${slot}`, shownTree(layer, path, image))
    try {
      return await this.#parts.grafts.layer(layer, name)
    } catch (error) {
      this.release(slot)
      throw error
    }
  }

  /** Answers again for a tree that a process which is gone attached, as long as this mount is. Its numbers are those of then. */
  async restore(layer: LayerLease, path: readonly string[]): Promise<void> {
    const slot = await this.attach(layer, path)
    this.#lasting.add(slot)
    const { covers, session } = this.#parts
    // whatever other names show this tree: mounts that containers hold are made of its device
    if (session.state?.get(`${DEVICE_RECORD}${layer.tree}`) !== undefined) covers?.devices.path(layer)
  }

  /** Nothing shows it any more, under its names: it goes when the kernel has let go of it. */
  release(slot: number): void {
    const shown = this.#shown.get(slot)
    if (shown === undefined || --shown.holders > 0) return
    this.#leaving.add(slot)
    this.#lookIn(SOON_MS)
  }

  /** The paths from the root of layers that overlays are made of. @throws what reading the mount table throws */
  async inUse(): Promise<Set<string>> {
    const { dir } = this.#parts.session
    return new Set([...(await this.#lowerDirs(dir))].map((each) => each.slice(dir.length + 1)))
  }

  /**
   * Whether nobody uses a layer that `inUse` does not name either; its kernel mount is gone then. Otherwise it stays as it is.
   * @param directory the node of the directory that it is shown in
   */
  async isFree(slot: number, directory: bigint): Promise<boolean> {
    const shown = this.#shown.get(slot)
    const name = shown?.path.at(-1)
    if (shown === undefined || name === undefined) return true
    const { session, covers } = this.#parts
    if (covers !== undefined && !(await covers.release(this.#target(shown.path)))) return false
    session.invalidate(directory, name)
    if (await this.#isForgotten(slot)) return true
    const [layer] = shown.leases
    if (layer !== undefined) void this.cover(layer, shown.path)
    return false
  }

  /** Mounts a layer that was just grafted in the kernel, where that is done; resolves when it is, or is not, which is logged. */
  async cover(layer: OpenLayer, path: readonly string[]): Promise<void> {
    const { covers, ready, log } = this.#parts
    if (covers === undefined) return
    if (!(this.#parts.isServing?.() ?? true)) {
      // whoever waits for this is waited for by the requests that its mount would wait for
      if (!covers.isAdopted(this.#target(path), layer)) void ready.then(() => this.cover(layer, path))
      return
    }
    await ready // what is mounted before lies below
    const why = await covers.cover(layer, this.#target(path))
    if (why !== undefined) log(`layer ${layer.descriptor.digest}: FUSE answers, not EROFS: ${why}`)
  }

  /** All of a layer is here. @throws what unmounting throws */
  async completed(slot: number): Promise<void> {
    const shown = this.#shown.get(slot)
    if (shown !== undefined) await this.#parts.covers?.renew(this.#target(shown.path))
  }

  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void {
    this.#parts.covers
      ?.uncover(this.#target(path))
      .catch((error) => this.#parts.log(`${path.join('/')}: it stays mounted: ${describe(error)}`))
  }

  /** An engine says that it takes the layer at this path into use, or drops it. */
  hint(op: 'use' | 'drop', path: readonly string[]): void {
    this.#parts.covers
      ?.hint(op, this.#target(path))
      .catch((error) => this.#parts.log(`${path.join('/')}: FUSE answers, not EROFS: ${describe(error)}`))
  }

  #target(path: readonly string[]): string {
    return join(this.#parts.session.dir, ...path)
  }

  /**
   * Lets go now of what is leaving and not used any more, as is done from time to time anyway. Never rejects: what cannot be told is
   * logged, and looked at again.
   */
  look(): Promise<void> {
    this.#next ??= (this.#running ?? Promise.resolve()).then(async () => {
      this.#running = this.#next
      this.#next = undefined
      await this.#letGo()
    })
    return this.#next
  }

  #lookIn(ms: number): void {
    const at = performance.now() + ms
    if (this.#due !== undefined && this.#due.at <= at) return
    clearTimeout(this.#due?.timer)
    const look = () => {
      this.#due = undefined
      void this.look()
    }
    this.#due = { at, timer: setTimeout(look, ms).unref() }
  }

  async #letGo(): Promise<void> {
    try {
      const used = this.#leaving.size === 0 ? new Set() : await this.inUse()
      const leaving = [...this.#leaving].filter((slot) => !used.has(this.#shown.get(slot)?.path.join('/') ?? ''))
      for (let at = 0; at < leaving.length; at += AT_ONCE) {
        const some = leaving.slice(at, at + AT_ONCE)
        const free = await Promise.all(some.map((slot) => this.#isForgotten(slot)))
        for (const [i, slot] of some.entries()) if (free[i] && this.#leaving.has(slot)) await this.#end(slot)
      }
    } catch (error) {
      this.#parts.log(`layers that nobody uses any more stay open for now: ${describe(error)}`)
    }
    if (this.#leaving.size > 0) this.#lookIn(AGAIN_MS)
  }

  /** Whether the kernel has let go of a tree, and of the devices that only it has. */
  async #isForgotten(slot: number): Promise<boolean> {
    const { session, grafts, covers } = this.#parts
    if (this.#lasting.has(slot)) return false
    const devices = covers === undefined ? [] : grafts.devicesOf(slot)
    for (const tree of devices) covers?.devices.invalidate(tree)
    for (const waitMs of FORGOTTEN_AFTER_MS) {
      await sleep(waitMs)
      if (!session.isTreeKnown(slot) && !devices.some((tree) => covers?.devices.isUsed(tree))) return true
    }
    return false
  }

  /** In one turn until it is gone, so that whoever attaches it meanwhile attaches it anew. */
  async #end(slot: number): Promise<void> {
    const { grafts, covers } = this.#parts
    const { leases } = this.#shown.get(slot) ?? { leases: [] }
    this.#shown.delete(slot)
    this.#leaving.delete(slot)
    for (const tree of grafts.devicesOf(slot)) covers?.devices.remove(tree)
    grafts.remove(slot)
    this.#parts.session.state?.delete(`${TREE_RECORD}${slot}`)
    await Promise.all(leases.map((each) => each.close()))
  }
}
