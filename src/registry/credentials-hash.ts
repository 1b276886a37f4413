// Credentials, told apart without being kept: by a hash that takes long to compute, as a password may be guessed.
import { scrypt } from 'node:crypto'
import { promisify } from 'node:util'

/** Repositories are as many as are started in an hour. */
const KNOWN_MAX = 1024
const HASH_BYTES = 32

const hash = promisify<string, string, number, Buffer>(scrypt)

export class CredentialsHashes {
  readonly #known = new Map<string, Promise<string>>()

  /** @param repository for which they are: equal ones of two have nothing in common. @returns hexadecimal digits; '': there are none */
  async of(repository: string, credentials: readonly (readonly unknown[])[]): Promise<string> {
    const isNone = (each: unknown) => each === undefined || (Array.isArray(each) && each.length === 0)
    if (credentials.flat().every(isNone)) return ''
    const text = JSON.stringify(credentials)
    const key = `${repository} ${text}`
    const found = this.#known.get(key) ?? hash(text, repository, HASH_BYTES).then((bytes) => bytes.toString('hex'))
    const [oldest] = this.#known.keys()
    if (!this.#known.has(key) && this.#known.size >= KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest)
    this.#known.set(key, found)
    return await found
  }
}
