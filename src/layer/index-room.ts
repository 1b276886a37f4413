// The memory that indexes may take while they are read and parsed, all together: one of the largest and some others, or more that are
// smaller. Origins take turns, so that the large ones of one are waited for once, not one after the other.
import { Failure } from '../errors.ts'

/** The largest index has 512 MiB. */
const ALL_MAX_BYTES = 576 << 20
/** Of one origin; a large one of its own waits for the one before. */
const EACH_MAX_BYTES = 512 << 20
/** Nearly all indexes: their number is bounded, and they wait for nobody. */
const FREE_BYTES = 8 << 20

interface Wish {
  bytes: number
  grant(): void
}

interface Origin {
  taken: number
  /** When it was given some last, by how often anybody was; 0: never. */
  givenAt: number
  /** The first comes first. */
  wishes: Set<Wish>
}

export class IndexRoom {
  /** Those that have or want some. */
  readonly #origins = new Map<string, Origin>()
  #taken = 0
  #given = 0

  /** Bytes that are taken. */
  get taken(): number {
    return this.#taken
  }

  /**
   * Runs `work`, which may ask once for room, and has it until it has ended.
   * @throws Failure aborted when `signal` ended the wait; what `work` throws
   */
  async use<T>(
    origin: string,
    work: (room: (bytes: number) => Promise<void>) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    let taken: number | undefined
    const room = async (bytes: number) => {
      if (taken !== undefined) throw new TypeError('room is asked for twice')
      taken = 0
      if (bytes <= FREE_BYTES) return
      await this.#take(origin, Math.min(bytes, EACH_MAX_BYTES), signal)
      taken = Math.min(bytes, EACH_MAX_BYTES)
    }
    try {
      return await work(room)
    } finally {
      if (taken !== undefined && taken > 0) this.#release(origin, taken)
    }
  }

  #take(name: string, bytes: number, signal: AbortSignal): Promise<void> {
    const origin = this.#origins.get(name) ?? { taken: 0, givenAt: 0, wishes: new Set() }
    this.#origins.set(name, origin)
    return new Promise((resolve, reject) => {
      const over = () => {
        origin.wishes.delete(wish)
        signal.removeEventListener('abort', abort)
      }
      const wish: Wish = {
        bytes,
        grant: () => {
          over()
          resolve()
        },
      }
      const abort = () => {
        over()
        this.#grant() // others may have waited behind it
        reject(Failure.aborted('gave up while other indexes were parsed', { cause: signal.reason }))
      }
      origin.wishes.add(wish)
      signal.addEventListener('abort', abort, { once: true })
      if (signal.aborted) abort()
      else this.#grant()
    })
  }

  #release(name: string, bytes: number): void {
    this.#taken -= bytes
    const origin = this.#origins.get(name)
    if (origin !== undefined) origin.taken -= bytes
    this.#grant()
  }

  /** Grants what fits, in turns; what does not fit has those behind it wait, or it would wait for ever. */
  #grant(): void {
    for (let next = this.#next(); next !== undefined; next = this.#next()) {
      const { origin, wish } = next
      if (this.#taken + wish.bytes > ALL_MAX_BYTES) return
      this.#taken += wish.bytes
      origin.taken += wish.bytes
      origin.givenAt = ++this.#given
      wish.grant()
    }
  }

  /** The first wish of the origin that was given some the longest ago, of those that may have more. */
  #next(): { origin: Origin; wish: Wish } | undefined {
    let next: { origin: Origin; wish: Wish } | undefined
    for (const [name, origin] of this.#origins) {
      const [wish] = origin.wishes
      if (wish === undefined && origin.taken === 0) this.#origins.delete(name)
      if (wish === undefined || origin.taken + wish.bytes > EACH_MAX_BYTES) continue
      if (next === undefined || origin.givenAt < next.origin.givenAt) next = { origin, wish }
    }
    return next
  }
}
