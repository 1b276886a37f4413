// Where a host's redirects led, for as long as they last: what is asked for again goes there at once. In memory only, since a signed URL is
// a credential.
import type { Answer } from './client.ts'

/** Blobs whose storage URLs are remembered. */
const TARGETS_MAX = 1024
/** A signed URL is used no more so long before it ends, so that a transfer can still begin. */
const MARGIN_MS = 5_000
/** One that does not say how long it lasts is used that long. */
const LIFETIME_MS = 5 * 60_000

export interface Target {
  url: URL
  referer: string | undefined
  /** Whether the registry leads anybody there. */
  anonymous: boolean
  /** On the clock of performance.now(). */
  until: number
}

type Led = NonNullable<Answer['redirect']> & Pick<Target, 'anonymous'>

/** By repository and path, whatever tag led there. */
export class Targets {
  readonly #known = new Map<string, Target>()

  of(repository: string, path: string): Target | undefined {
    const key = keyOf(repository, path)
    const target = this.#known.get(key)
    if (target === undefined || performance.now() < target.until) return target
    this.#known.delete(key)
    return undefined
  }

  remember(repository: string, path: string, redirect: Led): void {
    const { url, referer, anonymous, lifetimeMs } = redirect
    const [oldest] = this.#known.keys()
    if (this.#known.size >= TARGETS_MAX && oldest !== undefined) this.#known.delete(oldest)
    const until = performance.now() + (lifetimeMs ?? LIFETIME_MS) - MARGIN_MS
    this.#known.set(keyOf(repository, path), { url, referer, anonymous, until })
  }

  /** It led nowhere. */
  forget(repository: string, path: string): void {
    this.#known.delete(keyOf(repository, path))
  }
}

/** Neither has a blank. */
function keyOf(repository: string, path: string): string {
  return `${repository} ${path}`
}
