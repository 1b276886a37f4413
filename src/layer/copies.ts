// The same blob in several repositories, asked one after the other in the order of candidates.ts.
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { type Candidate, Candidates, Inquiry, LOOK_MS, Progress } from './candidates.ts'

/** More than a few tags of one layer are all the same registry. */
const COPIES_MAX = 4

interface Copy<B> extends Candidate {
  readonly blob: B
}

/** `B`: what a copy can do. */
export class Copies<B extends Blob = Blob> implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #copies = new Candidates<Copy<B>>(COPIES_MAX)

  constructor(first: B, origin: string) {
    this.digest = first.digest
    this.size = first.size
    this.add(first, origin)
  }

  add(blob: B, origin: string): void {
    if (this.#copies.all.some((each) => each.blob === blob)) return
    this.#copies.add({ blob, origin, progress: new Progress() })
  }

  /** From the first copy that brings it; after a failure the parts come again from the beginning of the range. */
  async read(range: Range, options?: ReadOptions): Promise<Uint8Array> {
    const inquiry = new Inquiry<Copy<B>>()
    const failures = new Map<Copy<B>, unknown>()
    for (let copy = this.#copies.next(inquiry); copy !== undefined; copy = this.#copies.next(inquiry)) {
      inquiry.ask(copy)
      try {
        const bytes = await copy.blob.read(range, options)
        this.#copies.brought(copy)
        return bytes
      } catch (error) {
        if (options?.signal?.aborted) throw error
        this.#copies.failed(copy)
        failures.set(copy, error)
      }
      inquiry.answered(copy)
    }
    throw this.#reason(failures)
  }

  /**
   * Resolves when `bring` brought all of a copy. The next one, also one that was added meanwhile, is asked when one fails; one of another
   * origin also when nothing moves.
   * @param bring calls `moved` when bytes came
   * @throws what the newest failed with, when all have
   */
  async whole(bring: (blob: B, moved: () => void) => Promise<void>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const inquiry = new Inquiry<Copy<B>>()
    const failures = new Map<Copy<B>, unknown>()
    let over = false
    const next = () => {
      if (over) return
      const copy = this.#copies.next(inquiry)
      if (copy === undefined) {
        if (!inquiry.isOpen) reject(this.#reason(failures))
        return
      }
      inquiry.ask(copy)
      bring(copy.blob, () => copy.progress.moved()).then(
        () => {
          this.#copies.brought(copy)
          resolve()
        },
        (error) => {
          this.#copies.failed(copy)
          failures.set(copy, error)
          inquiry.answered(copy)
          next()
        },
      )
    }
    next()
    const looking = setInterval(() => inquiry.standsStill && next(), LOOK_MS)
    try {
      await promise
    } finally {
      over = true
      clearInterval(looking)
    }
  }

  /** What the newest says counts: its credentials are the freshest. */
  #reason(failures: ReadonlyMap<Copy<B>, unknown>): unknown {
    const newest = this.#copies.all.find((each) => failures.has(each))
    return newest === undefined ? failures.values().next().value : failures.get(newest)
  }
}
