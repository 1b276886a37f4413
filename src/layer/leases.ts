// What is opened once and shared by whoever has it open. The last one to close it leaves it open for a while, for whoever comes next:
// within a bound, least recently used first out.
//
//   take ──▶ held ◀──take── idle ──bound──▶ ending ──▶ gone
//             └──last close──▶┘               └─ whoever takes it meanwhile waits for the end, and opens it anew
import { describe } from '../errors.ts'

/** What is shared. */
export interface Shared {
  /** Resolves when it is open; what fails to open must have freed everything. */
  readonly ready: Promise<unknown>
  /** Frees everything. Called once, when it is ready and nobody holds it. */
  end(): Promise<void>
}

/** The right to use something that is shared, until it is closed. */
export interface Lease<S> extends AsyncDisposable {
  readonly of: S
  /** One more, closed by itself; from one that is not closed. */
  again(): Lease<S>
  /** Once is enough, and more do nothing. Resolves when what it ended has ended. */
  close(): Promise<void>
}

interface Entry<S> {
  readonly shared: S
  holders: number
  ending: Promise<void> | undefined
}

export class Leases<K, S extends Shared> {
  readonly #idleMax: number
  readonly #log: (message: string) => void
  readonly #entries = new Map<K, Entry<S>>()
  /** Those that nobody holds, the least recently used first. */
  readonly #idle = new Map<K, Entry<S>>()
  #closed = false

  /**
   * @param idleMax of those that nobody holds
   * @param log told what fails to end
   */
  constructor(idleMax: number, log: (message: string) => void) {
    this.#idleMax = idleMax
    this.#log = log
  }

  /** How many are open, or being opened or ended. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * Resolves when it is open.
   * @param begin opens what nobody has open
   * @param join called in the turn in which it is begun or found, before it is ready
   * @throws what opening it throws; that is not remembered
   */
  async take(key: K, begin: () => S, join: (shared: S) => void = () => {}): Promise<Lease<S>> {
    let entry = this.#entries.get(key)
    for (; entry?.ending !== undefined; entry = this.#entries.get(key)) await entry.ending
    if (entry === undefined) {
      entry = { shared: begin(), holders: 0, ending: undefined }
      this.#entries.set(key, entry)
    }
    const lease = this.#hold(key, entry)
    join(entry.shared)
    try {
      await entry.shared.ready
      return lease
    } catch (error) {
      if (this.#entries.get(key) === entry) this.#entries.delete(key)
      throw error
    }
  }

  /** Resolves when what is being opened now is open, or has failed. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#entries.values()].map(({ shared }) => shared.ready))
  }

  /** Ends all that is open, whoever holds it; from now on nothing is kept. */
  async close(): Promise<void> {
    this.#closed = true
    await this.settled()
    await Promise.all([...this.#entries].map((each) => this.#end(...each)))
  }

  #hold(key: K, entry: Entry<S>): Lease<S> {
    entry.holders++
    this.#idle.delete(key)
    let closing: Promise<void> | undefined
    const close = () => {
      closing ??= this.#release(key, entry)
      return closing
    }
    const again = () => {
      if (closing !== undefined) throw new TypeError('held again after it was closed')
      return this.#hold(key, entry)
    }
    return { of: entry.shared, again, close, [Symbol.asyncDispose]: close }
  }

  async #release(key: K, entry: Entry<S>): Promise<void> {
    if (--entry.holders > 0 || entry.ending !== undefined) return
    this.#idle.set(key, entry)
    const [oldest] = this.#idle
    if (oldest !== undefined && this.#idle.size > (this.#closed ? 0 : this.#idleMax)) await this.#end(...oldest)
  }

  #end(key: K, entry: Entry<S>): Promise<void> {
    this.#idle.delete(key)
    entry.ending ??= entry.shared
      .end()
      .catch((error) => this.#log(`what nobody uses any more cannot be closed: ${describe(error)}`))
      .finally(() => this.#entries.delete(key))
    return entry.ending
  }
}
