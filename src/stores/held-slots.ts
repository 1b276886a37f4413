// Slots of trees that are attached to the mount, which hold their layers open: released when no ID is shown with them, or may be again.

export class HeldSlots {
  readonly #release: (slot: number) => void
  /** How often each was attached. */
  readonly #attached = new Map<number, number>()

  /** @param release ends one attachment */
  constructor(release: (slot: number) => void) {
    this.#release = release
  }

  /** They were attached once more. In the turn in which they are claimed. */
  hold(slots: readonly (number | undefined)[]): void {
    for (const slot of slots) if (slot !== undefined) this.#attached.set(slot, (this.#attached.get(slot) ?? 0) + 1)
  }

  /** Releases all but these. */
  letGo(needed: ReadonlySet<number | undefined>): void {
    for (const [slot, times] of this.#attached) {
      if (needed.has(slot)) continue
      this.#attached.delete(slot)
      for (let i = 0; i < times; i++) this.#release(slot)
    }
  }
}
