// What a lazy image format is: which of an image's layers together make one tree, how to get that tree's index, and a pure parser from
// the index to entries and chunks.
import type { Blob, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import type { StoredChunk } from '../tree/chunk.ts'
import type { Entry } from '../tree/entry.ts'

/** What an index says. */
export interface Contents {
  /** The blobs that chunks refer to by number, each one of the unit's. */
  blobs: readonly { digest: Digest; size: number }[]
  chunks: readonly StoredChunk[]
  entries: Iterable<Entry>
  /** Numbers of the chunks that the image itself wants ready first, in that order; [] when it says nothing. */
  first: readonly number[]
  /**
   * Of a unit of several layers, those that show nothing of it as the index names them. Absent: it names none, and no layer of the
   * unit is shown to engines, which would take each for a tar. Present: the index is the whole layer that shows the tree, and nothing
   * but that layer decides the tree.
   */
  parts?: readonly Part[]
}

/**
 * What of an image makes one tree, as its manifest has it; nothing was read yet. Most units are one layer; others are several, of which
 * one has the index over the blobs of all. Plain values, because parsing happens in a worker.
 */
export interface Unit {
  /** Its format's name. */
  readonly format: string
  /** The layers of the image that it is made of, lowest first. */
  readonly layers: readonly Descriptor[]
  /** The one of them that shows the tree where layers are shown one by one; the others show an empty one. */
  readonly shown: Descriptor
  /** The digest by which the manifest vouches for the index. */
  readonly index: Digest
  /** What engines know the index by, and look for the layer by; `readIndex` proves it. Undefined: they know none, as of a tree of several layers. */
  readonly identity: Digest | undefined
  /** Where chunks may be read from: no other blob that an index names is. The size is left out where only the index says it. */
  readonly blobs: readonly { digest: Digest; size?: number }[]
  /**
   * Its index may name other blobs of the image's repository, too: it is a whole layer, which the manifest vouches for like any, and images
   * of the format share chunks with others.
   */
  readonly borrows?: true
  /** Bytes of the shown layer's tar as the manifest claims them, if it does. */
  readonly tarSize: number | undefined
  /** Which version of its format it is in, as the manifest claims: words for people, on which nothing depends. */
  readonly version?: string
}

/**
 * Why a layer is part of no unit though it is in the format: a sentence. It is of no use as an ordinary layer either: unpacked, it would
 * show something else than its image.
 */
export interface Refused {
  readonly refused: string
}

/** Where indexes and chunks come from. */
export interface Source {
  /** As a Giver has it. */
  readonly repository: string
  /** No I/O happens before it is read. */
  blob(of: { digest: Digest; size: number }): Blob
  /**
   * Bytes that a blob of the same repository has, of which the manifest says nothing, as whoever keeps it says. Undefined: it is not there.
   * @throws Failure what the registry's answers amount to
   */
  sizeOf(digest: Digest, signal?: AbortSignal): Promise<number | undefined>
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

/** What of a manifest units are planned by. */
export type Planned = Pick<Manifest, 'layers'>

export interface Format {
  readonly name: string
  /**
   * Of each layer, in the manifest's order: the unit that it is part of; or the reason why the format refuses it; or why it is not in the
   * format, '' where its media type says it already. Reads no byte.
   */
  plan(manifest: Planned): readonly (Unit | Refused | string)[]
  /**
   * The index's bytes, fetched and checked against the manifest, on memory that is the caller's.
   * @throws Failure corrupt, limit, or what reading the source throws
   */
  readIndex(unit: Unit, source: Source, options?: IndexOptions): Promise<Uint8Array>
  /**
   * Where in the shown layer's blob lies what a start of the image wants first, as far as an index that `readIndex` returned tells without
   * being parsed. Undefined: it does not. A hint: nothing but the order of fetching depends on it. Quick, and never throws.
   */
  firstBytes(index: Uint8Array, unit: Unit): Range | undefined
  /** Pure. @throws Failure corrupt, limit: naming layer and entry */
  parseIndex(index: Uint8Array, unit: Unit): Contents
}

/** How a unit is called in messages. */
export function unitText({ shown }: Unit): string {
  return `layer ${shown.digest}`
}
