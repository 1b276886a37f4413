// A blob in memory that counts what is read of it; as many zeros as wanted precede it. Its bytes come on memory of their own, as those of real blobs do.
import type { Source } from '../../src/format/format.ts'
import type { Blob, Range } from '../../src/image/blob.ts'
import { type Digest, digestOf } from '../../src/image/digest.ts'

export class MemoryBlob implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly ranges: Range[] = []
  readonly #bytes: Uint8Array

  readonly #zeros: number

  /** @param zeros bytes of them before `bytes`, which cost no memory; the digest is of `bytes` alone */
  constructor(bytes: Uint8Array, zeros = 0) {
    this.#bytes = bytes
    this.#zeros = zeros
    this.size = zeros + bytes.length
    this.digest = digestOf(bytes)
  }

  async read(range: Range): Promise<Uint8Array> {
    this.ranges.push(range)
    if (range.start < 0 || range.end > this.size || range.start >= range.end) throw new Error('read outside the blob')
    const answer = new Uint8Array(range.end - range.start)
    const from = Math.max(this.#zeros - range.start, 0)
    const at = Math.max(range.start - this.#zeros, 0)
    answer.set(this.#bytes.subarray(at, at + answer.length - from), from)
    return answer
  }
}

/** The source of a layer whose image has no companions, unless they are given by suffix. */
export function sourceOf(
  blob: Blob,
  companions: Record<string, Awaited<ReturnType<Source['companion']>>> = {},
): Source {
  return {
    repository: 'registry.example.com/app',
    blob: () => blob,
    sizeOf: async () => undefined,
    companion: async (suffix) => companions[suffix],
  }
}
