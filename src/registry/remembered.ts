// Credentials that somebody handed to this process for one repository: engines do, of an image they are about to pull. They live in
// memory only.
import type { Credentials, Keyring } from './credentials.ts'

/** Each image that is pulled with credentials of its own is one; the least recently told is forgotten. */
const REPOSITORIES_MAX = 4096

export class RememberedCredentials implements Keyring {
  readonly #known = new Map<string, Credentials>()

  remember(host: string, repository: string, credentials: Credentials): void {
    const key = `${host}/${repository}`
    this.#known.delete(key)
    const oldest = this.#known.keys().next().value
    if (this.#known.size >= REPOSITORIES_MAX && oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(key, credentials)
  }

  async find(host: string, repository: string): Promise<Credentials | undefined> {
    return this.#known.get(`${host}/${repository}`)
  }
}

/** Asks one keyring after the other. */
export function firstOf(...keyrings: readonly Keyring[]): Keyring {
  return {
    async find(host, repository) {
      for (const each of keyrings) {
        const found = await each.find(host, repository)
        if (found !== undefined) return found
      }
      return undefined
    },
  }
}
