// Where files have zeros that no chunk holds. Nothing is ever written there, so nobody verifies what a disk gives back for them: what
// we read ourselves is made zeros, and before the kernel reads a device itself, what is there is looked at and, if need be, made zeros.
import { read as readCallback } from 'node:fs'
import { promisify } from 'node:util'
import type { Range } from '../image/blob.ts'
import { mapLimited } from '../limit.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { Disk } from './disk.ts'

const readAt = promisify(readCallback)

const BLOCK_BYTES = 4096
/** Each is a block at most, and in the page cache as a rule. */
const EDGES_AT_ONCE = 64

export class ZeroRuns {
  /** Ascending and apart. */
  readonly #runs: readonly Range[]
  #isRestored = false

  constructor(table: Pick<ChunkTable, 'zeros'>) {
    this.#runs = table.zeros()
  }

  /** Makes those bytes of `into` zeros, which has the device's from `at` on. */
  clear(into: Uint8Array, at: number): void {
    const end = at + into.length
    for (let i = this.#firstEndingAfter(at); i < this.#runs.length; i++) {
      const run = this.#runs[i] as Range // i is below the length
      if (run.start >= end) return
      into.fill(0, Math.max(run.start - at, 0), Math.min(run.end, end) - at)
    }
  }

  /**
   * Makes them zeros in the device's file, once. Whole blocks are given back to the filesystem unseen, which costs nothing where there
   * are none.
   * @returns false: there is nothing to do that with
   * @throws what the system throws
   */
  async restore(fd: number, disk: Disk | undefined): Promise<boolean> {
    if (this.#isRestored || this.#runs.length === 0) return true
    if (disk === undefined) return false
    const wholes: Range[] = []
    const edges: Range[] = []
    for (const { start, end } of this.#runs) {
      const first = Math.ceil(start / BLOCK_BYTES) * BLOCK_BYTES
      const last = Math.floor(end / BLOCK_BYTES) * BLOCK_BYTES
      if (first < last) wholes.push({ start: first, end: last })
      const parts = first <= last ? [{ start, end: first }, { start: last, end }] : [{ start, end }] // biome-ignore format: a line each
      edges.push(...parts.filter((each) => each.start < each.end))
    }
    const isWrong = await mapLimited(edges, EDGES_AT_ONCE, async ({ start, end }) => {
      const bytes = new Uint8Array(end - start)
      await readAt(fd, bytes, 0, bytes.length, start)
      return bytes.some((byte) => byte !== 0)
    })
    const holes = [...wholes, ...edges.filter((_, i) => isWrong[i])].flatMap(({ start, end }) => [start, end])
    if (holes.length > 0) await disk.punchHoles(fd, Float64Array.from(holes))
    this.#isRestored = true
    return true
  }

  #firstEndingAfter(at: number): number {
    let [low, high] = [0, this.#runs.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#runs[middle] as Range).end <= at) low = middle + 1
      else high = middle
    }
    return low
  }
}
