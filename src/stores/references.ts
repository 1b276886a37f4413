// References that engines asked the layer store for: each is a directory. They are chosen by whoever may look into the store, exist or
// not, and are asked for again when they are wanted again; so those of which nothing is shown are few, and old ones leave. Who asks for
// many pushes out their own.
import type { AskedImage } from './asked-image.ts'

/** A reference that an engine asked for. */
export interface Known {
  readonly node: bigint
  /** Of its directory, as the engine wrote it. */
  readonly name: string
  /** The reference, for messages. */
  readonly text: string
  readonly asked: Pick<AskedImage, 'listing' | 'close'>
  /** Who asked for it first. */
  readonly user: number
}

interface Entry {
  readonly known: Known
  /** Lookups in it that are under way, and layers that are shown in it. */
  uses: number
  /** When the last of them began: milliseconds of a clock that only goes forward. */
  usedAt: number
  /** When they ended, or it was asked for. */
  idleSince: number
}

/** Of which nothing is shown, of all users: more than anybody pulls at once, at a kilobyte each. */
export const IDLE_MAX = 1_000

export class References {
  readonly #gone: (known: Known) => void
  readonly #now: () => number
  readonly #entries = new Map<bigint, Entry>()
  /** Those without uses by who asked for them, the longest ago first; no user has none. */
  readonly #idle = new Map<number, Set<Entry>>()
  #idleCount = 0

  /**
   * @param gone takes the directory of one that leaves away
   * @param now milliseconds of a clock that only goes forward
   */
  constructor(gone: (known: Known) => void, now: () => number) {
    this.#gone = gone
    this.#now = now
  }

  get size(): number {
    return this.#entries.size
  }

  get(node: bigint): Known | undefined {
    return this.#entries.get(node)?.known
  }

  add(known: Known): void {
    const entry = { known, uses: 0, usedAt: 0, idleSince: this.#now() }
    this.#entries.set(known.node, entry)
    this.#rest(entry)
  }

  /** Keeps it until the function that is returned is called. It must be here. */
  use({ node }: Known): () => void {
    const entry = this.#entries.get(node)
    if (entry === undefined) throw new TypeError('a reference that has left is used')
    this.#wake(entry)
    entry.uses++
    entry.usedAt = this.#now()
    let over = false
    return () => {
      if (over) return
      over = true
      if (--entry.uses === 0) this.#rest(entry)
    }
  }

  /** Has those leave that were of no use for so long; `pauseMs`: has those close what they opened that were of none for so long. */
  expire(maxIdleMs: number, pauseMs: number): void {
    const now = this.#now()
    for (const idle of [...this.#idle.values()]) {
      for (const entry of [...idle]) {
        const idleMs = now - entry.idleSince
        if (idleMs >= maxIdleMs) this.#leave(entry)
        else if (idleMs >= pauseMs) entry.known.asked.close()
      }
    }
    // also of those in use: an image may be run for ever, and was pulled once
    for (const { known, uses, usedAt } of this.#entries.values()) {
      if (uses > 0 && now - usedAt >= pauseMs) known.asked.close()
    }
  }

  #rest(entry: Entry): void {
    const { user } = entry.known
    entry.idleSince = this.#now()
    const idle = this.#idle.get(user) ?? new Set()
    this.#idle.set(user, idle)
    idle.add(entry)
    this.#idleCount++
    if (this.#idleCount <= IDLE_MAX) return
    let most = idle
    for (const each of this.#idle.values()) if (each.size > most.size) most = each
    const [oldest] = most
    if (oldest !== undefined) this.#leave(oldest)
  }

  #wake(entry: Entry): void {
    const { user } = entry.known
    const idle = this.#idle.get(user)
    if (!idle?.delete(entry)) return
    this.#idleCount--
    if (idle.size === 0) this.#idle.delete(user)
  }

  #leave(entry: Entry): void {
    this.#wake(entry)
    this.#entries.delete(entry.known.node)
    entry.known.asked.close()
    this.#gone(entry.known)
  }
}
