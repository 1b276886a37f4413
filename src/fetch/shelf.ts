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
  readonly #maxBytes: number
  readonly #kept = new Set<Kept>()
  #bytes = 0

  constructor(maxBytes = SHELF_MAX_BYTES) {
    this.#maxBytes = maxBytes
  }

  put(kept: Kept): void {
    this.#kept.add(kept)
    this.#bytes += kept.bytes.length
    for (const oldest of this.#kept) {
      if (this.#bytes <= this.#maxBytes) return
      this.remove(oldest)
      oldest.dropped()
    }
  }

  /** Nothing of it is wanted any more. */
  remove(kept: Kept): void {
    if (this.#kept.delete(kept)) this.#bytes -= kept.bytes.length
  }

  get bytes(): number {
    return this.#bytes
  }
}
