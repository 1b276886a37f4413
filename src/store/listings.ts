// What engines were shown, so that it is shown again after a restart: a record an image in the cache's folder `listed/`.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { claimFile, diskFailure, makeFolder, readWhole, systemCode } from './durable.ts'
import { decodeRecord, encodeRecord } from './record.ts'
import { TEMPORARY } from './version.ts'

/** An image whose layers were listed. */
export interface Listing {
  reference: string
  manifest: Digest
  /** What its layers were identified by, the lowest first; those above were left to the engine. */
  by: readonly ('diffid' | 'index')[]
}

interface Kept extends Listing {
  root: string
  /** When. */
  at: number
}

const FOLDER = 'listed'
/** A reference has at most some hundred characters, a path 4096. */
const LISTING_MAX_BYTES = 16 << 10
const NAME = /^[0-9a-f]{64}\.json$/

export class ListingRecords {
  readonly #cache: string
  readonly #root: string
  readonly #warn: (message: string) => void
  readonly #kept = new Map<string, Promise<void>>()
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
    await makeFolder(join(cache, FOLDER))
    return new ListingRecords(cache, root, warn)
  }

  /** It is not there for the next process. @throws Failure system */
  async forget(image: Listing): Promise<void> {
    const { key } = this.#keyOf(image)
    const path = join(this.#cache, FOLDER, `${key}.json`)
    await this.#kept.get(key)?.catch(() => {}) // whoever keeps it hears of that
    this.#kept.delete(key)
    await fs.rm(path, { force: true }).catch((cause) => {
      throw diskFailure(path, cause)
    })
  }

  #keyOf({ reference, manifest, by }: Listing) {
    const listing = { root: this.#root, reference, manifest, by }
    return { listing, key: hex(digestOf(new TextEncoder().encode(JSON.stringify(listing)))) }
  }

  /** Resolves when it is durable. @throws Failure system */
  keep(image: Listing): Promise<void> {
    const { listing, key } = this.#keyOf(image)
    let kept = this.#kept.get(key)
    if (kept === undefined) {
      const path = join(this.#cache, FOLDER, `${key}.json`)
      kept = claimFile(join(this.#cache, TEMPORARY), path, encodeRecord({ ...listing, at: this.#now() })).then(() => {})
      this.#kept.set(key, kept)
      kept.catch(() => this.#kept.delete(key)) // the caller hears of it; the next one tries again
    }
    return kept
  }

  /** Milliseconds since 1970, but no two are the same. */
  #now(): number {
    this.#last = Math.max(Date.now(), this.#last + 1)
    return this.#last
  }

  /** Everything kept for this root, the first first; damaged records are dropped, with a warning. @throws Failure system */
  async all(): Promise<Listing[]> {
    const folder = join(this.#cache, FOLDER)
    const found: Kept[] = []
    for (const name of (await fs.readdir(folder)).filter((each) => NAME.test(each)).sort()) {
      const path = join(folder, name)
      const bytes = await readWhole(path, LISTING_MAX_BYTES)
      if (bytes === undefined) continue
      const record = bytes === 'damaged' ? undefined : decodeRecord(bytes)
      if (!isListing(record)) {
        this.#warn(`${path} is dropped: it is damaged, or of another version`)
        await fs.unlink(path).catch((cause) => {
          if (systemCode(cause) !== 'ENOENT') throw diskFailure(path, cause)
        })
        continue
      }
      if (record.root !== this.#root) continue
      found.push(record)
      this.#last = Math.max(this.#last, record.at)
      this.#kept.set(name.slice(0, -'.json'.length), Promise.resolve())
    }
    found.sort((a, b) => a.at - b.at)
    return found.map(({ reference, manifest, by }) => ({ reference, manifest, by }))
  }
}

function isListing(record: unknown): record is Kept {
  if (typeof record !== 'object' || record === null) return false
  if (!('root' in record && 'reference' in record && 'manifest' in record && 'by' in record && 'at' in record))
    return false
  const { root, reference, manifest, by, at } = record
  return (
    typeof root === 'string' &&
    typeof reference === 'string' &&
    isDigest(manifest) &&
    Array.isArray(by) &&
    by.every((each) => each === 'diffid' || each === 'index') &&
    Number.isSafeInteger(at)
  )
}
