// When a layer may be read whole that nobody waits for: when nobody has waited for the link for a while. What is being read then goes on
// beside whoever comes, in a small share.
import type { StoredBlob } from '../registry/source.ts'

/** What programs and prefetch have under way. */
export interface Traffic {
  /** Grows with each request. */
  readonly requests: number
  /** Bytes that are asked for and not here yet. */
  readonly underWay: number
}

export interface Clock {
  /** Milliseconds; it only goes forward. */
  now(): number
  /** Waits. @throws when `signal` aborts */
  pause(ms: number, signal: AbortSignal | undefined): Promise<unknown>
}

/** A program that starts reads again within that time. */
const IDLE_MS = 3_000
const LOOK_EVERY_MS = 500
/** Of a link that others use: 8 Mbit/s. It never stands still, because a registry that gives nothing is given up (registry/outages.ts). */
const SHARE_BYTES_PER_S = 1 << 20

export class IdleLink {
  readonly #traffic: () => Traffic
  readonly #clock: Clock
  #requests = -1
  #movedAt = Number.NEGATIVE_INFINITY

  constructor(traffic: () => Traffic, clock: Clock) {
    this.#traffic = traffic
    this.#clock = clock
  }

  /** Whether somebody uses the link, or has until a moment ago. */
  isBusy(): boolean {
    const { requests, underWay } = this.#traffic()
    if (requests !== this.#requests || underWay > 0) this.#movedAt = this.#clock.now()
    this.#requests = requests
    return this.#clock.now() - this.#movedAt < IDLE_MS
  }

  /** Resolves when it is idle. @throws the signal's reason */
  async idle(signal: AbortSignal): Promise<void> {
    while (this.isBusy()) await this.#clock.pause(LOOK_EVERY_MS, signal)
    signal.throwIfAborted()
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
          if (hurries() || !this.isBusy()) return
          await this.#clock.pause((bytes.length / SHARE_BYTES_PER_S) * 1000, options?.signal)
        }
        return blob.stream(paced, options)
      },
    }
  }
}
