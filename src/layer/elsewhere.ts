// A tree's chunks on other trees' devices: an image's new version has most of what the one before has. What its image may have of it is
// looked for when the tree is opened, and copied, chunk by chunk, when it is wanted. Whoever has a piece may lose it at any time; a copy is
// verified as what a registry gives, after it was read, and a registry is asked for what fails.
import type { FileHandle } from 'node:fs/promises'
import type { Piece } from '../codec/job.ts'
import { describe, Failure } from '../errors.ts'
import type { Turn } from '../fetch/flights.ts'
import type { Pieces } from '../store/piece-worker.ts'
import type { Chunk } from '../tree/chunk.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'

export interface ElsewhereParts {
  chunks: ChunkTable
  /** Looks for pieces. Undefined: there are none. */
  find(): Promise<Pieces | undefined>
  /** The device of a holder, to be read; the caller closes it. @throws what the system throws: it is gone */
  open(holder: string): Promise<FileHandle>
  /** Resolves when it is written down that the tree has bytes of these holders. */
  mark(holders: Pick<Pieces, 'anonymous'>): Promise<void>
  /** Copies a chunk to the tree's device, as CodecPool.copy. */
  copy(chunk: Chunk, pieces: readonly Piece[], index: number, turn: Turn): Promise<void>
  log(message: string): void
}

/** One for all: thousands may be wanted before it is known. */
const ON_NONE = Failure.missing('the chunk is on no other device')

/** A holder's device, while it is read. */
interface Held {
  readonly file: Promise<FileHandle>
  readers: number
}

export class Elsewhere {
  readonly #parts: ElsewhereParts
  readonly found: Promise<boolean>
  #pieces: Pieces | 'looking' | undefined = 'looking'
  /** By number. */
  readonly #held = new Map<number, Held>()

  /** Begins to look. */
  constructor(parts: ElsewhereParts) {
    this.#parts = parts
    this.found = parts.find().then(
      (pieces) => {
        this.#pieces = pieces
        return pieces !== undefined
      },
      (error) => {
        this.#pieces = undefined
        parts.log(`nothing is reused of other images: ${describe(error)}`)
        return false
      },
    )
  }

  /** Whether a chunk may be copied; true as well as long as that is not known. */
  has(chunk: number): boolean {
    if (this.#pieces === 'looking') return true
    return this.#pieces !== undefined && this.#pieces.holder[this.#parts.chunks.firstCheck(chunk)] !== 0
  }

  /** @throws Failure missing: it is not there (any more); as CodecPool.copy */
  async copy(index: number, turn: Turn): Promise<void> {
    await this.found
    const { chunks, mark, copy } = this.#parts
    if (this.#pieces === undefined || this.#pieces === 'looking' || !this.has(index)) throw ON_NONE
    const { holder, at } = this.#pieces
    const chunk = chunks.get(index)
    const first = chunks.firstCheck(index)
    const numbers = chunk.checks.map((_, i) => holder[first + i] as number) // one a check
    await mark(this.#pieces)
    const held = new Map([...new Set(numbers)].map((number) => [number, this.#hold(number)]))
    try {
      const pieces: Piece[] = []
      for (const [i, { range }] of chunk.checks.entries()) {
        const { fd } = await (held.get(numbers[i] as number) as Held).file
        pieces.push({ fd, at: at[first + i] as number, ...range })
      }
      await copy(chunk, pieces, index, turn)
    } finally {
      for (const [number, each] of held) await this.#release(number, each)
    }
  }

  #hold(number: number): Held {
    const { open } = this.#parts
    const known = this.#held.get(number)
    const held = known ?? { file: open((this.#pieces as Pieces).holders[number - 1] as string), readers: 0 }
    held.file.catch(() => {}) // whoever reads it is told
    held.readers++
    this.#held.set(number, held)
    return held
  }

  async #release(number: number, held: Held): Promise<void> {
    if (--held.readers > 0) return
    this.#held.delete(number)
    const file = await held.file.catch(() => undefined) // as above
    await file?.close()
  }
}
