// The blobs that a tree's chunks are in, each with its copies in all the images that have it.
import type { Blob } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { Copies } from './candidates.ts'

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

/** An image, and the registry or layout that it is in. */
interface Placed<B extends Blob> {
  readonly source: BlobSource<B>
  readonly origin: string
}

export class UnitBlobs<B extends Blob = Blob> {
  readonly #copies = new Map<Digest, Copies<B>>()
  /** The newest first. */
  #images: readonly Placed<B>[]

  constructor(source: BlobSource<B>, origin: string) {
    this.#images = [{ source, origin }]
  }

  /** Another image with the same unit, or the same one opened again. */
  add(source: BlobSource<B>, origin: string): void {
    if (this.#images.some((each) => each.source === source)) return
    this.#images = [{ source, origin }, ...this.#images].slice(0, IMAGES_MAX)
    for (const copies of this.#copies.values()) copies.add(source.blob(copies), origin)
  }

  /** No I/O happens before it is read. */
  of(name: BlobName): Copies<B> {
    const found = this.#copies.get(name.digest)
    if (found !== undefined) return found
    const [oldest, ...newer] = this.#images.toReversed()
    const { source, origin } = oldest as Placed<B> // there is always one image
    const copies = new Copies(source.blob(name), origin)
    for (const each of newer) copies.add(each.source.blob(name), each.origin)
    this.#copies.set(name.digest, copies)
    return copies
  }
}
