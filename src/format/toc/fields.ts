// Checked access to the fields of an entry in a table of contents.
import { Failure } from '../../errors.ts'
import { type Digest, isDigest } from '../../image/digest.ts'
import { NAME_MAX_BYTES, PATH_MAX_BYTES } from '../../tree/entries.ts'
import { cleanPath, quote } from '../path.ts'
import { parseModtime } from './modtime.ts'
import type { Raw } from './scan.ts'

/** XATTR_SIZE_MAX of Linux. */
const XATTR_MAX_BYTES = 65536

/** `what` names the layer and the entry. Every method throws Failure corrupt or limit. */
export class Fields {
  readonly raw: Raw
  readonly #name: unknown
  readonly #layer: string

  /** @param name of the entry, @param layer as errors name it */
  constructor(raw: Raw, name: unknown, layer: string) {
    this.raw = raw
    this.#name = name
    this.#layer = layer
  }

  get what(): string {
    return `${this.#layer}: entry ${quote(this.#name)}`
  }

  #text(key: string): string {
    const value = this.raw[key]
    if (typeof value === 'string' && value !== '') return value
    throw Failure.corrupt(`${this.what}: ${key} is ${quote(value)}`)
  }

  path(key: string): string {
    return cleanPath(this.#text(key), this)
  }

  target(key: string): string {
    const text = this.#text(key)
    if (text.includes('\0') || !text.isWellFormed()) throw Failure.corrupt(`${this.what}: its target is no path`)
    if (Buffer.byteLength(text) >= PATH_MAX_BYTES) {
      throw Failure.limit(`${this.what}: its target is longer than ${PATH_MAX_BYTES - 1} bytes`)
    }
    return text
  }

  /** Absent and null are 0, as for Go's decoder. */
  integer(key: string, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.raw[key] ?? 0
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw Failure.corrupt(`${this.what}: ${key} is ${quote(value)}`)
    }
    if (value > max) throw Failure.corrupt(`${this.what}: ${key} is ${value}, at most ${max} can be`)
    return value
  }

  time(key: string): bigint {
    const value = this.raw[key] ?? ''
    const time = value === '' ? 0n : typeof value === 'string' ? parseModtime(value) : undefined
    if (time === undefined) throw Failure.corrupt(`${this.what}: ${key} is ${quote(value)}`)
    return time
  }

  /** Only chunks with a digest can be verified, so only those are accepted. */
  digest(key: string, at: number): Digest {
    const value = this.raw[key]
    if (isDigest(value)) return value
    throw Failure.corrupt(`${this.what}: its chunk at ${at} cannot be verified: ${key} is ${quote(value)}`)
  }

  /** Undefined when there are none. */
  xattrs(key: string): Map<string, Uint8Array> | undefined {
    const value = this.raw[key]
    if (value === undefined || value === null) return undefined
    const result = new Map<string, Uint8Array>()
    if (typeof value !== 'object' || Array.isArray(value)) throw Failure.corrupt(`${this.what}: ${key} is no object`)
    for (const [name, text] of Object.entries(value)) {
      if (name === '' || name.includes('\0') || !name.isWellFormed()) {
        throw Failure.corrupt(`${this.what}: ${quote(name)} is no name of an extended attribute`)
      }
      if (Buffer.byteLength(name) > NAME_MAX_BYTES) {
        throw Failure.limit(`${this.what}: an extended attribute's name is longer than ${NAME_MAX_BYTES} bytes`)
      }
      result.set(name, this.#base64(name, text ?? ''))
    }
    return result.size > 0 ? result : undefined
  }

  #base64(name: string, text: unknown): Uint8Array {
    if (typeof text !== 'string' || text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) {
      throw Failure.corrupt(`${this.what}: extended attribute ${quote(name)} is no base64`)
    }
    const bytes = new Uint8Array(Buffer.from(text, 'base64'))
    if (bytes.length > XATTR_MAX_BYTES) {
      throw Failure.limit(`${this.what}: extended attribute ${quote(name)} has more than ${XATTR_MAX_BYTES} bytes`)
    }
    return bytes
  }
}
