// Chunks in the order in which they lie in their blobs.
import type { Range } from '../image/blob.ts'

/** The part of a ChunkTable that an order looks at. */
export interface StoredChunks {
  readonly length: number
  storedRange(chunk: number): Range
  blobOf(chunk: number): number
}

export interface StoredChunk {
  readonly chunk: number
  readonly stored: Range
}

export class StoredOrder {
  readonly #chunks: StoredChunks
  /** Made when first needed: most layers that are opened are never read out of turn. */
  #order: Uint32Array | undefined

  constructor(chunks: StoredChunks) {
    this.#chunks = chunks
  }

  /** The chunks of `blob` that start at or behind `start`, in order. */
  *from(blob: number, start: number): Generator<StoredChunk> {
    const order = this.#inOrder()
    for (let i = this.#firstFrom(order, blob, start); i < order.length; i++) {
      const chunk = order[i] as number // i is below the length
      if (this.#chunks.blobOf(chunk) !== blob) return
      yield { chunk, stored: this.#chunks.storedRange(chunk) }
    }
  }

  #inOrder(): Uint32Array {
    const chunks = this.#chunks
    this.#order ??= Uint32Array.from({ length: chunks.length }, (_, i) => i).sort(
      (a, b) => chunks.blobOf(a) - chunks.blobOf(b) || chunks.storedRange(a).start - chunks.storedRange(b).start,
    )
    return this.#order
  }

  /** Where in `order` the first chunk of `blob` is that starts at or behind `start`. */
  #firstFrom(order: Uint32Array, blob: number, start: number): number {
    let low = 0
    let high = order.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const chunk = order[middle] as number // middle is below the length
      const before = this.#chunks.blobOf(chunk) - blob || (this.#chunks.storedRange(chunk).start < start ? -1 : 0)
      if (before < 0) low = middle + 1
      else high = middle
    }
    return low
  }
}
