// What a program reads through a registry: a blob's chunks, by the filler, with a digest for each.
import { Failure, readErrno } from '../../src/errors.ts'
import { Budget } from '../../src/fetch/budget.ts'
import { Filler } from '../../src/fetch/filler.ts'
import type { StoredBlob } from '../../src/registry/source.ts'
import { READY_MISSING, READY_VERIFIED } from '../../src/tree/ready.ts'
import { tableOf } from '../fetch/layer.ts'

export class FilledBlob implements AsyncDisposable {
  readonly filler: Filler
  readonly #bytes: Uint8Array
  readonly #chunkBytes: number
  readonly #states: Uint8Array
  readonly #device: Uint8Array

  /** @param right what the blob has */
  constructor(blob: StoredBlob, right: Uint8Array, chunkBytes: number) {
    const count = right.length / chunkBytes
    this.#bytes = right
    this.#chunkBytes = chunkBytes
    this.#states = new Uint8Array(count).fill(READY_MISSING)
    this.#device = new Uint8Array(right.length)
    const at = (chunk: number) => ({ start: chunk * chunkBytes, end: (chunk + 1) * chunkBytes })
    this.filler = new Filler({
      chunks: tableOf(Array.from({ length: count }, (_, chunk) => ({ blob: 0, stored: at(chunk) }))),
      blobs: () => blob,
      slots: {
        state: (chunk) => this.#states[chunk] as number,
        statesOf: (all) => all.map((each) => this.#states[each] as number),
      },
      decode: async ({ stored: { start, end } }, stored, index) => {
        if (Buffer.compare(stored, right.subarray(start, end)) !== 0) throw Failure.corrupt(`chunk ${index}`)
        this.#device.set(stored, start)
        this.#states[index] = READY_VERIFIED
      },
      reverify: async () => 'right',
      budget: new Budget(),
      origin: blob.origin,
    })
  }

  /** Reads chunks as a program does, and looks at every byte. @throws Failure, or what is wrong */
  async read(...chunks: number[]): Promise<void> {
    await this.filler.fill(chunks, 'demand')
    for (const each of chunks) {
      const [start, end] = [each * this.#chunkBytes, (each + 1) * this.#chunkBytes]
      if (Buffer.compare(this.#device.subarray(start, end), this.#bytes.subarray(start, end)) !== 0) {
        throw new TypeError(`chunk ${each} is wrong`)
      }
    }
  }

  /** The errno that a read ends with; 0: the right bytes. */
  errnoOf(...chunks: number[]): Promise<number> {
    return this.read(...chunks).then(
      () => 0,
      (error: unknown) => {
        if (error instanceof Failure) return readErrno(error)
        throw error
      },
    )
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.filler.close()
  }
}
