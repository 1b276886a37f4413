// Blobs whose givers are written down before any byte of them is used.
import type { Blob, Giver, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

/** Resolves when it is written down. */
export type Mark = (giver: Giver) => Promise<void>

/** One whose givers tell who they are; one that does not is taken for `own`, and hands over no parts. */
export class MarkedBlob implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #blob: Blob
  readonly #own: Giver
  readonly #mark: Mark

  constructor(blob: Blob, own: Giver, mark: Mark) {
    this.digest = blob.digest
    this.size = blob.size
    this.#blob = blob
    this.#own = own
    this.#mark = mark
  }

  async read(range: Range, options: ReadOptions = {}): Promise<Uint8Array> {
    let told = false
    const bytes = await this.#blob.read(range, {
      ...options,
      onPart: (part, at) => (told ? options.onPart?.(part, at) : undefined),
      onGiver: async (giver) => {
        await this.#mark(giver)
        told = true
      },
    })
    if (!told) await this.#mark(this.#own)
    return bytes
  }
}
