// The blobs that a tree's chunks are in, each with its copies in all the images that have it.
import type { Blob } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { Copies } from './copies.ts'

/** As many as a blob has copies that are asked. */
const IMAGES_MAX = 4

/** What a blob is known by. */
export interface BlobName {
  readonly digest: Digest
  readonly size: number
}

/** An image, as what blobs are read from. */
export interface BlobSource<B extends Blob> {
  blob(of: BlobName): B
}

export class UnitBlobs<B extends Blob = Blob> {
  readonly #copies = new Map<Digest, Copies<B>>()
  /** The newest first. */
  #images: readonly BlobSource<B>[]

  constructor(first: BlobSource<B>) {
    this.#images = [first]
  }

  /** Another image with the same unit, or the same one opened again. */
  add(image: BlobSource<B>): void {
    this.#images = [image, ...this.#images].slice(0, IMAGES_MAX)
    for (const copies of this.#copies.values()) copies.add(image.blob(copies))
  }

  /** No I/O happens before it is read. */
  of(name: BlobName): Copies<B> {
    const found = this.#copies.get(name.digest)
    if (found !== undefined) return found
    const [oldest, ...newer] = this.#images.toReversed().map((each) => each.blob(name))
    const copies = new Copies(oldest as B) // there is always one image
    for (const each of newer) copies.add(each)
    this.#copies.set(name.digest, copies)
    return copies
  }
}
