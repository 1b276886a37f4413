// What a lazy image format is: a pure parser from an index to entries and chunks, and how to get that index.
import type { Blob, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { StoredChunk } from '../tree/chunk.ts'
import type { Entry } from '../tree/entry.ts'

/** What a layer's index says. */
export interface Contents {
  /** The blobs that chunks refer to by number. */
  blobs: readonly { digest: Digest; size: number }[]
  chunks: readonly StoredChunk[]
  entries: Iterable<Entry>
  /** Numbers of the chunks that the image itself wants ready first, in that order; [] when it says nothing. */
  first: readonly number[]
}

/** Everything parsing may use beside the index; structured-cloneable, because parsing happens in a worker. */
export interface Layer {
  descriptor: Descriptor
}

/** Where a layer's index comes from. */
export interface Source {
  blob: Blob
  /**
   * The layers of the image that is tagged as this one with `suffix` behind it, in the same repository: some tools keep indexes
   * there. Undefined where there is none. Nothing of it is vouched for by this image's manifest.
   * @throws Failure what the registry's answers amount to
   */
  companion(
    suffix: string,
    signal?: AbortSignal,
  ): Promise<readonly { descriptor: Descriptor; blob: Blob }[] | undefined>
}

export interface IndexOptions extends ReadOptions {
  /** Resolves when that much memory may be taken for what an index inflates to; asked once, before it is taken. */
  room?: (bytes: number) => Promise<void>
}

export interface Format {
  readonly name: string
  /** Whether the manifest marks this layer as such; reads no byte. Otherwise the reason why not. */
  detect(layer: Layer): true | string
  /** The identity engines know the index by, as the manifest claims it (readIndex proves it). */
  indexDigest(layer: Layer): Digest
  /** Bytes of the layer's tar as the manifest claims them, if it does. */
  tarSize(layer: Layer): number | undefined
  /**
   * The index's bytes, fetched and checked against the manifest, on memory that is the caller's.
   * @throws Failure corrupt, limit, or what reading the source throws
   */
  readIndex(layer: Layer, source: Source, options?: IndexOptions): Promise<Uint8Array>
  /** Pure. @throws Failure corrupt, limit: naming layer and entry */
  parseIndex(index: Uint8Array, layer: Layer): Contents
}
