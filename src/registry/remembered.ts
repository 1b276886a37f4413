// Credentials that somebody handed to this process for one repository: engines do, of an image they are about to pull. They live in
// memory, and on disk where that was asked for (sealed.ts).

import { isDeepStrictEqual } from 'node:util'
import type { Keyring } from './credentials.ts'
import type { Credentials } from './login.ts'
import type { SealedCredentials } from './sealed.ts'

/** Each image that is pulled with credentials of its own is one; the least recently told is forgotten. */
const REPOSITORIES_MAX = 4096

export class RememberedCredentials implements Keyring {
  readonly #known = new Map<string, Credentials>()
  readonly #sealed: SealedCredentials | undefined

  /** @param sealed what an earlier process remembered, and later ones will; undefined: nobody does */
  constructor(sealed?: SealedCredentials) {
    this.#sealed = sealed
  }

  /** They count at once; resolves when later processes know them, too. Never rejects. */
  async remember(host: string, repository: string, credentials: Credentials): Promise<void> {
    this.#note(host, repository, credentials)
    if (this.#sealed === undefined) return
    const kept = await this.#sealed.find(host, repository)
    if (!isDeepStrictEqual(kept, credentials)) await this.#sealed.keep(host, repository, credentials)
  }

  async find(host: string, repository: string, refused?: Credentials): Promise<Credentials | undefined> {
    const key = `${host}/${repository}`
    let found = this.#known.get(key)
    if (found === undefined) {
      found = await this.#sealed?.find(host, repository)
      // what was told in the meantime is newer
      if (this.#known.has(key)) found = this.#known.get(key)
      else if (found !== undefined) this.#note(host, repository, found)
    }
    return refused !== undefined && isDeepStrictEqual(found, refused) ? undefined : found
  }

  /** Those very credentials; newer ones stay. Resolves when no later process knows them. Never rejects. */
  async forget(host: string, repository: string, credentials: Credentials): Promise<void> {
    const key = `${host}/${repository}`
    if (!isDeepStrictEqual(this.#known.get(key), credentials)) return
    this.#known.delete(key)
    await this.#sealed?.forget(host, repository)
  }

  #note(host: string, repository: string, credentials: Credentials): void {
    const key = `${host}/${repository}`
    this.#known.delete(key)
    const oldest = this.#known.keys().next().value
    if (this.#known.size >= REPOSITORIES_MAX && oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(key, credentials)
  }
}

/** Asks one keyring after the other; what was refused is the answer only where no other one has any. */
export function firstOf(...keyrings: readonly Keyring[]): Keyring {
  return {
    async find(host, repository, refused) {
      let last: Credentials | undefined
      for (const each of keyrings) {
        const found = await each.find(host, repository, refused)
        if (found !== undefined && !isDeepStrictEqual(found, refused)) return found
        last ??= found
      }
      return last
    },
  }
}
