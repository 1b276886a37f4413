// Who may have some bytes, and in which order they are asked for them.
//
//   asked first   what brought something last, until it fails
//                 the newest of each origin: its credentials are the freshest
//   asked last    the others, the oldest last
//
// An origin is asked for the same bytes once at a time, whoever of it is asked. How long it may stay silent is judged where it is asked
// (registry/outages.ts); here it is only judged whether somebody else is asked beside it, and that by what it moves, not by the clock.
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

/** Who is asked has brought nothing for that long: another origin is asked as well. What a registry takes to begin, usually, is less. */
export const PATIENCE_MS = 15_000
/** How often it is looked. */
export const LOOK_MS = PATIENCE_MS / 3

/** When bytes came last. */
export class Progress {
  /** performance.now() */
  at = Number.NEGATIVE_INFINITY

  moved(): void {
    this.at = performance.now()
  }

  /** A blob whose reads are heard of here. */
  of(blob: Blob): Blob {
    return {
      digest: blob.digest,
      size: blob.size,
      read: (range, options) =>
        blob.read(range, {
          ...options,
          onPart: (part, at) => {
            this.moved()
            return options?.onPart?.(part, at)
          },
        }),
    }
  }
}

export interface Candidate {
  /** Whose bytes they are; undefined: the disk's. */
  readonly origin: string | undefined
  readonly progress: Progress
}

/** At most `max` of them; each with how it did. */
export class Candidates<C extends Candidate> {
  readonly #max: number
  /** The newest first. */
  #all: readonly C[] = []
  /** Those whose last word was a failure. */
  readonly #failed = new WeakSet<C>()
  /** The one that brought something last, until it fails. */
  #lastGood: C | undefined

  constructor(max: number) {
    this.#max = max
  }

  /** The newest first. */
  get all(): readonly C[] {
    return this.#all
  }

  /**
   * When there are too many, another one leaves, and is returned; never the last good. It is one of the origin that has most, and of
   * those one that failed, else the newest: many that one registry makes up push out each other, and not whoever was there first.
   */
  add(candidate: C): C | undefined {
    this.#all = [candidate, ...this.#all]
    if (this.#all.length <= this.#max) return undefined
    const ofOrigin = (wanted: string | undefined) => this.#all.filter(({ origin }) => origin === wanted).length
    const failed = (each: C) => Number(this.#failed.has(each))
    const [leaving] = this.#all
      .filter((each) => each !== candidate && each !== this.#lastGood)
      .sort((a, b) => ofOrigin(b.origin) - ofOrigin(a.origin) || failed(b) - failed(a))
    this.#all = this.#all.filter((each) => each !== leaving)
    return leaving
  }

  /** It is asked no more. */
  remove(candidate: C): void {
    this.#all = this.#all.filter((each) => each !== candidate)
    if (this.#lastGood === candidate) this.#lastGood = undefined
  }

  brought(candidate: C): void {
    if (!this.#all.includes(candidate)) return
    this.#lastGood = candidate
    this.#failed.delete(candidate)
  }

  failed(candidate: C): void {
    if (!this.#all.includes(candidate)) return
    if (this.#lastGood === candidate) this.#lastGood = undefined
    this.#failed.add(candidate)
  }

  /** In which they are asked, behind `first`. */
  order(first: readonly C[] = []): readonly C[] {
    const lastGood = this.#lastGood === undefined ? [] : [this.#lastGood]
    return [...first, ...lastGood, ...this.#all]
  }

  /** Who is asked next for what `inquiry` is about: not asked yet, and of no origin that is just being asked for it. */
  next(inquiry: Inquiry<C>, order = this.order()): C | undefined {
    let next: C | undefined
    for (const each of order) {
      if (!inquiry.mayAsk(each)) continue
      const isFirst = each.origin === undefined || each === this.#lastGood || !inquiry.hasAsked(each.origin)
      if (isFirst) return each
      next ??= each
    }
    return next
  }
}

/** One thing that is wanted, and who was asked for it. */
export class Inquiry<C extends Candidate> {
  // few each, and there is an inquiry for each chunk of a layer: no sets
  readonly #asked: C[] = []
  /** Those who have not answered, and since when they are asked (performance.now). */
  readonly #open: { candidate: C; since: number }[] = []

  /** Whether somebody has not answered. */
  get isOpen(): boolean {
    return this.#open.length > 0
  }

  ask(candidate: C, now = performance.now()): void {
    this.#asked.push(candidate)
    this.#open.push({ candidate, since: now })
  }

  answered(candidate: C): void {
    const at = this.#open.findIndex((each) => each.candidate === candidate)
    if (at >= 0) this.#open.splice(at, 1)
  }

  hasAsked(origin: string): boolean {
    return this.#asked.some((each) => each.origin === origin)
  }

  mayAsk(wanted: C): boolean {
    if (this.#asked.length === 0) return true
    if (this.#asked.includes(wanted)) return false
    return wanted.origin === undefined || !this.#open.some(({ candidate }) => candidate.origin === wanted.origin)
  }

  /** Whether nobody who is asked has brought anything for `PATIENCE_MS`. */
  get standsStill(): boolean {
    const now = performance.now()
    return this.#open.every(({ candidate, since }) => now - Math.max(since, candidate.progress.at) >= PATIENCE_MS)
  }
}

/** More than a few tags of one layer are all the same registry. */
const COPIES_MAX = 4

interface Copy<B> extends Candidate {
  readonly blob: B
}

/** The same blob in several repositories, asked one after the other. `B`: what a copy can do. */
export class Copies<B extends Blob = Blob> implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #copies = new Candidates<Copy<B>>(COPIES_MAX)

  constructor(first: B, origin: string) {
    this.digest = first.digest
    this.size = first.size
    this.add(first, origin)
  }

  add(blob: B, origin: string): void {
    if (this.#copies.all.some((each) => each.blob === blob)) return
    this.#copies.add({ blob, origin, progress: new Progress() })
  }

  /** From the first copy that brings it; after a failure the parts come again from the beginning of the range. */
  async read(range: Range, options?: ReadOptions): Promise<Uint8Array> {
    const inquiry = new Inquiry<Copy<B>>()
    const failures = new Map<Copy<B>, unknown>()
    for (let copy = this.#copies.next(inquiry); copy !== undefined; copy = this.#copies.next(inquiry)) {
      inquiry.ask(copy)
      try {
        const bytes = await copy.blob.read(range, options)
        this.#copies.brought(copy)
        return bytes
      } catch (error) {
        if (options?.signal?.aborted) throw error
        this.#copies.failed(copy)
        failures.set(copy, error)
      }
      inquiry.answered(copy)
    }
    throw this.#reason(failures)
  }

  /**
   * Resolves when `bring` brought all of a copy. The next one, also one that was added meanwhile, is asked when one fails; one of another
   * origin also when nothing moves.
   * @param bring calls `moved` when bytes came
   * @throws what the newest failed with, when all have
   */
  async whole(bring: (blob: B, moved: () => void) => Promise<void>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const inquiry = new Inquiry<Copy<B>>()
    const failures = new Map<Copy<B>, unknown>()
    let over = false
    const next = () => {
      if (over) return
      const copy = this.#copies.next(inquiry)
      if (copy === undefined) {
        if (!inquiry.isOpen) reject(this.#reason(failures))
        return
      }
      inquiry.ask(copy)
      bring(copy.blob, () => copy.progress.moved()).then(
        () => {
          this.#copies.brought(copy)
          resolve()
        },
        (error) => {
          this.#copies.failed(copy)
          failures.set(copy, error)
          inquiry.answered(copy)
          next()
        },
      )
    }
    next()
    const looking = setInterval(() => inquiry.standsStill && next(), LOOK_MS)
    try {
      await promise
    } finally {
      over = true
      clearInterval(looking)
    }
  }

  /** What the newest says counts: its credentials are the freshest. */
  #reason(failures: ReadonlyMap<Copy<B>, unknown>): unknown {
    const newest = this.#copies.all.find((each) => failures.has(each))
    return newest === undefined ? failures.values().next().value : failures.get(newest)
  }
}
