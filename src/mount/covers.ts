// EROFS in the kernel: a tree's image mounted over devices that the FUSE session serves as files. Metadata and cached data then
// never reach user space, and keep being served when this process is gone; what is missing is read from the device, below which
// everything is as it always is. The FUSE server goes on answering the same tree underneath, for whoever does not see the cover.
import type { FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import { hex } from '../image/digest.ts'
import { writeImage } from '../tree/erofs.ts'
import { makeDirectory } from '../tree/inode.ts'
import type { Grafts } from './graft.ts'
import type { OpenLayer } from './layer.ts'
import { type MountEntry, mountPoints } from './mount-table.ts'
import { type NativeModule, type NodeAttributes, ROOT_NODE } from './native.ts'
import { controlNode, isBusy, type MountSession } from './session.ts'

/** Below the session's root; only root looks into it. */
export const DEVICES_DIRECTORY = '.devices'

const DIRECTORY: NodeAttributes = { mode: 0o40500, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100400, uid: 0, gid: 0, mtime: 0n }

/** The kernel's mount table is searched and printed as a whole by many programs; beyond this many, FUSE answers. */
export const COVERS_MAX = 1000

/** Devices of one EROFS image that this kernel was tried with; images have at most some hundred layers. */
export const DEVICES_MAX = 127

/** The kernel is done microseconds after the answer; a machine that is very busy takes longer. */
const RESTORE_AFTER_MS = [10, 200, 2_000]

export class Covers {
  readonly #native: NativeModule
  readonly #session: MountSession
  readonly #grafts: Grafts
  readonly #context: string | undefined
  readonly #directory = controlNode(DEVICES_DIRECTORY)
  readonly #devices = new Set<string>()
  /** Mounted, or being mounted; in that order. */
  readonly #covered = new Map<string, { image: FileHandle; layers: readonly OpenLayer[] }>()
  #closed = false

  /** @param context SELinux label of everything in the mounts */
  constructor(native: NativeModule, session: MountSession, grafts: Grafts, context?: string) {
    this.#native = native
    this.#session = session
    this.#grafts = grafts
    this.#context = context
    session.addDirectory(this.#directory, ROOT_NODE, DEVICES_DIRECTORY, DIRECTORY, false)
  }

  /** Where EROFS is mounted, the first mount first. */
  get dirs(): readonly string[] {
    return [...this.#covered.keys()]
  }

  /**
   * Mounts an image, whose digest the caller has checked and whose device slots are these layers', on `target`. A target below the
   * session's own root must be reachable without any lookup that waits.
   * @returns why it was not mounted, if it was not
   */
  async add(image: FileHandle, layers: readonly OpenLayer[], target: string): Promise<string | undefined> {
    if (this.#closed) return 'the agent is stopping'
    if (this.#covered.has(target)) return undefined
    if (this.#covered.size >= COVERS_MAX) return `${COVERS_MAX} layers are mounted already`
    if (layers.length > DEVICES_MAX) return `it has ${layers.length} layers, at most ${DEVICES_MAX} are mounted as one`
    this.#covered.set(target, { image, layers })
    try {
      await this.#mount(image, layers, target)
      return undefined
    } catch (error) {
      this.#covered.delete(target)
      return describe(error)
    }
  }

  /**
   * Mounts again what the kernel detached: an rmdir that is answered with ENOENT, as engines expect when they are done with a
   * layer, makes it forget the directory and whatever is mounted below. It does so after the answer, so it is looked at more than
   * once; meanwhile FUSE answers.
   */
  async restore(target: string): Promise<void> {
    for (const waitMs of RESTORE_AFTER_MS) {
      await sleep(waitMs, undefined, { ref: false })
      const covered = this.#covered.get(target)
      if (covered === undefined || this.#closed) return
      if (!(await mountPoints()).has(target)) await this.#mount(covered.image, covered.layers, target)
    }
  }

  async #mount(image: FileHandle, layers: readonly OpenLayer[], target: string): Promise<void> {
    const devices = layers.map((each) => this.#device(each))
    await this.#native.mountErofs(image.fd, devices, target, this.#context)
    if (this.#closed) await this.#native.unmount(target, true)
  }

  /** @returns false when one is busy: that one and those mounted before it stay */
  async unmount(): Promise<boolean> {
    for (const dir of this.dirs.toReversed()) {
      try {
        await this.#native.unmount(dir, false)
      } catch (error) {
        if (isBusy(error)) return false
        if (!isGone(error)) throw error
      }
      this.#covered.delete(dir)
    }
    return true
  }

  /** Takes all out of the tree at once; what is in use lives on. Nothing is mounted afterwards. */
  async detach(): Promise<void> {
    this.#closed = true
    for (const dir of this.dirs.toReversed()) {
      await this.#native.unmount(dir, true).catch((error) => {
        if (!isGone(error)) throw error
      })
      this.#covered.delete(dir)
    }
  }

  /** The path of the layer's device in the session. */
  #device(layer: OpenLayer): string {
    const name = hex(layer.tree)
    if (!this.#devices.has(name)) {
      const device = this.#grafts.device(layer)
      this.#session.addDeviceFile(controlNode(DEVICES_DIRECTORY, name), this.#directory, name, FILE, device)
      this.#devices.add(name)
    }
    return join(this.#session.dir, DEVICES_DIRECTORY, name)
  }
}

/** Whether a mount is one of ours, of this life or another. */
export function isCover({ type, source }: MountEntry): boolean {
  return type === 'erofs' && source.startsWith('/proc/self/fd/')
}

/** Somebody else unmounted it (EINVAL: no mount point), or removed what it was on. */
function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EINVAL' || error.code === 'ENOENT')
}

/**
 * Tries a mount, which is the only way to know: the kernel's version does not tell, nor do the rights of this process, and the image
 * must lie on a filesystem that can be a backing file (neither tmpfs nor overlayfs).
 * @param file empty, where images lie
 * @param dir an empty directory to mount on
 * @returns why EROFS cannot be used here; undefined when it can
 */
export async function whyNoErofs(native: NativeModule, file: FileHandle, dir: string): Promise<string | undefined> {
  try {
    await file.writeFile(writeImage(makeDirectory(), []))
    await native.mountErofs(file.fd, [], dir, undefined)
    await native.unmount(dir, true)
    return undefined
  } catch (error) {
    return describe(error)
  }
}
