// Writes gzip members one after the other into a file: compressed side by side, written and counted in order.
import { createHash } from 'node:crypto'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import { Failure } from '../errors.ts'
import { type Digest, finish } from '../image/digest.ts'

/** As many as libuv has threads by default. */
const PENDING_MAX = 4
const compress = promisify(gzip)

export interface Written {
  /** Of the blob. */
  digest: Digest
  /** Bytes of the blob. */
  size: number
  /** SHA-256 of the tar. */
  diffId: Digest
  /** Bytes of the tar. */
  uncompressedSize: number
}

export class MemberWriter {
  readonly #handle: FileHandle
  readonly #level: number
  readonly #blob = createHash('sha256')
  readonly #tar = createHash('sha256')
  readonly #pending: Promise<void>[] = []
  #last: Promise<void> = Promise.resolve()
  #size = 0
  #tarSize = 0

  private constructor(handle: FileHandle, level: number) {
    this.#handle = handle
    this.#level = level
  }

  /**
   * Makes `path` with what `write` writes; on failure the file is removed.
   * @throws Failure system, or what `write` throws
   */
  static async make(path: string, level: number, write: (to: MemberWriter) => Promise<void>): Promise<Written> {
    let handle: FileHandle
    try {
      handle = await open(path, 'w', 0o644)
    } catch (cause) {
      throw Failure.system(`cannot make ${path}`, { cause })
    }
    const writer = new MemberWriter(handle, level)
    try {
      await write(writer)
      await writer.position()
    } catch (error) {
      await Promise.allSettled(writer.#pending)
      await handle.close()
      await rm(path, { force: true })
      throw error
    }
    await handle.close()
    return {
      digest: finish(writer.#blob),
      size: writer.#size,
      diffId: finish(writer.#tar),
      uncompressedSize: writer.#tarSize,
    }
  }

  /** A member of the next bytes of the tar; `placed` learns where in the blob it begins. Waits while enough is under way. */
  async member(tar: Uint8Array, placed?: (offset: number) => void): Promise<void> {
    this.#tar.update(tar)
    this.#tarSize += tar.length
    const compressed = compress(tar, { level: this.#level })
    const before = this.#last
    const written = (async () => {
      // both are awaited at once, so that neither is left to fail unheard
      const [bytes] = await Promise.all([compressed, before])
      placed?.(this.#size)
      await this.#append(bytes)
    })()
    this.#last = written
    written.catch(() => {}) // heard by whoever waits for it below
    this.#pending.push(written)
    if (this.#pending.length >= PENDING_MAX) await this.#pending.shift()
  }

  /** Waits until all members are written; where the blob ends so far. */
  async position(): Promise<number> {
    await this.#last
    return this.#size
  }

  /** Bytes that are no part of the tar. */
  async trailer(bytes: Uint8Array): Promise<void> {
    await this.position()
    await this.#append(bytes)
  }

  async #append(bytes: Uint8Array): Promise<void> {
    this.#blob.update(bytes)
    this.#size += bytes.length
    await this.#handle.appendFile(bytes)
  }
}
