// Profiles of starts by image: a record each in the cache's folder `profiles/`. Hints, so that one which is damaged, or of another version,
// is dropped and learned again; and bounded, so that what nobody starts any more leaves.
//
//   profiles/<repository and platform>.<manifest>.json
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { encodeProfile, type Profile, parseProfile } from '../image/profile.ts'
import type { CacheFiles } from './cache-files.ts'
import { ABSENT, diskFailure, systemCode } from './durable.ts'

/** Whose start it is. */
export interface ProfiledImage {
  /** With its host; or the layout. */
  readonly repository: string
  readonly platform: string
  /** Of the platform's manifest. */
  readonly manifest: Digest
}

/** Who says so: a start on this node; the image's repository; a file that a user gave. */
export type ProfileOrigin = (typeof ORIGINS)[number]
const ORIGINS = ['start', 'registry', 'file'] as const

export interface KeptProfile extends ProfiledImage {
  readonly from: ProfileOrigin
  /** When it was kept: milliseconds since 1970. */
  readonly at: number
  readonly profile: Profile
}

const FOLDER = 'profiles'
const NAME = /^[0-9a-f]{64}\.[0-9a-f]{64}\.json$/
/** Of one repository: its last few versions, of which the newest counts for the next one. */
const OF_REPOSITORY_MAX = 8
/** Most have some 20 KiB: what a node starts, and as much again. */
const ALL_MAX = 512
const ALL_MAX_BYTES = 16 << 20
/** What was not started for so long is learned again. */
const AGE_MAX_MS = 90 * 24 * 60 * 60 * 1000

interface Listed {
  name: string
  at: number
  bytes: number
}

export class Profiles {
  readonly #cache: string
  readonly #files: Pick<CacheFiles, 'keepRecord' | 'record' | 'drop'>
  readonly #found: (message: string) => void

  /**
   * @param cache directory of an open Store
   * @param found told of damage, in a sentence
   */
  constructor(
    cache: string,
    files: Pick<CacheFiles, 'keepRecord' | 'record' | 'drop'>,
    found: (message: string) => void,
  ) {
    this.#cache = cache
    this.#files = files
    this.#found = found
  }

  /** In place of the one before; of others, those go that are too many. A profile of nothing is not kept. @throws Failure system */
  async keep({ repository, platform, manifest }: ProfiledImage, from: ProfileOrigin, profile: Profile): Promise<void> {
    const bytes = encodeProfile(profile)
    if (bytes === undefined) return
    const text = new TextDecoder().decode(bytes)
    const name = nameOf({ repository, platform, manifest })
    await this.#files.keepRecord(this.#path(name), { repository, platform, manifest, from, at: Date.now(), text })
    await this.#makeRoom(name)
  }

  /** Of this very image. @throws Failure system */
  async of(image: ProfiledImage): Promise<KeptProfile | undefined> {
    return await this.#read(nameOf(image))
  }

  /** The newest of any version of an image. @throws Failure system */
  async newest(image: Omit<ProfiledImage, 'manifest'>): Promise<KeptProfile | undefined> {
    const listed = (await this.#list()).filter(({ name }) => name.startsWith(`${keyOf(image)}.`))
    for (const { name } of listed) {
      const found = await this.#read(name)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** The newest first. @throws Failure system */
  async all(): Promise<KeptProfile[]> {
    const found: KeptProfile[] = []
    for (const { name } of await this.#list()) {
      const kept = await this.#read(name)
      if (kept !== undefined) found.push(kept)
    }
    return found
  }

  /** @throws Failure system */
  async forget(image: ProfiledImage): Promise<void> {
    await this.#files.drop(this.#path(nameOf(image)), 'remove')
  }

  async #read(name: string): Promise<KeptProfile | undefined> {
    const path = this.#path(name)
    const record = await this.#files.record(path)
    if (record === undefined) return undefined
    const kept = record === 'damaged' ? undefined : keptOf(record)
    if (kept !== undefined && nameOf(kept) === name) return kept
    this.#found(`${path} is dropped: it is damaged, or of another version`)
    await this.#files.drop(path, 'remove')
    return undefined
  }

  /** The newest first. */
  async #list(): Promise<Listed[]> {
    const folder = join(this.#cache, FOLDER)
    const names = await fs.readdir(folder).catch((cause) => {
      if (ABSENT.has(systemCode(cause))) return []
      throw diskFailure(folder, cause)
    })
    const listed = names
      .filter((each) => NAME.test(each))
      .map(async (name): Promise<Listed[]> => {
        const found = await fs.stat(this.#path(name)).catch(() => undefined) // gone meanwhile
        return found === undefined ? [] : [{ name, at: found.mtimeMs, bytes: found.size }]
      })
    return (await Promise.all(listed)).flat().sort((a, b) => b.at - a.at)
  }

  /** @param kept stays whatever there is */
  async #makeRoom(kept: string): Promise<void> {
    const ofRepository = new Map<string, number>()
    const before = Date.now() - AGE_MAX_MS
    let [all, bytes] = [0, 0]
    for (const each of await this.#list()) {
      const key = each.name.slice(0, each.name.indexOf('.'))
      const same = (ofRepository.get(key) ?? 0) + 1
      ofRepository.set(key, same)
      bytes += each.bytes
      const isTooMany = ++all > ALL_MAX || bytes > ALL_MAX_BYTES || same > OF_REPOSITORY_MAX
      if (each.name !== kept && (isTooMany || each.at < before)) await this.#files.drop(this.#path(each.name), 'remove')
    }
  }

  #path(name: string): string {
    return join(this.#cache, FOLDER, name)
  }
}

/** Undefined: it is none of ours. */
function keptOf(record: object): KeptProfile | undefined {
  const { repository, platform, manifest, from, at, text } = record as Record<string, unknown>
  const origin = ORIGINS.find((each) => each === from)
  if (typeof repository !== 'string' || typeof platform !== 'string' || !isDigest(manifest)) return undefined
  if (typeof at !== 'number' || typeof text !== 'string' || origin === undefined) return undefined
  try {
    const profile = parseProfile(new TextEncoder().encode(text), 'a profile on disk')
    return { repository, platform, manifest, from: origin, at, profile }
  } catch (error) {
    if (error instanceof Failure) return undefined // as damage is
    throw error
  }
}

function keyOf({ repository, platform }: Omit<ProfiledImage, 'manifest'>): string {
  return hex(digestOf(new TextEncoder().encode(`${repository} ${platform}`))) // a platform holds no space
}

function nameOf(image: ProfiledImage): string {
  return `${keyOf(image)}.${hex(image.manifest)}.json`
}
