// What a registry does not have, or what of it is of no use, so that it is not asked for again soon.

/** Images that are started in an hour, on a node that starts many. */
const KEYS_MAX = 4096

export class Absences {
  /** On the clock of performance.now(); the one that was noted first comes first. */
  readonly #until = new Map<string, number>()

  note(key: string, lifetimeMs: number): void {
    this.#until.delete(key)
    const [oldest] = this.#until.keys()
    if (this.#until.size >= KEYS_MAX && oldest !== undefined) this.#until.delete(oldest)
    this.#until.set(key, performance.now() + lifetimeMs)
  }

  has(key: string): boolean {
    const until = this.#until.get(key)
    if (until === undefined) return false
    if (performance.now() < until) return true
    this.#until.delete(key)
    return false
  }
}
