// Layers into a mount: each device is added to a session once, and each tree once a name that shows it; a device goes with its last tree.
import type { FileHandle } from 'node:fs/promises'
import { describe } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { OpenLayer } from '../layer/layer.ts'
import type { TreeNumbers } from '../store/numbers.ts'
import type { MountSession } from './session.ts'

/** Reads of a layer that cannot be filled fail by the hundred, for one reason; it is said again after that long. */
const SAY_AGAIN_MS = 60_000

/**
 * What a directory that hides lower ones has in an image, behind the number of its prefix (tree/whiteout.ts). A file of that name is as
 * good as the mark here: its layer is root's alone, too.
 */
const MARK = 'overlay.opaque'

export class Grafts {
  readonly #session: MountSession
  readonly #log: (line: string) => void
  readonly #othersReach: boolean
  readonly #said = new Map<Digest, number>()
  /** By tree: its device's number, and what ends that the device tells of it. */
  readonly #devices = new Map<Digest, { number: number; detach: () => void }>()
  /** By slot: the trees whose devices it has. */
  readonly #trees = new Map<number, ReadonlySet<Digest>>()
  /** By tree: how many slots have its device. */
  readonly #users = new Map<Digest, number>()

  /**
   * @param log told why reads of a layer fail, for programs see an I/O error and no more
   * @param othersReach whether users other than root get to the mount
   */
  constructor(session: MountSession, log: (line: string) => void, othersReach = false) {
    this.#session = session
    this.#log = log
    this.#othersReach = othersReach
  }

  /** The layer's device in the session. */
  device(layer: OpenLayer): number {
    const found = this.#devices.get(layer.tree)
    if (found !== undefined) return found.number
    const { slots, chunks, filler } = layer
    const number = this.#session.addDevice(
      {
        deviceFd: slots.deviceFd,
        readyFd: slots.readyFd,
        chunks: chunks.length,
        size: chunks.deviceSize,
        places: chunks.packedPlaces(),
      },
      filler,
      (error) => this.#say(layer, error),
    )
    const detach = slots.attach({
      takeTouched: () => this.#session.takeTouched(number),
      reads: this.#session.readsOf(number),
      spill: (deviceFd, readyFd) => this.#session.spillDevice(number, deviceFd, readyFd, chunks.length),
    })
    this.#devices.set(layer.tree, { number, detach })
    return number
  }

  #say({ tree, descriptor }: OpenLayer, error: unknown): void {
    const now = performance.now()
    const last = this.#said.get(tree)
    if (last !== undefined && now - last < SAY_AGAIN_MS) return
    this.#said.set(tree, now)
    this.#log(`layer ${descriptor.digest}: reads fail: ${describe(error)}`)
  }

  /** Makes the layer's own tree answer where it is shown as `name`. @returns its slot there */
  async layer(layer: OpenLayer, name: string): Promise<number> {
    const numbers = await layer.numbersAs(name)
    if (this.#trees.has(numbers.slot)) return numbers.slot
    const image = await layer.openImage()
    try {
      // who mounts it in a user namespace does not see such marks: what they hide would be there again
      if (this.#othersReach && (await image.readFile()).includes(MARK)) this.#session.restrict(numbers.slot)
      return this.tree(numbers, image, [layer])
    } finally {
      await image.close() // it is mapped
    }
  }

  /** Makes an image answer whose device slots are these layers', in order. @returns its slot */
  tree({ slot, inodeBase }: TreeNumbers, image: FileHandle, layers: readonly OpenLayer[]): number {
    if (!this.#trees.has(slot)) {
      const devices = layers.map((each) => this.device(each))
      this.#session.addTree(slot, { imageFd: image.fd, devices, inodeBase })
      const trees = new Set(layers.map((each) => each.tree))
      for (const each of trees) this.#users.set(each, (this.#users.get(each) ?? 0) + 1)
      this.#trees.set(slot, trees)
    }
    return slot
  }

  /** The devices, by their trees, that only this slot's tree has. */
  devicesOf(slot: number): Digest[] {
    return [...(this.#trees.get(slot) ?? [])].filter((each) => this.#users.get(each) === 1)
  }

  /** Has a slot answer no more, nor the devices that only its tree has. */
  remove(slot: number): void {
    const trees = this.#trees.get(slot)
    if (trees === undefined) return
    this.#session.removeTree(slot)
    this.#trees.delete(slot)
    for (const tree of trees) {
      const others = (this.#users.get(tree) ?? 0) - 1
      if (others > 0) this.#users.set(tree, others)
      else this.#removeDevice(tree)
    }
  }

  #removeDevice(tree: Digest): void {
    const device = this.#devices.get(tree)
    device?.detach()
    if (device !== undefined) this.#session.removeDevice(device.number)
    this.#devices.delete(tree)
    this.#users.delete(tree)
    this.#said.delete(tree)
  }
}
