// A blob of an OCI layout: one file, opened at its first read.
import { constants } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { abortion, Failure } from '../errors.ts'
import type { Range, ReadOptions } from '../image/blob.ts'
import { type Digest, hex } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { checkRange } from './blob.ts'
import { isAbsent } from './file.ts'
import type { StoredBlob, StreamOptions } from './source.ts'

const STREAM_BYTES = 1 << 20

/** Undefined where the layout in `dir` has no such blob. @throws Failure unavailable */
export async function sizeOfBlob(dir: string, digest: Digest): Promise<number | undefined> {
  const path = pathOf(dir, digest)
  try {
    return (await stat(path)).size
  } catch (cause) {
    if (isAbsent(cause)) return undefined
    throw Failure.unavailable(`cannot look at ${path}`, { cause })
  }
}

/** Its file must be a regular one of exactly the size that its descriptor names. */
export class LayoutBlob implements StoredBlob {
  readonly digest: Digest
  readonly size: number
  readonly origin: string
  readonly #path: string
  #file: Promise<FileHandle> | undefined
  #closed = false

  /** `dir` is the layout's folder. */
  constructor(dir: string, descriptor: Descriptor) {
    this.digest = descriptor.digest
    this.size = descriptor.size
    this.origin = `oci:${resolve(dir)}`
    this.#path = pathOf(dir, descriptor.digest)
  }

  async read(range: Range, options: ReadOptions = {}): Promise<Uint8Array> {
    checkRange(range, this)
    await options.onGiver?.({ repository: this.origin, anonymous: false })
    const bytes = new Uint8Array(range.end - range.start)
    const file = await this.#open()
    for (let filled = 0; filled < bytes.length; ) {
      if (options.signal?.aborted) throw abortion(options.signal)
      const { bytesRead } = await file
        .read(bytes, filled, bytes.length - filled, range.start + filled)
        .catch((cause: unknown) => Promise.reject(Failure.unavailable(`cannot read ${this.#path}`, { cause })))
      if (bytesRead === 0) throw Failure.corrupt(`${this.#path} ends before its ${this.size} bytes`)
      void options.onPart?.(bytes.subarray(filled, filled + bytesRead), filled) // who is to wait is nobody: it is no link
      filled += bytesRead
    }
    return bytes
  }

  async stream(take: (bytes: Uint8Array) => Promise<void>, options: StreamOptions = {}): Promise<void> {
    for (let start = 0; start < this.size; start += STREAM_BYTES) {
      await take(await this.read({ start, end: Math.min(this.size, start + STREAM_BYTES) }, options))
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    const file = await this.#file?.catch(() => undefined) // one that did not open needs no closing
    await file?.close()
  }

  #open(): Promise<FileHandle> {
    if (this.#closed) throw Failure.aborted(`${this.#path} was closed`)
    this.#file ??= this.#openChecked().catch((error) => {
      this.#file = undefined // the next read tries again
      throw error
    })
    return this.#file
  }

  async #openChecked(): Promise<FileHandle> {
    let file: FileHandle
    try {
      // a FIFO in the place of a blob must not block us
      file = await open(this.#path, constants.O_RDONLY | constants.O_NONBLOCK)
    } catch (cause) {
      if (isAbsent(cause))
        throw Failure.missing(`the layout has no blob ${this.digest}`, { why: `${this.#path} does not exist` })
      throw Failure.unavailable(`cannot open ${this.#path}`, { cause }) // this layout's: another source may have the blob
    }
    const found = await file.stat()
    if (found.isFile() && found.size === this.size) return file
    await file.close()
    if (!found.isFile()) throw Failure.corrupt(`${this.#path} is no regular file`)
    throw Failure.corrupt(`${this.#path}: want ${this.size} bytes, got ${found.size}`)
  }
}

/** A digest holds only hex digits, so the path stays within the layout. */
function pathOf(dir: string, digest: Digest): string {
  return join(dir, 'blobs', 'sha256', hex(digest))
}
