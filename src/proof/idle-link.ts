// When a layer may be read whole that nobody waits for: when nobody has waited for the link for a while. What is being read then goes on
// beside whoever comes, in a small share.
import { setTimeout as sleep } from 'node:timers/promises'
import type { StoredBlob } from '../registry/source.ts'

/** What programs and prefetch have under way. */
export interface Traffic {
  /** Grows with each request. */
  readonly requests: number
  /** Bytes that are asked for and not here yet. */
  readonly underWay: number
}

/** A program that starts reads again within that time. */
const IDLE_MS = 3_000
const LOOK_EVERY_MS = 500
/** Of a link that others use: 8 Mbit/s. It never stands still, because a registry that gives nothing is given up (registry/outages.ts). */
const SHARE_BYTES_PER_S = 1 << 20

export class IdleLink {
  readonly #traffic: () => Traffic
  readonly #now: () => number
  #requests = -1
  #movedAt = Number.NEGATIVE_INFINITY

  /** @param now milliseconds of a clock that only goes forward */
  constructor(traffic: () => Traffic, now: () => number = () => performance.now()) {
    this.#traffic = traffic
    this.#now = now
  }

  /** Whether somebody uses the link, or has until a moment ago. */
  isBusy(): boolean {
    const { requests, underWay } = this.#traffic()
    if (requests !== this.#requests || underWay > 0) this.#movedAt = this.#now()
    this.#requests = requests
    return this.#now() - this.#movedAt < IDLE_MS
  }

  /** Resolves when it is idle. @throws the signal's reason */
  async idle(signal: AbortSignal): Promise<void> {
    while (this.isBusy()) await sleep(LOOK_EVERY_MS, undefined, { signal, ref: false })
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
          await sleep((bytes.length / SHARE_BYTES_PER_S) * 1000, undefined, { ref: false })
        }
        return blob.stream(paced, options)
      },
    }
  }
}
