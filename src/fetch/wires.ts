// The ways to all origins, and whether anybody but the background is being sent something over one of them: they lead through one link.
import type { Priority } from '../image/blob.ts'
import { type Transfer, Wire } from './wire.ts'

/** The background lets others pass for so long at a time: a registry that trickles does not hold it up for good, nor is it taken for one
 * who reads nothing. */
const ASIDE_MAX_MS = 250
/** Images are of a few. */
const WIRES_MAX = 64

export class Wires {
  readonly #each = new Map<string, Wire>()
  /** Answers that have begun and not ended, of what somebody waits for, or will soon. */
  #flowing = 0
  #free = Promise.withResolvers<void>()

  of(origin: string): Wire {
    let wire = this.#each.get(origin)
    if (wire === undefined) {
      if (this.#each.size >= WIRES_MAX) for (const [of, each] of this.#each) if (each.isIdle) this.#each.delete(of)
      wire = new Wire()
      this.#each.set(origin, wire)
    }
    return wire
  }

  /** A read of so many bytes begins. */
  begin(origin: string, bytes: number, priority: Priority): Transfer {
    const transfer = this.of(origin).begin(bytes, priority === 'background')
    return priority === 'background' ? transfer : this.#counted(transfer)
  }

  /** Resolves when nothing comes for anybody else, or after a while; undefined: nothing does. */
  aside(): Promise<void> | undefined {
    if (this.#flowing === 0) return undefined
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, ASIDE_MAX_MS)
    void this.#free.promise.then(() => {
      clearTimeout(timer)
      resolve()
    })
    return promise
  }

  /** An answer that is waited for uses no link. */
  #counted(transfer: Transfer): Transfer {
    let flows = false
    return {
      came: (to) => {
        if (!flows && ++this.#flowing === 1) this.#free = Promise.withResolvers()
        flows = true
        transfer.came(to)
      },
      end: () => {
        if (flows && --this.#flowing === 0) this.#free.resolve()
        flows = false
        transfer.end()
      },
    }
  }
}
