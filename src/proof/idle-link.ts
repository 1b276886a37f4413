// When a layer may be read whole that nobody waits for: when nobody has waited for the link for a while. What is being read then goes on
// beside whoever comes, in a small share.
import type { StoredBlob } from '../registry/source.ts'

/** What a link is used for. */
export interface Traffic {
  /** Grows with each request that a registry gets, whoever wants it. */
  readonly asked: number
  /** Grows with each request for what programs and prefetch read. */
  readonly read: number
  /** Bytes of the latter that are not here yet. */
  readonly underWay: number
}

export interface Clock {
  /** Milliseconds; it only goes forward. */
  now(): number
  /** Waits. @throws when `signal` aborts */
  pause(ms: number, signal: AbortSignal | undefined): Promise<unknown>
}

/** An image that was just listed is about to be started, and a program that has just read is about to read more. */
const IDLE_MS = 10_000
const LOOK_EVERY_MS = 500
/** Of a link that others use: 8 Mbit/s. It never stands still, because a registry that gives nothing is given up (registry/outages.ts). */
const SHARE_BYTES_PER_S = 1 << 20

export class IdleLink {
  readonly #traffic: () => Traffic
  readonly #clock: Clock
  readonly #asking: LastSeen
  readonly #reading: LastSeen

  constructor(traffic: () => Traffic, clock: Clock) {
    this.#traffic = traffic
    this.#clock = clock
    this.#asking = { count: -1, at: Number.NEGATIVE_INFINITY }
    this.#reading = { count: -1, at: Number.NEGATIVE_INFINITY }
  }

  /** Whether a program or prefetch reads, or has until a moment ago. */
  isRead(): boolean {
    const { read, underWay } = this.#traffic()
    return this.#isRecent(this.#reading, read, underWay > 0)
  }

  /** Does some work when nobody has asked a registry for anything for a while; what it asks for itself does not count. @throws the signal's reason, what `work` throws */
  async whenIdle(work: () => Promise<unknown>, signal: AbortSignal): Promise<void> {
    await this.#idle(signal)
    try {
      await work()
    } finally {
      this.#asking.count = this.#traffic().asked
    }
  }

  async #idle(signal: AbortSignal): Promise<void> {
    const isAsked = () => this.#isRecent(this.#asking, this.#traffic().asked, false)
    // both are looked at each time
    while ([this.isRead(), isAsked()].includes(true)) await this.#clock.pause(LOOK_EVERY_MS, signal)
    signal.throwIfAborted()
  }

  #isRecent(seen: LastSeen, count: number, isNow: boolean): boolean {
    if (seen.count !== count || isNow) seen.at = this.#clock.now()
    seen.count = count
    return this.#clock.now() - seen.at < IDLE_MS
  }

  /** A blob whose stream keeps within its share while others use the link, until `hurries`. */
  beside(blob: StoredBlob, hurries: () => boolean): StoredBlob {
    return {
      digest: blob.digest,
      size: blob.size,
      origin: blob.origin,
      read: (range, options) => blob.read(range, options),
      stream: (take, options) => {
        const paced = async (bytes: Uint8Array) => {
          await take(bytes)
          if (hurries() || !this.isRead()) return
          await this.#clock.pause((bytes.length / SHARE_BYTES_PER_S) * 1000, options?.signal)
        }
        return blob.stream(paced, options)
      },
    }
  }
}

/** A count, and when it last moved. */
interface LastSeen {
  count: number
  at: number
}
