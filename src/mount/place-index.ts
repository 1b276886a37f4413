// Which chunks hold a range of a device: its places in order, searched by halving.
import type { ChunkTable } from '../tree/chunk-table.ts'

const RECORD_BYTES = 24

export class PlaceIndex {
  readonly #starts: Float64Array
  readonly #ends: Float64Array
  readonly #chunks: Uint32Array

  constructor(chunks: Pick<ChunkTable, 'packedPlaces'>) {
    const packed = chunks.packedPlaces()
    const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength)
    const count = packed.byteLength / RECORD_BYTES
    this.#starts = new Float64Array(count)
    this.#ends = new Float64Array(count)
    this.#chunks = new Uint32Array(count)
    for (let i = 0, at = 0; i < count; i++, at += RECORD_BYTES) {
      const start = Number(view.getBigUint64(at, true))
      this.#starts[i] = start
      this.#ends[i] = start + Number(view.getBigUint64(at + 8, true))
      this.#chunks[i] = view.getUint32(at + 16, true)
    }
  }

  /** Numbers of the chunks that hold device bytes of [start, end), which is not empty; each once, in the order of their first place. */
  chunksAt(start: number, end: number): Set<number> {
    const found = new Set<number>()
    for (let i = this.#firstBehind(start); i < this.#starts.length && (this.#starts[i] as number) < end; i++) {
      found.add(this.#chunks[i] as number) // as many as starts
    }
    return found
  }

  /** The first place that ends behind `at`; places are disjoint, so their ends are in order, too. */
  #firstBehind(at: number): number {
    let low = 0
    let high = this.#ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#ends[middle] as number) > at) high = middle
      else low = middle + 1
    }
    return low
  }
}
