// How long the way to a blob is and how wide, learned from the reads that are made anyway.

/** What arrives while a read is under way tells of the round trip up to this size, because the transfer is short beside it; beyond, of the rate. */
const SHORT_MAX_BYTES = 32 << 10
/** The shortest read is the way itself, longer ones stood in queues; but ways change, in some hundred reads. */
const ROUND_TRIP_SHARE = 1 / 64
const RATE_SHARE = 1 / 4
/** Of a read's time, what counts as transfer at least: else a clock's grain makes any rate. */
const TRANSFER_MIN = 1 / 8
/** Until a rate is measured, a round trip is said to carry so much: enough for a read that measures it, little to ask for on trust. */
const FIRST_BYTES = 128 << 10
/** 1 Gbit/s. Beyond that it is memory that is measured, or a clock's grain. */
const MOST_BYTES_PER_SECOND = 125e6

/** What a link is like, and who tells of it. */
export interface LinkPace {
  /** A read begins. What is returned is called with its size when it has ended well. */
  begin(): (bytes: number) => void
  /** What could be transferred in the time of a round trip; 0 while none was measured. */
  readonly roundTripBytes: number
}

/** Of a link on which nothing is fetched along with a miss: the background brings what lies beside it. */
export const NOTHING_ALONG: LinkPace = { begin: () => () => {}, roundTripBytes: 0 }

export class Pace implements LinkPace {
  #roundTripMs: number | undefined
  #bytesPerSecond: number | undefined
  #arrived = 0
  readonly #now: () => number

  /** @param now milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  begin(): (bytes: number) => void {
    const [begun, arrived] = [this.#now(), this.#arrived]
    return (bytes) => {
      this.#arrived += bytes
      // reads share the line: the rate is what all of them brought
      this.#learn(this.#arrived - arrived, this.#now() - begun)
    }
  }

  #learn(bytes: number, ms: number): void {
    const known = this.#roundTripMs
    if (bytes <= SHORT_MAX_BYTES) {
      this.#roundTripMs = known === undefined || ms < known ? ms : known + (ms - known) * ROUND_TRIP_SHARE
    } else if (known !== undefined) {
      const transferMs = Math.max(ms - known, ms * TRANSFER_MIN)
      const rate = Math.min(MOST_BYTES_PER_SECOND, (bytes / transferMs) * 1000)
      this.#bytesPerSecond ??= rate
      this.#bytesPerSecond += (rate - this.#bytesPerSecond) * RATE_SHARE
    }
  }

  get roundTripBytes(): number {
    if (this.#roundTripMs === undefined) return 0
    return this.#bytesPerSecond === undefined ? FIRST_BYTES : (this.#roundTripMs / 1000) * this.#bytesPerSecond
  }
}
