// Which bytes of a device go with some of its chunks: their places, and what else of the same blocks holds nothing that is there.
import type { ChunkTable } from '../tree/chunk-table.ts'

const BLOCK_BYTES = 4096
/** Of a packed place: at u64, length u64, chunk u32, zero u32. */
const PLACE_BYTES = 24

export class Holes {
  readonly #chunks: ChunkTable
  /** Of the places, in the order of the device. */
  readonly #at: Float64Array
  readonly #end: Float64Array
  readonly #chunk: Uint32Array

  constructor(chunks: ChunkTable) {
    this.#chunks = chunks
    const packed = chunks.packedPlaces()
    const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength)
    const count = packed.length / PLACE_BYTES
    this.#at = Float64Array.from({ length: count }, (_, i) => Number(view.getBigUint64(i * PLACE_BYTES, true)))
    this.#end = this.#at.map((at, i) => at + Number(view.getBigUint64(i * PLACE_BYTES + 8, true)))
    this.#chunk = Uint32Array.from({ length: count }, (_, i) => view.getUint32(i * PLACE_BYTES + 16, true))
  }

  /** Pairs of start and end, sorted and apart. `isThere` is false of those that go. */
  of(gone: Iterable<number>, isThere: (chunk: number) => boolean): Float64Array {
    const ranges: [start: number, end: number][] = []
    for (const chunk of gone) this.#chunks.places(chunk, (at) => ranges.push(this.#hole(this.#indexOf(at), isThere)))
    ranges.sort(([a], [b]) => a - b)
    const joined: [start: number, end: number][] = []
    for (const [start, end] of ranges) {
      const last = joined.at(-1)
      if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end)
      else joined.push([start, end])
    }
    return Float64Array.from(joined.flat())
  }

  #hole(place: number, isThere: (chunk: number) => boolean): [start: number, end: number] {
    const [at, end] = [this.#at[place] as number, this.#end[place] as number] // the caller found it
    const [first, last] = [Math.floor(at / BLOCK_BYTES) * BLOCK_BYTES, Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES]
    const stays = (other: number) => isThere(this.#chunk[other] as number)
    let [before, after] = [place - 1, place + 1]
    while (before >= 0 && (this.#end[before] as number) > first && !stays(before)) before--
    while (after < this.#at.length && (this.#at[after] as number) < last && !stays(after)) after++
    const shared = {
      start: before >= 0 && (this.#end[before] as number) > first,
      end: after < this.#at.length && (this.#at[after] as number) < last,
    }
    return [shared.start ? at : first, shared.end ? end : last]
  }

  /** Of the place that begins there. */
  #indexOf(at: number): number {
    let [low, high] = [0, this.#at.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#at[middle] as number) < at) low = middle + 1
      else high = middle
    }
    return low
  }
}
