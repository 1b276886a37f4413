// Devices as files of the FUSE session, for the kernel's own mounts: what is missing of one is fetched when the kernel reads it.
import { join } from 'node:path'
import { type Digest, hex } from '../image/digest.ts'
import type { OpenLayer } from '../layer/layer.ts'
import type { Grafts } from './graft.ts'
import { type NativeModule, type NodeAttributes, ROOT_NODE } from './native.ts'
import { controlNode, type MountSession } from './session.ts'

/** Below the session's root; only root looks into it. */
export const DEVICES_DIRECTORY = '.devices'

/** In a session's state: the kernel may know the device of that tree. */
export const DEVICE_RECORD = 'device '

const DIRECTORY: NodeAttributes = { mode: 0o40500, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100400, uid: 0, gid: 0, mtime: 0n }

/**
 * The read-ahead of devices: the kernel's largest FUSE read. EROFS asks by its own, smaller measure; what it asks for in a row becomes
 * few large reads of the device by this one (47 instead of 320 for a walk through 48 MiB). The kernel copies it when it opens a
 * device, so it is set before the first mount.
 */
const DEVICE_READ_AHEAD_KIB = 1024

export class ShownDevices {
  readonly #session: MountSession
  readonly #grafts: Grafts
  readonly #directory = controlNode(DEVICES_DIRECTORY)
  /** By tree: the node. */
  readonly #nodes = new Map<Digest, bigint>()

  constructor(native: NativeModule, session: MountSession, grafts: Grafts) {
    this.#session = session
    this.#grafts = grafts
    session.addDirectory(this.#directory, ROOT_NODE, DEVICES_DIRECTORY, DIRECTORY, false)
    native.setReadAhead(session.dir, DEVICE_READ_AHEAD_KIB) // without the right to, more and smaller reads do the same
  }

  /** The path of a layer's device, which is shown from now on. */
  path(layer: OpenLayer): string {
    const name = hex(layer.tree)
    if (!this.#nodes.has(layer.tree)) {
      const node = controlNode(DEVICES_DIRECTORY, name)
      this.#session.state?.set(`${DEVICE_RECORD}${layer.tree}`, true)
      this.#session.addDeviceFile(node, this.#directory, name, FILE, this.#grafts.device(layer))
      this.#nodes.set(layer.tree, node)
    }
    return join(this.#session.dir, DEVICES_DIRECTORY, name)
  }

  /** Has the kernel let go of a tree's device where no mount is made of it; whether one is, `isUsed` says soon after. */
  invalidate(tree: Digest): void {
    if (this.#nodes.has(tree)) this.#session.invalidate(this.#directory, hex(tree))
  }

  /** Whether the kernel knows a tree's device: as long as there is a mount that is made of it, wherever that is. */
  isUsed(tree: Digest): boolean {
    const node = this.#nodes.get(tree)
    return node !== undefined && this.#session.isKnown(node)
  }

  /** For a device that nobody uses. */
  remove(tree: Digest): void {
    if (!this.#nodes.delete(tree)) return
    this.#session.remove(this.#directory, hex(tree))
    this.#session.state?.delete(`${DEVICE_RECORD}${tree}`)
  }
}
