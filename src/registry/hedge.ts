// A second request for the same bytes, over another connection, when the first has brought nothing for a while. Whichever brings
// something first goes on alone.
//
//   first  ──▶ … nothing for a while … ──────────────▶ ended
//   second      ······························ ──▶ bytes ──▶ goes on
//
// A host gets one such request at a time, whatever is asked of it: on a link that is merely slow, more would make it slower.
import { Failure } from '../errors.ts'

/** How often it is looked, as a share of the time without bytes. */
const LOOKS = 4

const OTHER_WAS_FIRST = Failure.aborted('the same bytes came over another connection')

/** How one of the two goes. */
export interface Way {
  /** Over a connection of its own, past the host's queue. */
  aside: boolean
  signal: AbortSignal
  /** Must be called before bytes that came this way are taken: ends the other way. @throws Failure aborted: the other was first */
  claim(): void
}

/** Of one host. */
export class Hedge {
  readonly #afterMs: number
  #isUnderWay = false

  /** @param afterMs without any bytes */
  constructor(afterMs: number) {
    this.#afterMs = afterMs
  }

  /**
   * Runs `attempt`, and once more beside it when that brings nothing, unless the host has such a request already.
   * @throws what the way that brought something failed with; else what the first failed with, when both have
   */
  async run<T>(attempt: (way: Way) => Promise<T>, signal: AbortSignal, began: () => void): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>()
    const ways = new Map<Way, AbortController>()
    let running = 0
    let holder: Way | undefined
    let failure: unknown
    let movedAt = performance.now()
    const begin = (aside: boolean) => {
      const stop = new AbortController()
      const claim = () => {
        movedAt = performance.now()
        if (holder === way) return
        if (holder !== undefined) throw OTHER_WAS_FIRST
        if (ways.size === 1) return // alone
        holder = way
        for (const [other, stopOther] of ways) if (other !== way) stopOther.abort(OTHER_WAS_FIRST)
      }
      const way: Way = { aside, signal: AbortSignal.any([signal, stop.signal]), claim }
      ways.set(way, stop)
      running++
      attempt(way).then(
        (value) => {
          if (holder === undefined || holder === way) resolve(value)
        },
        (error) => {
          running--
          failure ??= error
          if (holder === way) reject(error)
          else if (running === 0) reject(failure)
        },
      )
    }
    begin(false)
    const looking = setInterval(() => {
      if (this.#isUnderWay || ways.size > 1 || performance.now() - movedAt < this.#afterMs) return
      this.#isUnderWay = true
      began()
      begin(true)
    }, this.#afterMs / LOOKS)
    try {
      return await promise
    } finally {
      clearInterval(looking)
      for (const stop of ways.values()) stop.abort(OTHER_WAS_FIRST)
      if (ways.size > 1) this.#isUnderWay = false
    }
  }
}
