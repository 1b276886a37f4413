// A whole blob in a file, read in place of its registry: while somebody has it open, or as long as it is kept.
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'

export class FileBlob implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #file: FileHandle

  /** @param file stays the caller's */
  constructor({ digest, size }: { digest: Digest; size: number }, file: FileHandle) {
    this.digest = digest
    this.size = size
    this.#file = file
  }

  async read({ start, end }: Range, options?: ReadOptions): Promise<Uint8Array> {
    const bytes = new Uint8Array(end - start)
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, bytes.length - done, start + done)
      if (bytesRead === 0) throw Failure.corrupt(`${this.digest} ends before ${end}`)
      void options?.onPart?.(bytes.subarray(done, done + bytesRead), done) // as a disk does not hold anybody up
      done += bytesRead
    }
    return bytes
  }
}

/** Where whole blobs are kept. */
export interface KeptBlobs {
  openUnchecked(digest: Digest): Promise<FileHandle>
}

/** Opened for each read: it may be thrown out, and come again. What is read of it is unverified, as of any blob. */
export class KeptBlob implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #kept: KeptBlobs

  constructor({ digest, size }: { digest: Digest; size: number }, kept: KeptBlobs) {
    this.digest = digest
    this.size = size
    this.#kept = kept
  }

  /** @throws Failure missing: it was thrown out; system; corrupt: it is shorter */
  async read(range: Range, options?: ReadOptions): Promise<Uint8Array> {
    return await readAndClose(await this.#kept.openUnchecked(this.digest), this, range, options)
  }
}

/** Where whole blobs are kept, each looked at before it is used. */
export interface CheckedBlobs {
  /** The caller closes it. Undefined: there is none that is intact. */
  find(digest: Digest): Promise<FileHandle | undefined>
}

/** Read from where it is kept, if it is; else from where it comes. */
export class KeptElse implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #kept: CheckedBlobs
  readonly #other: Blob

  constructor(other: Blob, kept: CheckedBlobs) {
    this.digest = other.digest
    this.size = other.size
    this.#kept = kept
    this.#other = other
  }

  /** @throws Failure system; as the other one's */
  async read(range: Range, options?: ReadOptions): Promise<Uint8Array> {
    const file = await this.#kept.find(this.digest)
    if (file === undefined) return await this.#other.read(range, options)
    return await readAndClose(file, this, range, options)
  }
}

/** @param of what the file holds */
async function readAndClose(
  file: FileHandle,
  of: Pick<Blob, 'digest' | 'size'>,
  range: Range,
  options: ReadOptions | undefined,
): Promise<Uint8Array> {
  try {
    return await new FileBlob(of, file).read(range, options)
  } finally {
    await file.close()
  }
}
