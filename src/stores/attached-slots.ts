// What the image store has attached in its mount: held while an owner of an ID has it, or an ID shows it.
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease } from '../layer/layer.ts'

export interface Attaches {
  attach(layer: LayerLease, path: readonly string[], image: ResolvedImage): Promise<number>
  release(slot: number): void
}

type Slots = readonly (number | undefined)[]

export class AttachedSlots {
  readonly #mount: Attaches
  readonly #needed: () => Slots
  /** Slots of layers that were claimed, and how often each was attached. */
  readonly #held = new Map<number, number>()

  /** @param needed slots that owners have, or may have again, and those that are shown */
  constructor(mount: Attaches, needed: () => Slots) {
    this.#mount = mount
    this.#needed = needed
  }

  /** Attaches the layers of an image's chain, or none. @throws what `attach` throws */
  async attachAll(
    image: ResolvedImage,
    links: readonly { id: string; layer: LayerLease | undefined }[],
    pathOf: (id: string) => readonly string[],
  ): Promise<Slots> {
    const attaching = links.map(async ({ layer, id }) => layer && (await this.#mount.attach(layer, pathOf(id), image)))
    const attached = await Promise.allSettled(attaching)
    const slots = attached.map((each) => (each.status === 'fulfilled' ? each.value : undefined))
    const failed = attached.find((each) => each.status === 'rejected')
    if (failed === undefined) return slots
    for (const slot of slots) if (slot !== undefined) this.#mount.release(slot)
    throw failed.reason
  }

  /** In the turn in which they are claimed. */
  hold(slots: Slots): void {
    for (const slot of slots) if (slot !== undefined) this.#held.set(slot, (this.#held.get(slot) ?? 0) + 1)
  }

  /** Releases those that are not needed any more; of the others one attachment is enough. */
  letGo(): void {
    const needed = new Set(this.#needed())
    for (const [slot, times] of this.#held) {
      const wanted = needed.has(slot) ? 1 : 0
      if (wanted > 0) this.#held.set(slot, wanted)
      else this.#held.delete(slot)
      for (let i = wanted; i < times; i++) this.#mount.release(slot)
    }
  }
}
