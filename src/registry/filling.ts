// What comes of a range, put together, and told of in larger parts: a registry sends 8 to 16 KiB at a time, and whoever is told has work
// to do each time, however little came.
import type { ReadOptions } from '../image/blob.ts'
import { untilAll } from '../limit.ts'

/** Less is told of when all that has arrived by now was taken, which a read that is waited for does not notice. */
const TOLD_MIN_BYTES = 64 << 10

export class Filling {
  readonly #bytes: Uint8Array
  readonly #onPart: ReadOptions['onPart']
  #filled = 0
  #told = 0
  #telling: NodeJS.Immediate | undefined
  /** What those who were told want to be waited for. */
  #held: Promise<void>[] = []

  constructor(bytes: Uint8Array, onPart: ReadOptions['onPart']) {
    this.#bytes = bytes
    this.#onPart = onPart
  }

  /** Bytes that have come. */
  get filled(): number {
    return this.#filled
  }

  /** What follows came. @returns what is to be waited for before more comes */
  take(part: Uint8Array): Promise<void> | undefined {
    this.#bytes.set(part, this.#filled)
    this.#filled += part.length
    if (this.#onPart === undefined) return undefined
    if (this.#filled - this.#told >= TOLD_MIN_BYTES) this.tell()
    else this.#telling ??= setImmediate(() => this.tell())
    return this.holds()
  }

  /** Of what came since it was told last. */
  tell(): void {
    clearImmediate(this.#telling)
    this.#telling = undefined
    const at = this.#told
    if (at === this.#filled) return
    this.#told = this.#filled
    const held = this.#onPart?.(this.#bytes.subarray(at, this.#filled), at)
    if (held !== undefined) this.#held.push(held)
  }

  /** What resolves when those who were told want to be waited for no longer; undefined: they do not. */
  holds(): Promise<void> | undefined {
    return untilAll(this.#held.splice(0))
  }
}
