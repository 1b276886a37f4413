// EROFS in the kernel: a tree's image mounted over devices that the FUSE session serves as files. Metadata and cached data then
// never reach user space, and keep being served when this process is gone; what is missing is read from the device, below which
// everything is as it always is. The FUSE server goes on answering the same tree underneath, for whoever does not see the cover.
//
//   erofs      devices are files of the session: what is missing is fetched when it is read
//   complete   devices are the cache files themselves: nobody has to answer, whatever becomes of this process
import type { FileHandle } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { OpenLayer } from '../layer/layer.ts'
import { holdComplete, type Release } from './complete.ts'
import type { Grafts } from './graft.ts'
import { type MountEntry, mountPoints, mountTable } from './mount-table.ts'
import type { FilePart, NativeModule } from './native.ts'
import { lowerDirsBelow } from './overlays.ts'
import { isBusy, isGone, type MountSession } from './session.ts'
import { ShownDevices } from './shown-devices.ts'

/** The kernel's mount table is searched and printed as a whole by many programs; beyond this many, FUSE answers. */
export const COVERS_MAX = 1000

/** Of the most there may be, so many are ended at once when there is no room: whether they are in use is found out for all of them. */
const EVICTED_AT_ONCE = 1 / 16

/** Devices of one EROFS image that this kernel was tried with; images have at most some hundred layers. */
export const DEVICES_MAX = 127

/**
 * The kernel is done microseconds after the answer; but whoever called rmdir has to get a processor for that, and on a machine that is
 * very busy it may be a low priority's turn only seconds later.
 */
const RESTORE_AFTER_MS = [10, 100, 400, 1_500, 3_000, 5_000, 10_000]
/** Mounts that fail in a row: then FUSE goes on answering. */
const RESTORE_FAILURES_MAX = 3

/** In a session's state: what is mounted on that directory. */
export const COVER_RECORD = 'cover '

/** A mount, for `status`. */
export interface KernelMount {
  readonly dir: string
  readonly devices: number
  /** How many of the devices are cache files. */
  readonly complete: number
}

interface Covered {
  readonly devices: number
  readonly trees: ReadonlySet<Digest>
  /** How many of the devices are cache files. */
  complete: number
  /** Of those: one each, unless a process that is gone mounted them, by whose mark they are kept. */
  held: readonly Release[]
  /** That process did, and nobody has asked for it since. */
  adopted?: true
  /** While it is being mounted or unmounted. */
  changing: boolean
}

/** A layer that was to be mounted somewhere, whether it is now or not. */
interface Coverable {
  readonly layer: OpenLayer
  /** How often engines said that they use it, less how often that they do no more: a hint, never repeated after a restart. */
  uses: number
  /** How often it was told that they do no more: the last one sees to it that it is mounted again. */
  drops: number
}

export class KernelMounts {
  readonly devices: ShownDevices
  readonly #native: NativeModule
  readonly #session: MountSession
  readonly #context: string | undefined
  readonly #max: number
  /** Mounted, or being mounted; the one that was asked for the longest ago first. */
  readonly #covered = new Map<string, Covered>()
  readonly #known = new Map<string, Coverable>()
  readonly #working = new Set<Promise<unknown>>()
  /** By target: mounts that are being ended for good. */
  readonly #uncovering = new Map<string, Promise<void>>()
  /** The whole mount is being ended, or it turns out that it is in use: nothing is mounted meanwhile. */
  readonly #ending = new Set<Promise<unknown>>()
  #evicting: Promise<void> | undefined
  #evicted = 0
  readonly #closing = new AbortController()

  /**
   * @param context SELinux label of everything in the mounts
   * @param max mounts at a time
   */
  constructor(native: NativeModule, session: MountSession, grafts: Grafts, context?: string, max = COVERS_MAX) {
    this.#native = native
    this.#session = session
    this.devices = new ShownDevices(native, session, grafts)
    this.#context = context
    this.#max = max
  }

  /** What is mounted, the one that was asked for the longest ago first. */
  get mounts(): readonly KernelMount[] {
    const ready = [...this.#covered].filter(([, { changing }]) => !changing)
    return ready.map(([dir, { devices, complete }]) => ({ dir, devices, complete }))
  }

  /** Mounts that were ended to make room for others. */
  get evicted(): number {
    return this.#evicted
  }

  /**
   * Of parts of a layer's files, which of them programs have read in a mount of it; undefined: it is mounted nowhere. The kernel reads devices
   * ahead, over the ends of files; but into the cache of a file that is mounted comes only what somebody reads of it.
   * @throws what the system throws: Linux before 6.5 does not say
   */
  async readParts(tree: Digest, parts: readonly FilePart[]): Promise<boolean[] | undefined> {
    const dirs = [...this.#covered].flatMap(([dir, { trees, changing }]) => (trees.has(tree) && !changing ? dir : []))
    if (dirs.length === 0) return undefined
    const found = await Promise.all(dirs.map((dir) => this.#native.cachedParts(dir, parts)))
    return parts.map((_, i) => found.some((each) => each[i] === 1))
  }

  /**
   * Mounts an image, whose digest the caller has checked and whose device slots are these layers', on `target`, until the end. A target
   * below the session's own root must be reachable without any lookup that waits.
   * @returns why it was not mounted, if it was not
   */
  add(image: FileHandle, layers: readonly OpenLayer[], target: string): Promise<string | undefined> {
    return this.#add(target, layers, () => this.#mount(image, layers, target))
  }

  /** Mounts a layer on `target`, as `add`, but only for as long as there is room: those in use come first, then those asked for last. */
  async cover(layer: OpenLayer, target: string): Promise<string | undefined> {
    const found = this.#known.get(target)
    const known = found?.layer === layer ? found : { layer, uses: 0, drops: 0 }
    this.#known.set(target, known)
    const isShown = () => this.#known.get(target) === known
    const ending = this.#uncovering.get(target)
    if (ending !== undefined) await ending.catch(() => {}) // whoever asked for it is told
    if (!isShown()) return undefined
    const why = await this.#add(target, [layer], async () => {
      if (!isShown()) throw Failure.aborted('it is shown no more') // it waited for room meanwhile
      return await this.#mountLayer(layer, target)
    })
    return isShown() ? why : undefined
  }

  /**
   * Ends the mount on `target`, whoever uses it, and has no hint make it again; who covers it with another layer waits for that. It is
   * taken out of the tree only: the overlay of a running container has the layer's filesystem by a mount of its own, and goes on
   * reading it.
   * @throws what unmounting throws
   */
  uncover(target: string): Promise<void> {
    this.#known.delete(target)
    const before = this.#uncovering.get(target)?.catch(() => {}) ?? Promise.resolve() // whoever asked for that is told
    const ending = before
      .then(() => this.#uncover(target))
      .finally(() => {
        if (this.#uncovering.get(target) === ending) this.#uncovering.delete(target)
      })
    this.#uncovering.set(target, ending)
    return ending
  }

  /**
   * Ends the mount on `target`, as `uncover` does, unless somebody uses it.
   * @returns false when somebody does; the mount that an overlay is made of is not known here
   */
  async release(target: string): Promise<boolean> {
    const covered = this.#covered.get(target)
    if (covered?.changing || this.#uncovering.has(target)) return false
    if (covered !== undefined) {
      covered.changing = true
      const ended = await this.#end(target).finally(() => {
        covered.changing = false
      })
      if (!ended) return false
    }
    this.#known.delete(target)
    return true
  }

  /**
   * Mounts what is complete by now from its cache file, where it was mounted when something of it was missing, unless somebody uses that
   * mount. Overlays that are made of it have one of their own. @throws what unmounting throws
   */
  async renew(target: string): Promise<void> {
    const [covered, known] = [this.#covered.get(target), this.#known.get(target)]
    if (covered === undefined || known === undefined || covered.complete === covered.devices) return
    if (covered.changing || this.#uncovering.has(target) || this.#closed) return
    let ended = false
    await this.#work(covered, async () => {
      ended = await this.#end(target)
    })
    // it may be shown no more: what was found to lie meanwhile is not mounted again
    if (ended && this.#known.get(target) === known) await this.cover(known.layer, target)
  }

  async #uncover(target: string): Promise<void> {
    const covered = this.#covered.get(target)
    if (covered === undefined) return
    // what is being mounted is no mount yet, and would be one that nobody knows of
    while (covered.changing) await Promise.allSettled([...this.#working, this.#evicting, sleep(1)]) // who releases it is none of these
    if (this.#covered.get(target) === covered) await this.#work(covered, () => this.#detach(target))
  }

  /**
   * An engine says that it takes the layer at `target` into use, or drops it. The latter makes the kernel detach what is mounted
   * there: an rmdir that is answered with ENOENT, as engines expect it, makes it forget the directory and all below. It does so after
   * the answer, so it is looked at more than once; meanwhile FUSE answers.
   * @throws what mounting throws
   */
  async hint(op: 'use' | 'drop', target: string): Promise<void> {
    const known = this.#known.get(target)
    if (known === undefined) return
    known.uses = Math.max(0, known.uses + (op === 'use' ? 1 : -1))
    if (op === 'use' && !this.#touch(target)) {
      await this.cover(known.layer, target) // where there is no room, FUSE goes on answering
      return
    }
    if (op === 'drop') known.drops++
    await this.#lookAgain(known, target, op === 'use' ? [0] : RESTORE_AFTER_MS)
  }

  /** Resolves when it was mounted again, or need not be. @throws what mounting throws */
  async #lookAgain(known: Coverable, target: string, after: readonly number[]): Promise<void> {
    const { drops } = known
    let failures = 0
    for (const [i, waitMs] of after.entries()) {
      await sleep(waitMs, undefined, { ref: false })
      // a later hint looks on; or it was ended
      if (known.drops !== drops || !this.#covered.has(target)) return
      try {
        // as long as it is mounted, the kernel may be about to detach it
        if (!(await this.#restore(known.layer, target))) continue
        // and also when it is mounted again: it may have been gone before the drop. Where that fails FUSE answers, as it does meanwhile.
        void this.#lookAgain(known, target, after.slice(i + 1)).catch(() => {})
        return
      } catch (error) {
        // the directory may be in between: the next try finds it again
        if (++failures < Math.min(RESTORE_FAILURES_MAX, after.length)) continue
        this.#forget(target, this.#covered.get(target))
        throw error
      }
    }
  }

  /** Mounts again what should be mounted and is not: the kernel or somebody else detached it. @returns whether it did */
  async #restore(layer: OpenLayer, target: string): Promise<boolean> {
    if ((await mountPoints()).has(target)) return false
    const covered = this.#covered.get(target)
    if (covered === undefined || covered.changing || this.#closed) return false // another hint came first, or it makes room
    await this.#work(covered, async () => {
      const held = await this.#mountLayer(layer, target)
      release(covered)
      covered.held = held
      covered.complete = held.length
    })
    return true
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted
  }

  /**
   * Takes over the mounts that the process before this one made, as far as they are there: nobody need make them again.
   * @param records of the session's state
   */
  async adopt(records: ReadonlyMap<string, unknown>): Promise<void> {
    const table = await mountTable()
    const mounted = new Set(table.filter(isKernelMount).map(({ point }) => point))
    for (const [target, record] of records) {
      if (!mounted.has(target)) {
        this.#session.state?.delete(`${COVER_RECORD}${target}`)
        continue
      }
      const { trees, devices } = record as { trees: Digest[]; devices: number } // as #add wrote it
      const covered = { devices, trees: new Set(trees), complete: 0, held: [], changing: false, adopted: true as const }
      this.#covered.set(target, covered)
    }
  }

  /** Whether it is mounted already, by the process before this one. */
  isAdopted(target: string, { tree }: Pick<OpenLayer, 'tree'>): boolean {
    const covered = this.#covered.get(target)
    return covered?.adopted === true && covered.trees.has(tree)
  }

  /** Before a target is covered: what the process before mounted there stays, if it is the same and is still there. */
  async #settleAdopted(target: string, layers: readonly OpenLayer[]): Promise<void> {
    const covered = this.#covered.get(target)
    if (covered?.adopted !== true || covered.changing) return
    delete covered.adopted
    const isSame = covered.devices === layers.length && layers.every(({ tree }) => covered.trees.has(tree))
    if (isSame && (await mountPoints()).has(target)) return
    if (this.#covered.get(target) !== covered) return // it was ended meanwhile
    await this.#work(covered, () => this.#detach(target))
  }

  /** Makes it the last to be ended for want of room. @returns whether it is mounted */
  #touch(target: string): boolean {
    const covered = this.#covered.get(target)
    if (covered === undefined) return false
    this.#covered.delete(target)
    this.#covered.set(target, covered)
    return true
  }

  async #add(
    target: string,
    layers: readonly OpenLayer[],
    mount: () => Promise<Release[]>,
  ): Promise<string | undefined> {
    await this.#settleAdopted(target, layers)
    if (layers.length > DEVICES_MAX) return `it has ${layers.length} layers, at most ${DEVICES_MAX} are mounted as one`
    while (
      !this.#closed &&
      (this.#ending.size > 0 || (!this.#covered.has(target) && this.#covered.size >= this.#max))
    ) {
      if (this.#ending.size > 0) {
        await Promise.allSettled(this.#ending)
        continue
      }
      const before = this.#evicted
      try {
        await this.#makeRoom()
      } catch (error) {
        return describe(error)
      }
      if (this.#evicted === before) return `${this.#max} layers are mounted already, all in use`
    }
    if (this.#closed) return 'the agent is stopping'
    if (this.#touch(target)) return undefined
    const trees = new Set(layers.map(({ tree }) => tree))
    const covered: Covered = { devices: layers.length, trees, complete: 0, held: [], changing: true }
    this.#covered.set(target, covered)
    this.#session.state?.set(`${COVER_RECORD}${target}`, { trees: [...trees], devices: layers.length })
    try {
      await this.#work(covered, async () => {
        covered.held = await mount()
        covered.complete = covered.held.length
      })
      return undefined
    } catch (error) {
      this.#covered.delete(target)
      this.#session.state?.delete(`${COVER_RECORD}${target}`)
      return describe(error)
    }
  }

  /** `detach` waits for it. */
  async #work(covered: Covered, mount: () => Promise<void>): Promise<void> {
    covered.changing = true
    const working = mount().finally(() => {
      covered.changing = false
      this.#working.delete(working)
    })
    this.#working.add(working)
    await working
  }

  async #mountLayer(layer: OpenLayer, target: string): Promise<Release[]> {
    const image = await layer.openImage()
    try {
      return await this.#mount(image, [layer], target)
    } finally {
      await image.close() // the kernel has its own
    }
  }

  /** @returns of the devices that are cache files, what lets go of each */
  async #mount(image: FileHandle, layers: readonly OpenLayer[], target: string): Promise<Release[]> {
    const complete = await holdComplete(layers, this.#closing.signal)
    const held = complete.filter((each) => each !== undefined)
    try {
      // by descriptor: the very file that was verified. It stays open until all mounts are gone.
      const devices = layers.map((each, i) =>
        complete[i] ? `/proc/self/fd/${each.slots.deviceFd}` : this.devices.path(each),
      )
      await this.#native.mountErofs(image.fd, devices, target, this.#context)
      if (this.#closed) await this.#native.unmount(target, true)
      return held
    } catch (error) {
      for (const each of held) each()
      throw error
    }
  }

  /** One at a time, whoever waits for it. */
  #makeRoom(): Promise<void> {
    this.#evicting ??= this.#evict().finally(() => {
      this.#evicting = undefined
    })
    return this.#evicting
  }

  /** Ends the mounts of layers that nobody is known to use. FUSE answers for them, and overlays that do use one hold it. */
  async #evict(): Promise<void> {
    const lower = await lowerDirsBelow(this.#session.dir)
    let left = Math.ceil(this.#max * EVICTED_AT_ONCE)
    for (const dir of [...this.#covered.keys()]) {
      if (left === 0 || this.#closed) return
      const covered = this.#covered.get(dir)
      const known = this.#known.get(dir)
      if (covered === undefined || covered.changing || known === undefined || known.uses > 0 || lower.has(dir)) continue
      covered.changing = true
      const ended = await this.#end(dir).finally(() => {
        covered.changing = false
      })
      if (!ended) continue
      this.#evicted++
      left--
    }
  }

  /** @returns false when it is busy */
  async #end(dir: string): Promise<boolean> {
    const covered = this.#covered.get(dir)
    try {
      await this.#native.unmount(dir, false)
    } catch (error) {
      if (isBusy(error)) return false
      if (!isGone(error)) throw error
    }
    this.#forget(dir, covered)
    return true
  }

  /**
   * Ends all, and then what they stand on; nothing is mounted meanwhile, though the paths of mounts lead through lookups, which have layers
   * mounted.
   * @param rest ends what they stand on @returns false when it is busy
   * @returns false when one is busy: that one and those asked for before it stay
   */
  async unmount(rest: () => Promise<boolean>): Promise<boolean> {
    const ending = this.#unmount().then((ended) => ended && rest())
    this.#ending.add(ending)
    return await ending.finally(() => this.#ending.delete(ending))
  }

  async #unmount(): Promise<boolean> {
    // what is being mounted is no mount yet, and would be one that nobody knows of
    while (this.#working.size + this.#uncovering.size > 0) {
      await Promise.allSettled([...this.#working, ...this.#uncovering.values()])
    }
    for (const dir of [...this.#covered.keys()].reverse()) {
      if (!(await this.#end(dir))) return false
    }
    return true
  }

  /** Takes all out of the tree at once; what is in use lives on. Nothing is mounted afterwards. */
  async detach(): Promise<void> {
    this.#closing.abort()
    await Promise.allSettled([...this.#working, ...this.#uncovering.values()]) // they see that this is the end
    for (const dir of [...this.#covered.keys()].reverse()) await this.#detach(dir)
  }

  async #detach(dir: string): Promise<void> {
    const covered = this.#covered.get(dir)
    await this.#native.unmount(dir, true).catch((error) => {
      if (!isGone(error)) throw error
    })
    this.#forget(dir, covered)
  }

  /** Whoever uses it on has a mount of his own, which the device is marked for. */
  #forget(dir: string, covered: Covered | undefined): void {
    if (covered === undefined || this.#covered.get(dir) !== covered) return // another is mounted there by now
    release(covered)
    this.#covered.delete(dir)
    this.#session.state?.delete(`${COVER_RECORD}${dir}`)
  }
}

function release(covered: Covered): void {
  for (const each of covered.held) each()
  covered.held = []
  covered.complete = 0
}

/** Whether a mount is one of ours, of this life or another. */
export function isKernelMount({ type, source }: MountEntry): boolean {
  return type === 'erofs' && source.startsWith('/proc/self/fd/')
}
