// Layers into a mount: each device is added to a session once, and each tree once a name that shows it.
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
  readonly #devices = new Map<Digest, number>()
  readonly #trees = new Set<number>()

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
    let device = this.#devices.get(layer.tree)
    if (device === undefined) {
      const { slots, chunks, filler } = layer
      device = this.#session.addDevice(
        {
          deviceFd: slots.deviceFd,
          readyFd: slots.readyFd,
          chunks: chunks.length,
          size: chunks.deviceSize,
          places: chunks.packedPlaces(),
        },
        {
          // reports each chunk to what it is given
          fillEach: (wanted, settled) =>
            void filler.fillEach(wanted, 'demand', (chunk, error) => {
              settled(chunk, error)
              if (error !== undefined) this.#say(layer, error)
            }),
        },
      )
      const added = device
      slots.attach({
        takeTouched: () => this.#session.takeTouched(added),
        spill: (deviceFd, readyFd) => this.#session.spillDevice(added, deviceFd, readyFd, chunks.length),
      })
      this.#devices.set(layer.tree, device)
    }
    return device
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
      this.#trees.add(slot)
    }
    return slot
  }
}
