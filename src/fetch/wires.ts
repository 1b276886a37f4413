// The ways to all origins, and how the background behaves on them: they lead through one link, which others use, too.
import type { Priority } from '../image/blob.ts'
import { Throttle } from './throttle.ts'
import { type Transfer, Wire } from './wire.ts'

export interface Manners {
  /** Whether it lets pass what is sent to anybody else. */
  readonly standsAside: boolean
  /** Infinity: as much as there is. */
  readonly maxBytesPerSecond: number
}

/**
 * It lets others pass for so long at a time: an answer that trickles does not hold it up for good, and its own registry is not kept from
 * sending for so long that it ends the answer.
 */
const ASIDE_MAX_MS = 250
/** Images are of a few. */
const WIRES_MAX = 64

export class Wires {
  readonly #manners: Manners
  readonly #throttle: Throttle
  readonly #each = new Map<string, Wire>()
  /** Answers that have begun and not ended, of what somebody waits for, or will soon. */
  #flowing = 0
  readonly #aside = new Set<() => void>()

  constructor(manners: Manners = { standsAside: true, maxBytesPerSecond: Number.POSITIVE_INFINITY }) {
    this.#manners = manners
    this.#throttle = new Throttle(manners.maxBytesPerSecond)
  }

  of(origin: string): Wire {
    let wire = this.#each.get(origin)
    if (wire === undefined) {
      if (this.#each.size >= WIRES_MAX) for (const [of, each] of this.#each) if (each.isIdle) this.#each.delete(of)
      wire = new Wire(this.#manners.standsAside)
      this.#each.set(origin, wire)
    }
    return wire
  }

  /** A read of so many bytes begins. */
  begin(origin: string, bytes: number, priority: Priority): Transfer {
    const transfer = this.of(origin).begin(bytes, priority)
    return priority === 'background' ? transfer : this.#counted(transfer)
  }

  /**
   * So many bytes came in the background: resolves when more may, or somebody begins to wait for them; undefined: now.
   * @param hurry is given what to call in the latter case
   */
  hold(bytes: number, hurry: (call: () => void) => void): Promise<void> | undefined {
    const paidMs = this.#throttle.take(bytes)
    const isAside = this.#manners.standsAside && this.#flowing > 0
    if (paidMs <= 0 && !isAside) return undefined
    return new Promise((resolve) => {
      const go = () => {
        clearTimeout(timer)
        this.#aside.delete(go)
        resolve()
      }
      const timer = setTimeout(go, Math.max(paidMs, isAside ? ASIDE_MAX_MS : 0))
      if (paidMs <= 0) this.#aside.add(go)
      hurry(go)
    })
  }

  /** An answer that is waited for uses no link. */
  #counted(transfer: Transfer): Transfer {
    let flows = false
    return {
      came: (to) => {
        if (!flows) this.#flowing++
        flows = true
        transfer.came(to)
      },
      end: () => {
        if (flows) this.#flowing--
        flows = false
        if (this.#flowing === 0) for (const go of [...this.#aside]) go()
        transfer.end()
      },
    }
  }
}
