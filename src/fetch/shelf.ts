// Stored bytes in memory that nobody has asked for yet, of all fillers of the process together: the oldest make room.

/** Five seconds of 25 Mbit/s; much beside what a container start reads at random, little beside the agent itself. */
const SHELF_MAX_BYTES = 16 << 20

/** What lies on the shelf in one piece. */
export interface Kept {
  readonly bytes: Uint8Array
  /** It had to make room. */
  dropped(): void
}

export class Shelf {
  readonly #takes: (bytes: number) => (() => void) | undefined
  readonly #maxBytes: number
  /** Each with what gives its memory back, the oldest first. */
  readonly #kept = new Map<Kept, () => void>()
  #bytes = 0

  /** @param takes memory for so many bytes; undefined: there is none */
  constructor(takes: (bytes: number) => (() => void) | undefined, maxBytes = SHELF_MAX_BYTES) {
    this.#takes = takes
    this.#maxBytes = maxBytes
  }

  put(kept: Kept): void {
    const { length } = kept.bytes
    while (this.#bytes + length > this.#maxBytes && this.dropOldest());
    const giveBack = length > this.#maxBytes ? undefined : this.#takes(length)
    if (giveBack === undefined) {
      kept.dropped()
      return
    }
    this.#kept.set(kept, giveBack)
    this.#bytes += length
  }

  /** Somebody else needs the memory. @returns false: nothing is here */
  dropOldest(): boolean {
    const [oldest] = this.#kept.keys()
    if (oldest === undefined) return false
    this.remove(oldest)
    oldest.dropped()
    return true
  }

  /** Nothing of it is wanted any more. */
  remove(kept: Kept): void {
    const giveBack = this.#kept.get(kept)
    if (giveBack === undefined) return
    this.#kept.delete(kept)
    this.#bytes -= kept.bytes.length
    giveBack()
  }

  get bytes(): number {
    return this.#bytes
  }
}
