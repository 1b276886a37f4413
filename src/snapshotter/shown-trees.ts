// Lazy layers as directories that overlays are made of: each tree stands once in the agent's mount, whoever has snapshots of it.
//
//   ROOT/snapshots/<32 hex digits of the tree's digest>
//   ROOT/written/<name>                            leads to where snapshots are written
//
// A tree leaves when no snapshot shows it any more; what containers run on by then lives on in their overlays.
import { fstat } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Digest, hex } from '../image/digest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { controlNode } from '../mount/session.ts'

/** In the mount's root. */
export const SNAPSHOTS_DIRECTORY = 'snapshots'
const WRITTEN_DIRECTORY = 'written'

/** The part of a mount that is built here. */
export interface TreesMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addSymlink(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, target: string): void
  graft(parent: bigint, name: string, slot: number): void
  remove(parent: bigint, name: string): void
}

export interface ShownTreesParts {
  /** Of the mount. */
  root: string
  /** Makes a layer's tree, of this image, answer in the mount at this path from the root, and holds it open. @returns its slot there */
  attach(layer: LayerLease, path: readonly string[], image: ResolvedImage): Promise<number>
  /** Ends that, once for each time that it was attached. */
  release(slot: number): void
  /** Mounts it in the kernel, where that is done; resolves when it is, or is not. */
  cover(layer: OpenLayer, path: readonly string[]): Promise<void>
  uncover(path: readonly string[]): void
}

const stat = promisify(fstat)
/** stat(2): of st_blocks. */
const BLOCK_BYTES = 512
const DIRECTORY: NodeAttributes = { mode: 0o40755, uid: 0, gid: 0, mtime: 0n }
const SYMLINK: NodeAttributes = { ...DIRECTORY, mode: 0o120777 }

interface Shown {
  readonly layer: OpenLayer
  /** In which it answers. */
  slot: Promise<number>
  isThere: boolean
}

export class ShownTrees {
  readonly #parts: ShownTreesParts
  readonly #mount: TreesMount
  readonly #node = controlNode(SNAPSHOTS_DIRECTORY)
  readonly #written = controlNode(WRITTEN_DIRECTORY)
  /** By their names. */
  readonly #shown = new Map<string, Shown>()
  /** Snapshots that are to show a tree, whether or not it can be shown, and pulls that are about to. By the trees' names. */
  readonly #holders = new Map<string, number>()

  constructor(parts: ShownTreesParts, mount: TreesMount) {
    this.#parts = parts
    this.#mount = mount
    mount.addDirectory(this.#node, ROOT_NODE, SNAPSHOTS_DIRECTORY, DIRECTORY, false)
    mount.addDirectory(this.#written, ROOT_NODE, WRITTEN_DIRECTORY, DIRECTORY, false)
  }

  get size(): number {
    return this.#shown.size
  }

  /** Where a tree stands, or would. */
  directoryOf(tree: Digest): string {
    return join(this.#parts.root, SNAPSHOTS_DIRECTORY, nameOf(tree))
  }

  /** Gives a directory where snapshots are written a path in the mount that trees stand in. @returns that path */
  link(name: string, target: string): string {
    this.#mount.addSymlink(controlNode(WRITTEN_DIRECTORY, name), this.#written, name, SYMLINK, target)
    return join(this.#parts.root, WRITTEN_DIRECTORY, name)
  }

  /** Whether it stands there. */
  has(tree: Digest): boolean {
    return this.#shown.get(nameOf(tree))?.isThere === true
  }

  /** Bytes of a tree that are on this machine. */
  async bytesOf(tree: Digest): Promise<number> {
    const shown = this.#shown.get(nameOf(tree))
    if (shown === undefined) return 0
    const { blocks } = await stat(shown.layer.slots.deviceFd)
    return blocks * BLOCK_BYTES
  }

  /** A snapshot of an earlier life is to show a tree: somebody will hold it for all of them as soon as it can be shown. */
  claim(tree: Digest): void {
    const name = nameOf(tree)
    this.#holders.set(name, (this.#holders.get(name) ?? 0) + 1)
  }

  /**
   * Shows the tree of an image's layer until it is let go of as often as it was held and claimed.
   * @param layer open until this resolves
   * @throws what attaching throws; then it is not held
   */
  async hold(layer: LayerLease, image: ResolvedImage): Promise<void> {
    const name = nameOf(layer.tree)
    const shown = this.#shown.get(name) ?? { layer, slot: this.#show(layer, name, image), isThere: false }
    this.#shown.set(name, shown)
    this.claim(layer.tree)
    try {
      await shown.slot
      shown.isThere = true
    } catch (error) {
      if (this.#shown.get(name) === shown) this.#shown.delete(name)
      this.letGo(layer.tree)
      throw error
    }
  }

  letGo(tree: Digest): void {
    const name = nameOf(tree)
    const left = (this.#holders.get(name) ?? 0) - 1
    if (left > 0) {
      this.#holders.set(name, left)
      return
    }
    this.#holders.delete(name)
    const shown = this.#shown.get(name)
    if (shown === undefined) return
    this.#shown.delete(name)
    this.#mount.remove(this.#node, name)
    this.#parts.uncover([SNAPSHOTS_DIRECTORY, name])
    shown.slot.then(
      (slot) => this.#parts.release(slot),
      () => {}, // it was never attached
    )
  }

  async #show(layer: LayerLease, name: string, image: ResolvedImage): Promise<number> {
    const path = [SNAPSHOTS_DIRECTORY, name]
    const slot = await this.#parts.attach(layer, path, image)
    this.#mount.graft(this.#node, name, slot)
    await this.#parts.cover(layer, path)
    return slot
  }
}

function nameOf(tree: Digest): string {
  return hex(tree).slice(0, 32)
}
