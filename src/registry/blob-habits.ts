// What a host did when it was asked for blobs, remembered so that it is asked better.
import type { Answer } from './client.ts'
import { InRow } from './retry.ts'

/** Blobs whose storage URLs are remembered. */
const TARGETS_MAX = 1024
/** A signed URL is used no more so long before it ends, so that a transfer can still begin. */
const MARGIN_MS = 5_000
/** One that does not say how long it lasts is used that long. */
const LIFETIME_MS = 5 * 60_000

/** Where a redirect led. */
export interface Target {
  url: URL
  referer: string | undefined
  /** Whether the registry leads anybody there. */
  anonymous: boolean
  /** On the clock of performance.now(). */
  until: number
}

type Led = NonNullable<Answer['redirect']> & Pick<Target, 'anonymous'>

/**
 * Where a host's redirects led, for as long as they last: what is asked for again goes there at once. By repository and path, whatever tag
 * led there; in memory only, since a signed URL is a credential.
 */
export class Redirects {
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

/**
 * Blobs that a host sends whole although a range was asked for, three times in a row, for half a minute. That says little of the host: a cache
 * in front of a registry sends each blob whole once, while it fetches it.
 */
export const ignoredRanges = (now?: () => number) => new InRow(3, 30_000, now)

/** Whoever answered several ranges with one, or with the whole blob, is asked so again after that long. */
const APART_MS = 60 * 60_000

/**
 * Whether a host gives several ranges of a blob at once. A registry may that gives bytes itself; the storages of clouds, which others lead
 * to, do not.
 */
export class SeveralRanges {
  /** Undefined: nothing came yet. */
  #givesItself: boolean | undefined
  #apartUntil = Number.NEGATIVE_INFINITY

  /** Whether anything came, which tells. */
  get isKnown(): boolean {
    return this.#givesItself !== undefined
  }

  /** Whether they are worth asking for. Nothing is asked so before anything came. */
  get mayCome(): boolean {
    return this.#givesItself === true && performance.now() >= this.#apartUntil
  }

  /** A range came. @param itself from the host, and not from where it led */
  came(itself: boolean): void {
    this.#givesItself = itself
  }

  /** Several were asked for, and something else came. */
  cameApart(): void {
    this.#apartUntil = performance.now() + APART_MS
  }
}
