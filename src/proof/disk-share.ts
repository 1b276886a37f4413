// What a disk has left, for those who fill it at the same time.
import { Failure } from '../errors.ts'
import { Limit } from '../limit.ts'

/** Who fills a part of a disk. */
interface Share {
  /** Bytes that may be written. */
  readonly maxBytes: number
  /** Bytes that were written, and so are no longer among what is left. @throws what asking throws */
  written(): Promise<number>
}

export class DiskShare {
  readonly #left: () => Promise<number>
  readonly #maxBytes: number
  readonly #shares = new Set<Share>()
  readonly #turns = new Limit(1)

  /**
   * @param left bytes that the disk has left
   * @param maxBytes of a share, however much that is
   */
  constructor(left: () => Promise<number>, maxBytes: number) {
    this.#left = left
    this.#maxBytes = maxBytes
  }

  /**
   * Gives `work`, which does not know how much it needs, half of what is neither taken nor promised to others, until it ends.
   * @throws Failure aborted; what asking throws, what `work` throws
   */
  half<T>(written: () => Promise<number>, work: (maxBytes: number) => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#share((half) => half, written, work, signal)
  }

  /**
   * Gives `work`, which is called `what`, so many bytes until it ends.
   * @throws Failure limit: half of what is neither taken nor promised to others is less, or a share may not have so much; as `half`
   */
  exactly<T>(
    bytes: number,
    what: string,
    written: () => Promise<number>,
    work: () => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const choose = (half: number) => {
      if (bytes <= half) return bytes
      throw Failure.limit(`${what} has ${bytes} bytes`, {
        why: `at most ${half} are accepted: half of what the disk has left that others were not promised`,
        fix: 'Free space below the cache directory.',
      })
    }
    return this.#share(choose, written, work, signal)
  }

  async #share<T>(
    choose: (half: number) => number,
    written: () => Promise<number>,
    work: (maxBytes: number) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    // one after the other, so that each sees what the one before was promised
    const share = await this.#turns.take(() => this.#promise(choose, written), signal)
    try {
      return await work(share.maxBytes)
    } finally {
      this.#shares.delete(share)
    }
  }

  async #promise(choose: (half: number) => number, written: () => Promise<number>): Promise<Share> {
    // what is written between these two counts twice, rather than not at all
    const shares = await Promise.all([...this.#shares].map(async (each) => each.maxBytes - (await each.written())))
    const left = (await this.#left()) - shares.reduce((sum, each) => sum + Math.max(each, 0), 0)
    const share = { maxBytes: choose(Math.max(0, Math.min(this.#maxBytes, Math.floor(left / 2)))), written }
    this.#shares.add(share)
    return share
  }
}
