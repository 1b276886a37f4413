// Checked access to the bytes of a RAFS bootstrap. Everything is little-endian.
import { isUtf8 } from 'node:buffer'
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'

export class RafsBytes {
  readonly bytes: Uint8Array
  readonly #what: string | (() => string)
  readonly #view: DataView
  readonly #buffer: Buffer

  /**
   * @param what names the bootstrap in errors: asked then, because most names are of no use
   * @param same of the same bytes
   */
  constructor(bytes: Uint8Array, what: string | (() => string), same?: RafsBytes) {
    this.bytes = bytes
    this.#what = what
    this.#buffer = same ? same.#buffer : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#view = same ? same.#view : new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** Names the bootstrap, or what of it is read, in errors. */
  get what(): string {
    return typeof this.#what === 'string' ? this.#what : this.#what()
  }

  /** The same, a part of which is read: errors name it. */
  within(part: string | (() => string)): RafsBytes {
    const what = () => `${this.what}: ${typeof part === 'string' ? part : part()}`
    return new RafsBytes(this.bytes, what, this)
  }

  /** `length` bytes at `at`, which `of` names. Fields within need no further check. @throws Failure corrupt */
  range(at: number, length: number, of: string): Range {
    this.holds(at, length, of)
    return { start: at, end: at + length }
  }

  /** That it has `length` bytes at `at`. @throws Failure corrupt */
  holds(at: number, length: number, of: string): void {
    if (at + length <= this.bytes.length) return
    throw Failure.corrupt(
      `${this.what}: ${of} has ${length} bytes at ${at}, the bootstrap ends at ${this.bytes.length}`,
    )
  }

  u16(at: number): number {
    return this.#view.getUint16(at, true)
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true)
  }

  /** An offset or a size. @throws Failure corrupt where a number cannot hold it, as no file can be so large */
  u64(at: number, of: string): number {
    const value = this.u32(at + 4) * 2 ** 32 + this.u32(at)
    if (Number.isSafeInteger(value)) return value
    throw Failure.corrupt(`${this.what}: ${of} at ${at} is ${this.bits(at)}`)
  }

  /** Flags. */
  bits(at: number): bigint {
    return this.#view.getBigUint64(at, true)
  }

  /** Seconds since 1970, which may be before it. */
  i64(at: number): bigint {
    return this.#view.getBigInt64(at, true)
  }

  /** `length` bytes at `at` as hex digits. */
  hex(at: number, length: number): string {
    return this.#buffer.toString('hex', at, at + length)
  }

  slice({ start, end }: Range): Uint8Array {
    return this.bytes.subarray(start, end)
  }

  /** @throws Failure unsupported when they are no UTF-8: no path of ours could be the same */
  text(range: Range, of: string): string {
    return this.textOf(this.slice(range), `${of} at ${range.start}`)
  }

  /** The same of bytes that do not lie in one piece. */
  textOf(bytes: Uint8Array, of: string): string {
    if (!isUtf8(bytes)) throw Failure.unsupported(`${this.what}: ${of} is no UTF-8`)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
  }
}
