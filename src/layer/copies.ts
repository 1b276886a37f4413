// The same blob in several repositories: one that fails is passed over for the next.
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

/** More than a few tags of one layer are all the same registry. */
const COPIES_MAX = 4
/** How long all of a blob may take, at 10 Mbit/s, before the next copy is asked as well. */
const PATIENCE_MS = 10_000
const PATIENCE_BYTES_PER_MS = 1250
/** However large it is: a read waits 120 s for what is missing, and another copy needs most of that. */
const PATIENCE_MAX_MS = 30_000

/** `B`: what a copy can do. */
export class Copies<B extends Blob = Blob> implements Blob {
  readonly digest: Digest
  readonly size: number
  #blobs: readonly B[]

  constructor(first: B) {
    this.digest = first.digest
    this.size = first.size
    this.#blobs = [first]
  }

  /** The newest is asked first: its credentials are the freshest. */
  add(blob: B): void {
    if (!this.#blobs.includes(blob)) this.#blobs = [blob, ...this.#blobs].slice(0, COPIES_MAX)
  }

  async read(range: Range, options?: ReadOptions): Promise<Uint8Array> {
    const asked = new Set<B>()
    const failures: unknown[] = []
    for (let blob = this.#next(asked); blob !== undefined; blob = this.#next(asked)) {
      asked.add(blob)
      try {
        return await blob.read(range, options)
      } catch (error) {
        if (options?.signal?.aborted) throw error
        failures.push(error)
      }
    }
    throw failures[0] // at least one was asked: there is always one
  }

  /**
   * Resolves when `bring` brought all of a copy. The next one, also one that was added meanwhile, is asked when one fails, and when it
   * takes so long that nobody should wait for that registry alone.
   * @throws what the first failed with, when all have
   */
  async whole(bring: (blob: B) => Promise<void>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const asked = new Set<B>()
    const failures: unknown[] = []
    const patienceMs = Math.min(PATIENCE_MS + this.size / PATIENCE_BYTES_PER_MS, PATIENCE_MAX_MS)
    let patience: NodeJS.Timeout | undefined
    let over = false
    const next = () => {
      if (over) return
      clearTimeout(patience)
      const blob = this.#next(asked)
      if (blob !== undefined) {
        asked.add(blob)
        bring(blob).then(resolve, (error) => {
          failures.push(error)
          next()
        })
      } else if (failures.length === asked.size) {
        reject(failures[0])
      }
      patience = setTimeout(next, patienceMs)
    }
    next()
    try {
      await promise
    } finally {
      over = true
      clearTimeout(patience)
    }
  }

  /** One that was not asked yet, perhaps because it was added meanwhile. */
  #next(asked: ReadonlySet<B>): B | undefined {
    return this.#blobs.find((each) => !asked.has(each))
  }
}
