// Layers into a mount: each device is added to a session once, and each tree once a name that shows it.
import type { FileHandle } from 'node:fs/promises'
import type { Digest } from '../image/digest.ts'
import type { OpenLayer } from './layer.ts'
import type { MountSession } from './session.ts'

export class Grafts {
  readonly #session: MountSession
  readonly #devices = new Map<Digest, number>()
  readonly #trees = new Set<number>()

  constructor(session: MountSession) {
    this.#session = session
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
        { fillEach: (wanted, settled) => void filler.fillEach(wanted, 'demand', settled) }, // reports each chunk to `settled`
      )
      this.#devices.set(layer.tree, device)
    }
    return device
  }

  /** Makes the layer's own tree answer where it is shown as `name`. @returns its slot there */
  async layer(layer: OpenLayer, name: string): Promise<number> {
    const slot = await layer.slotAs(name)
    if (this.#trees.has(slot)) return slot
    const image = await layer.openImage()
    try {
      return this.tree(slot, image, [layer])
    } finally {
      await image.close() // it is mapped
    }
  }

  /** Makes an image answer whose device slots are these layers', in order. @returns its slot */
  tree(slot: number, image: FileHandle, layers: readonly OpenLayer[]): number {
    if (!this.#trees.has(slot)) {
      this.#session.addTree(slot, { imageFd: image.fd, devices: layers.map((each) => this.device(each)) })
      this.#trees.add(slot)
    }
    return slot
  }
}
