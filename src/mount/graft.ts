// Layers into a mount: each tree and each device is added to a session once, however many names show it.
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

  /** Makes the layer's own tree answer. @returns its slot */
  layer(layer: OpenLayer): number {
    return this.tree(layer.slot, layer.image, [layer])
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
