// Credentials on disk, sealed: each is encrypted and bound to its registry and repository, so that it opens nowhere else.
//
//   "lazylayer credentials 1\n"  nonce (12)  AES-256-GCM of the credentials' JSON, padded  tag (16)
//
// A file's name is an HMAC, so that a folder of them does not tell which repositories this machine knows.

import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomBytes } from 'node:crypto'
import { describe, Failure } from '../errors.ts'
import type { Credentials } from './login.ts'

/** Where sealed files lie: whole or absent, and bounded in number. */
export interface SealedFiles {
  /** Undefined where there is none; 'damaged' where nobody can have written that. @throws Failure */
  read(name: string): Promise<Uint8Array | 'damaged' | undefined>
  /** Resolves when it is durable. @throws Failure */
  write(name: string, bytes: Uint8Array): Promise<void>
  /** @throws Failure */
  remove(name: string): Promise<void>
  /** Takes it out of the way, for somebody to look at. @throws Failure */
  setAside(name: string): Promise<void>
}

/** Below it a key could be guessed. */
export const SECRET_MIN_BYTES = 32

const MAGIC = Buffer.from('lazylayer credentials 1\n')
const CIPHER = 'aes-256-gcm'
const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Lengths of passwords are told in steps of that size only. */
const PADDING_BYTES = 256

/** Keeps what was remembered beyond the life of this process. A file that cannot be used costs a warning, never a read. */
export class SealedCredentials {
  readonly #sealing: Uint8Array
  readonly #naming: Uint8Array
  readonly #files: SealedFiles
  readonly #warn: (message: string) => void
  /** One change after the other, so that the last one told is the one that stays. */
  #changes: Promise<void> = Promise.resolve()

  /** @param secret at least SECRET_MIN_BYTES that nobody can guess. @throws Failure usage */
  constructor(secret: Uint8Array, files: SealedFiles, warn: (message: string) => void) {
    if (secret.length < SECRET_MIN_BYTES) {
      throw Failure.usage(`the key that seals credentials has ${secret.length} bytes, not at least ${SECRET_MIN_BYTES}`)
    }
    const derived = new Uint8Array(hkdfSync('sha256', secret, new Uint8Array(), MAGIC, 2 * KEY_BYTES))
    this.#sealing = derived.subarray(0, KEY_BYTES)
    this.#naming = derived.subarray(KEY_BYTES)
    this.#files = files
    this.#warn = warn
  }

  async find(host: string, repository: string): Promise<Credentials | undefined> {
    await this.#changes
    const name = this.#name(host, repository)
    return await this.#attempt('be read', async () => {
      const bytes = await this.#files.read(name)
      if (bytes === undefined) return undefined
      const found = bytes === 'damaged' ? undefined : this.#open(bytes, bound(host, repository))
      if (found === undefined) {
        this.#warn(
          `sealed credentials ${name} are set aside: they are damaged, or were sealed for another use or by another key`,
        )
        await this.#files.setAside(name)
      }
      return found
    })
  }

  /** Resolves when it is durable, or was given up with a warning. */
  keep(host: string, repository: string, credentials: Credentials): Promise<void> {
    return this.#change('be kept', () =>
      this.#files.write(this.#name(host, repository), this.#seal(credentials, bound(host, repository))),
    )
  }

  /** Resolves when it is gone, or could not be removed, with a warning. */
  forget(host: string, repository: string): Promise<void> {
    return this.#change('be removed', () => this.#files.remove(this.#name(host, repository)))
  }

  #change(what: string, make: () => Promise<void>): Promise<void> {
    this.#changes = this.#changes.then(() => this.#attempt(what, make))
    return this.#changes
  }

  async #attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#warn(`sealed credentials cannot ${what}: ${describe(error)}`)
      return undefined
    }
  }

  #name(host: string, repository: string): string {
    return createHmac('sha256', this.#naming).update(bound(host, repository)).digest('hex')
  }

  #seal(credentials: Credentials, to: Uint8Array): Uint8Array {
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv(CIPHER, this.#sealing, nonce, { authTagLength: TAG_BYTES })
    cipher.setAAD(to)
    const text = Buffer.from(JSON.stringify(credentials))
    const padded = Buffer.alloc(Math.ceil(text.length / PADDING_BYTES) * PADDING_BYTES, ' ')
    padded.set(text)
    return Buffer.concat([MAGIC, nonce, cipher.update(padded), cipher.final(), cipher.getAuthTag()])
  }

  #open(bytes: Uint8Array, to: Uint8Array): Credentials | undefined {
    const from = MAGIC.length + NONCE_BYTES
    if (bytes.length < from + TAG_BYTES || !MAGIC.equals(bytes.subarray(0, MAGIC.length))) return undefined
    const decipher = createDecipheriv(CIPHER, this.#sealing, bytes.subarray(MAGIC.length, from), {
      authTagLength: TAG_BYTES,
    })
    decipher.setAAD(to)
    decipher.setAuthTag(bytes.subarray(bytes.length - TAG_BYTES))
    try {
      const opened = [decipher.update(bytes.subarray(from, bytes.length - TAG_BYTES)), decipher.final()]
      return JSON.parse(Buffer.concat(opened).toString('utf8')) as Credentials // what was sealed was a Credentials
    } catch {
      return undefined // its tag is another one
    }
  }
}

/** What a sealed file holds true for. */
function bound(host: string, repository: string): Uint8Array {
  return Buffer.concat([MAGIC, Buffer.from(JSON.stringify([host, repository]))])
}
