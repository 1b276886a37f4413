// A whole blob in a file, read in place of its registry.
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Blob, Range } from '../image/blob.ts'
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

  async read({ start, end }: Range): Promise<Uint8Array> {
    const bytes = new Uint8Array(new SharedArrayBuffer(end - start))
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await this.#file.read(bytes, done, bytes.length - done, start + done)
      if (bytesRead === 0) throw Failure.corrupt(`${this.digest} ends before ${end}`)
      done += bytesRead
    }
    return bytes
  }
}
