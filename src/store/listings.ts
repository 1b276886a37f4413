// What engines were shown, so that it is shown again after a restart: a record an image in the cache's folder `listed/`, and its twin.
import { join } from 'node:path'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { makeFolderIfTaken } from './durable.ts'
import { keepTwins, namesOfTwins, readTwins, removeTwins } from './twins.ts'

/** An image whose layers were listed. */
export interface Listing {
  reference: string
  manifest: Digest
  /** What its layers were identified by, the lowest first; those above were left to the engine. */
  by: readonly ('diffid' | 'index')[]
  /** Which of them were proven to bear it; none where it is not said. It tells a proof that was lost from a claim that was believed. */
  proven?: readonly boolean[]
  /** When it was last asked for, within an hour: milliseconds since 1970. */
  askedAt?: number
}

/** An image that is asked for all the time is not written all the time. */
const ASKED_EVERY_MS = 3_600_000

interface KeptListing extends Listing {
  root: string
  /** When it was kept first. */
  at: number
}

interface Keeping {
  proven: readonly boolean[]
  askedAt: number
  at: number
  done: Promise<void>
}

const FOLDER = 'listed'
const NAME = /^([0-9a-f]{64})\.json$/

export class ListingRecords {
  readonly #cache: string
  readonly #root: string
  readonly #warn: (message: string) => void
  readonly #kept = new Map<string, Keeping>()
  /** By key: records that are being removed. */
  readonly #going = new Map<string, Promise<void>>()
  #last = 0

  private constructor(cache: string, root: string, warn: (message: string) => void) {
    this.#cache = cache
    this.#root = root
    this.#warn = warn
  }

  /**
   * @param cache directory of an open Store
   * @param root where it is shown: agents with other roots may share the cache
   * @throws Failure system
   */
  static async open(cache: string, root: string, warn: (message: string) => void): Promise<ListingRecords> {
    await makeFolderIfTaken(join(cache, FOLDER))
    return new ListingRecords(cache, root, warn)
  }

  /** It is not there for the next process. @throws Failure system */
  async forget(image: Listing): Promise<void> {
    const key = keyOf(this.#root, image)
    const kept = this.#kept.get(key)?.done.catch(() => {}) // whoever keeps it hears of that
    this.#kept.delete(key)
    const before = Promise.all([kept, this.#going.get(key)?.catch(() => {})]) // whoever removes it hears of that
    const going = before.then(() => removeTwins(this.#cache, nameOf(key)))
    this.#going.set(key, going)
    try {
      await going
    } finally {
      if (this.#going.get(key) === going) this.#going.delete(key)
    }
  }

  /** Resolves when it is durable; once is enough, unless more of its layers were proven since, or an hour went by. @throws Failure system */
  keep({ reference, manifest, by, proven = [], askedAt = 0 }: Listing): Promise<void> {
    const key = keyOf(this.#root, { reference, manifest, by })
    const before = this.#kept.get(key)
    const all = by.map((_, i) => (before?.proven[i] ?? false) || (proven[i] ?? false))
    const isNews = before === undefined || askedAt - before.askedAt >= ASKED_EVERY_MS
    if (!isNews && all.every((each, i) => each === before.proven[i])) return before.done
    const at = before?.at ?? this.#now()
    const asked = Math.max(askedAt, before?.askedAt ?? 0)
    const record: KeptListing = {
      root: this.#root,
      reference,
      manifest,
      by,
      ...(all.includes(true) ? { proven: all } : {}),
      ...(asked > 0 ? { askedAt: asked } : {}),
      at,
    }
    const write = () => keepTwins(this.#cache, nameOf(key), record)
    const kept = {
      proven: all,
      askedAt: asked,
      at,
      done: before === undefined ? this.#gone(key).then(write) : before.done.then(write),
    }
    this.#kept.set(key, kept)
    // the caller hears of it; the next one tries again
    kept.done.catch(() => this.#kept.get(key) === kept && this.#kept.delete(key))
    return kept.done
  }

  /** Resolves when no record of this key is being removed. */
  async #gone(key: string): Promise<void> {
    await this.#going.get(key)?.catch(() => {}) // whoever removes it hears of that
  }

  /** Milliseconds since 1970, but no two are the same. */
  #now(): number {
    this.#last = Math.max(Date.now(), this.#last + 1)
    return this.#last
  }

  /** Everything kept for this root, the first first; records of which nothing is left are dropped, with a warning. @throws Failure system */
  async all(): Promise<Listing[]> {
    const found: KeptListing[] = []
    for (const name of await namesOfTwins(this.#cache, FOLDER)) {
      const key = NAME.exec(name)?.[1]
      if (key === undefined) continue
      const is = (record: unknown): record is KeptListing => isListing(record) && keyOf(record.root, record) === key
      const record = await readTwins(this.#cache, nameOf(key), is, this.#warn)
      if (record === undefined || record.root !== this.#root) continue
      found.push(record)
      this.#last = Math.max(this.#last, record.at)
      const proven = record.by.map((_, i) => record.proven?.[i] ?? false)
      this.#kept.set(key, { proven, askedAt: record.askedAt ?? 0, at: record.at, done: Promise.resolve() })
    }
    found.sort((a, b) => a.at - b.at)
    return found.map(({ root: _, at: __, ...listing }) => listing)
  }
}

function nameOf(key: string): string {
  return join(FOLDER, `${key}.json`)
}

function keyOf(root: string, { reference, manifest, by }: Listing): string {
  return hex(digestOf(new TextEncoder().encode(JSON.stringify({ root, reference, manifest, by }))))
}

function isListing(record: unknown): record is KeptListing {
  if (typeof record !== 'object' || record === null) return false
  if (!('root' in record && 'reference' in record && 'manifest' in record && 'by' in record && 'at' in record))
    return false
  const { root, reference, manifest, by, at } = record
  const proven = 'proven' in record ? record.proven : []
  const askedAt = 'askedAt' in record ? record.askedAt : 0
  return (
    typeof root === 'string' &&
    typeof reference === 'string' &&
    isDigest(manifest) &&
    Array.isArray(by) &&
    by.every((each) => each === 'diffid' || each === 'index') &&
    Array.isArray(proven) &&
    proven.every((each) => typeof each === 'boolean') &&
    Number.isSafeInteger(at) &&
    Number.isSafeInteger(askedAt)
  )
}
