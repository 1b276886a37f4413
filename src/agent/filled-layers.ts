// The layers that engines are shown: the rest of what programs read of them comes in the background, and when all of it is here the kernel
// reads it without us.
import { describe } from '../errors.ts'
import type { Background } from '../layer/background.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { type LayerLease, WHOLE } from '../layer/layer.ts'

export interface FilledLayersParts {
  background: Pick<Background, 'add'>
  /** All of the layer in this slot is here, and it is open. */
  completed(slot: number, layer: LayerLease, image: ResolvedImage): Promise<void>
  log(message: string): void
}

export class FilledLayers {
  readonly #parts: FilledLayersParts
  /** By slot: what lets go of it, once for each time that it is shown. */
  readonly #shown = new Map<number, (() => void)[]>()

  constructor(parts: FilledLayersParts) {
    this.#parts = parts
  }

  /** A layer of an image is shown. @param layer open; it is held until the slot is released */
  shown(slot: number, layer: LayerLease, image: ResolvedImage): void {
    const { background, completed, log } = this.#parts
    // of what has no chunks, or was read whole, there is no rest
    const isFilled = layer.chunks.length > 0 && layer.format !== WHOLE
    const held = layer.again()
    const complete = () => {
      const own = held.again()
      completed(slot, own, image)
        .catch((error) => log(`layer ${layer.descriptor.digest}: ${describe(error)}`))
        .finally(() => own.close())
    }
    const forget = isFilled
      ? background.add({ layer: held, image: image.digest, origin: image.origin, complete })
      : () => {}
    const letGo = () => {
      forget()
      held.close().catch((error) => log(`layer ${layer.descriptor.digest} stays open: ${describe(error)}`))
    }
    this.#shown.set(slot, [...(this.#shown.get(slot) ?? []), letGo])
  }

  /** It is shown once less. */
  released(slot: number): void {
    const all = this.#shown.get(slot) ?? []
    all.pop()?.()
    if (all.length === 0) this.#shown.delete(slot)
  }
}
