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
    this.#order ??= orderOf(this.#chunks)
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

/** Mostly they are numbered so, which a look at each tells; whoever reads first waits for this. */
function orderOf(chunks: StoredChunks): Uint32Array {
  const order = new Uint32Array(chunks.length)
  const starts = new Float64Array(chunks.length)
  const blobs = new Uint32Array(chunks.length)
  let isSorted = true
  for (let i = 0; i < order.length; i++) {
    order[i] = i
    starts[i] = chunks.storedRange(i).start
    blobs[i] = chunks.blobOf(i)
    if (i > 0) isSorted &&= compare(i - 1, i) <= 0
  }
  function compare(a: number, b: number): number {
    return (blobs[a] as number) - (blobs[b] as number) || (starts[a] as number) - (starts[b] as number)
  }
  return isSorted ? order : order.sort(compare)
}
