// What a manifest says of a zstd:chunked layer's table of contents: where it is, and by which digests it vouches for it.
//
// Two families of writers, by their annotations:
//   containers/storage (Podman, Buildah, Skopeo)   io.github.containers.zstd-chunked.manifest-checksum    of the table, compressed
//                                                  io.github.containers.zstd-chunked.manifest-position    where it is
//   stargz-snapshotter (ctr-remote, nerdctl)       containerd.io/snapshot/stargz/toc.digest               of the table's JSON
//                                                  io.containers.zstd-chunked.manifest-checksum, -position   as above
// The first versions of containers/storage wrote the latter's names without the JSON's digest. Engines refuse an image that has both
// kinds of digest that they know, so a layer is in one family or in none.
//
// A position is `offset:length:length of the JSON:1`; the last number is the table's type, of which there is one.
import { type Digest, isDigest } from '../../image/digest.ts'
import type { Descriptor } from '../../image/manifest.ts'
import { TOC_DIGEST } from '../estargz/estargz.ts'

/** The digest of a compressed table by which engines look for a layer. */
export const CONTAINERS_CHECKSUM = 'io.github.containers.zstd-chunked.manifest-checksum'
export const CONTAINERS_POSITION = 'io.github.containers.zstd-chunked.manifest-position'
export const STARGZ_CHECKSUM = 'io.containers.zstd-chunked.manifest-checksum'
export const STARGZ_POSITION = 'io.containers.zstd-chunked.manifest-position'

/** ManifestTypeCRFS: the table is as eStargz has it. */
const TYPE = 1
const POSITION = /^(\d+):(\d+):(\d+):(\d+)$/

/** Where a blob has its table of contents: bytes. */
export interface TocPosition {
  offset: number
  length: number
  /** Of the JSON. */
  inflated: number
}

/** What is promised of a table: one of the digests at least. */
export interface Promised {
  /** Of the table as it is stored. */
  stored: Digest | undefined
  /** Of its JSON. */
  json: Digest | undefined
  /** Undefined: only the blob's footer says it. */
  position: TocPosition | undefined
  /** What engines look for the layer by. */
  identity: Digest | undefined
}

/** A string: why the layer has no table that can be used, a sentence. */
export function promisedToc({ annotations }: Pick<Descriptor, 'annotations'>): Promised | string {
  const json = annotations[TOC_DIGEST]
  const [containers, stargz] = [annotations[CONTAINERS_CHECKSUM], annotations[STARGZ_CHECKSUM]]
  if (containers !== undefined && json !== undefined) {
    return 'the manifest has a zstd:chunked and an eStargz TOC digest for it, which engines refuse'
  }
  if (containers !== undefined && stargz !== undefined && containers !== stargz) {
    return 'the manifest has two zstd:chunked TOC digests for it that differ'
  }
  const stored = containers ?? stargz
  if (stored === undefined && json === undefined)
    return 'the manifest has no zstd:chunked TOC digest: a plain zstd layer'
  const wrong = [stored, json].find((each) => each !== undefined && !isDigest(each))
  if (wrong !== undefined) return `the manifest's zstd:chunked TOC digest ${JSON.stringify(wrong)} is no sha256 digest`
  const text = annotations[containers === undefined ? STARGZ_POSITION : CONTAINERS_POSITION]
  const position = text === undefined ? undefined : parsePosition(text)
  if (typeof position === 'string') return position
  // stargz's own reader looks into the footer
  if (position === undefined && json === undefined) return 'the manifest does not say where its zstd:chunked TOC is'
  return {
    stored: digestIn(stored),
    json: digestIn(json),
    position,
    identity: digestIn(json ?? containers),
  }
}

function digestIn(text: string | undefined): Digest | undefined {
  return isDigest(text) ? text : undefined
}

function parsePosition(text: string): TocPosition | string {
  const [offset, length, inflated, type] = POSITION.exec(text)?.slice(1).map(Number) ?? []
  if (offset === undefined || length === undefined || inflated === undefined) {
    return `the manifest's zstd:chunked TOC position ${JSON.stringify(text)} is none`
  }
  if (type !== TYPE) return `its zstd:chunked TOC is of type ${type}, only type ${TYPE} is known`
  return { offset, length, inflated }
}
