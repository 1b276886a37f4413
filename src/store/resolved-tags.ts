// What tags meant the last time, so that a restart needs no network: a record for each reference and platform in the cache's folder
// `references/`, and its twin.
import { join } from 'node:path'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import type { CacheFiles } from './cache-files.ts'
import { type Found, keepTwins, readTwins, says } from './twins.ts'

export interface ResolvedTag {
  manifest: Digest
  /** When it was resolved: milliseconds since 1970. */
  at: number
}

export class ResolvedTags {
  readonly #cache: string
  readonly #files: Pick<CacheFiles, 'unlessRefused'>
  readonly #found: Found

  /** @param cache directory of an open Store */
  constructor(cache: string, files: Pick<CacheFiles, 'unlessRefused'>, found: Found) {
    this.#cache = cache
    this.#files = files
    this.#found = found
  }

  /** Where the disk takes nothing, the next start asks the registry. @throws Failure system */
  async keep(reference: string, platform: string, manifest: Digest): Promise<void> {
    const record = { reference, platform, manifest, at: Date.now() }
    await this.#files.unlessRefused(() => keepTwins(this.#cache, nameOf(reference, platform), record))
  }

  /** @throws Failure system */
  async of(reference: string, platform: string): Promise<ResolvedTag | undefined> {
    const is = (record: unknown): record is ResolvedTag =>
      says(record, { reference, platform }) && 'manifest' in record && isDigest(record.manifest) && 'at' in record
    const found = await readTwins(this.#cache, nameOf(reference, platform), is, this.#found)
    return found === undefined ? undefined : { manifest: found.manifest, at: found.at }
  }
}

function nameOf(reference: string, platform: string): string {
  const key = digestOf(new TextEncoder().encode(`${reference} ${platform}`)) // a platform holds no space
  return join('references', `${hex(key)}.json`)
}
