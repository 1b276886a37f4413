// eStargz: a tar.gz of concatenated gzip members, one a chunk of a file, with a table of contents at its end
// (stargz-snapshotter docs/estargz.md).
//
//   │ gzip members: tar headers, chunks of files │ gzip member: tar of stargz.index.json │ footer │
//   0                                            tocOffset                               tocEnd   size
//
// The index of a layer, as readIndex returns it and parseIndex takes it, is 16 bytes and the JSON:
//   0  8  tocOffset     8  8  tocEnd     (little-endian; not under the digest: they bound chunks, whose digests are)
// Both are tocOffset where the tar ends before the table (end.ts). The table may also be kept in an image of its own, tagged
// `<tag>-esgztoc`, with a layer for each layer; then both are where the footer begins.
import { Failure } from '../../errors.ts'
import type { Range, ReadOptions } from '../../image/blob.ts'
import { type Digest, isDigest } from '../../image/digest.ts'
import type { Descriptor } from '../../image/manifest.ts'
import { CHUNK_MAX_BYTES, GZIP, type StoredChunk } from '../../tree/chunk.ts'
import { type Entry, S_IFREG } from '../../tree/entry.ts'
import {
  type Contents,
  type Format,
  type IndexOptions,
  type Planned,
  type Source,
  type Unit,
  unitText,
} from '../format.ts'
import { readExactly } from '../index-bytes.ts'
import { giveBack } from '../memory.ts'
import { checkStored, checkTocDigest } from '../toc/bounds.ts'
import { bytesBeforeLandmark, wantedFirst } from '../toc/landmarks.ts'
import { checkText } from '../toc/text.ts'
import { parseToc } from '../toc/toc.ts'
import { decode, endsBeforeToc, type Stored } from './end.ts'
import { FOOTER_BYTES, parseFooter } from './footer.ts'
import { findJson, inflateToc, JSON_AT, TOC_NAME } from './toc-member.ts'

export const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest'
export const TAR_SIZE = 'io.containers.estargz.uncompressed-size'

/** What follows the tag of an image in the tag of its tables, and the annotation that says whose table a layer holds. */
const EXTERNAL_SUFFIX = '-esgztoc'
const EXTERNAL_OF = 'containerd.io/snapshot/stargz/layer.digest'

const MEDIA_TYPES: readonly string[] = [
  'application/vnd.oci.image.layer.v1.tar+gzip',
  'application/vnd.docker.image.rootfs.diff.tar.gzip',
]

// Tables are some 0.5 % of large blobs: 1/200 holds nearly every one, and one round trip more costs what 512 KiB do. Those of small blobs
// vary, and 128 KiB hold those of some 1,500 files for 10 ms of 100 Mbit/s.
const TAIL_FRACTION = 200
const TAIL_MIN_BYTES = 128 << 10
const TAIL_MAX_BYTES = 512 << 10

const PREFIX_BYTES = 16

export const estargz: Format = { name: 'estargz', plan, readIndex, firstBytes, parseIndex }

function plan({ layers }: Planned): readonly (Unit | string)[] {
  return layers.map(unitOf)
}

/** Each layer is a tree of its own. */
function unitOf(layer: Descriptor): Unit | string {
  const { digest, size, mediaType, annotations } = layer
  const toc = annotations[TOC_DIGEST]
  if (!MEDIA_TYPES.includes(mediaType)) return ''
  if (toc === undefined) return 'the manifest has no eStargz TOC digest: a plain gzip layer'
  if (!isDigest(toc)) return `the manifest's eStargz TOC digest ${JSON.stringify(toc)} is no sha256 digest`
  const tarSize = tarSizeOf(layer)
  const blobs = [{ digest, size }]
  return { format: estargz.name, layers: [layer], shown: layer, index: toc, identity: toc, blobs, tarSize }
}

/** Bytes of a layer's tar as its manifest claims them, if it does. */
export function tarSizeOf({ annotations }: Descriptor): number | undefined {
  const size = Number(annotations[TAR_SIZE])
  return Number.isSafeInteger(size) && size > 0 ? size : undefined
}

async function readIndex(unit: Unit, source: Source, options?: IndexOptions): Promise<Uint8Array> {
  const what = unitText(unit)
  const { size } = unit.shown
  const blob = source.blob(unit.shown)
  const guess = Math.min(Math.max(Math.ceil(size / TAIL_FRACTION), TAIL_MIN_BYTES), TAIL_MAX_BYTES)
  const from = Math.max(size - guess, 0)
  const tail = size > 0 ? await readExactly(blob, { start: from, end: size }, what, options) : new Uint8Array()
  const footer = parseFooter(tail.subarray(-FOOTER_BYTES), what)
  const end = size - footer.length
  const stored: Stored = {
    isAtHand: ({ start }) => start >= from,
    read: async ({ start, end }) =>
      start >= from ? tail.subarray(start - from, end - from) : await readExactly(blob, { start, end }, what, options),
  }
  const decoded = async (range: Range) => decode(await stored.read(range))
  if (footer.tocOffset === undefined) {
    const external = await readExternal(unit, source, options)
    return await indexOf(external, { start: end, end }, unit, options?.room, async (_, json) => {
      await checkText(json, end, decoded, what)
    })
  }
  const toc = { start: footer.tocOffset, end }
  if (toc.start >= toc.end) {
    throw Failure.corrupt(
      `${what}: its footer puts the table of contents at ${toc.start}, outside the blob of ${size} bytes`,
    )
  }
  checkStored(toc.end - toc.start, what)
  const head = toc.start < from ? await stored.read({ start: toc.start, end: from }) : undefined
  const rest = tail.subarray(Math.max(toc.start - from, 0), toc.end - from)
  const table = head ? Buffer.concat([head, rest]) : rest
  return await indexOf(table, toc, unit, options?.room, async (index, json) => {
    await checkText(json, toc.start, decoded, what)
    if (await endsBeforeToc(json, toc.start, stored)) writePrefix(index, { ...toc, end: toc.start })
  })
}

/** The gzipped table that the image `<tag>-esgztoc` has for this layer. */
async function readExternal(unit: Unit, source: Source, options?: ReadOptions): Promise<Uint8Array> {
  const what = unitText(unit)
  const tables = await source.companion(EXTERNAL_SUFFIX, options?.signal)
  const table = tables?.find(({ descriptor }) => descriptor.annotations[EXTERNAL_OF] === unit.shown.digest)
  if (table === undefined) {
    throw Failure.missing(`${what}: its table of contents is kept in another image, which cannot be found`, {
      why: tables
        ? `the image ${EXTERNAL_SUFFIX} has no table for it`
        : `there is no tag that ends with ${EXTERNAL_SUFFIX}`,
      fix: `Push the image's tables to the tag with ${EXTERNAL_SUFFIX} behind it, and use the image by its tag.`,
    })
  }
  const { size } = table.descriptor
  checkStored(size, what)
  return await readExactly(table.blob, { start: 0, end: size }, what, options)
}

/** The index, from a gzipped table that must have the digest which the manifest promises. `check` sees it, and its JSON, before anybody. */
async function indexOf(
  stored: Uint8Array,
  toc: Range,
  unit: Unit,
  room: IndexOptions['room'],
  check: (index: Uint8Array, json: Uint8Array) => Promise<void>,
): Promise<Uint8Array> {
  const what = unitText(unit)
  const tar = await inflateToc(stored, what, room)
  try {
    const json = findJson(tar, what)
    await checkTocDigest(tar.subarray(json.start, json.end), unit.index, what)
    // the prefix takes the end of the tar header, so the JSON need not be copied
    const index = tar.subarray(json.start - PREFIX_BYTES, json.end)
    writePrefix(index, toc)
    await check(index, index.subarray(PREFIX_BYTES))
    return index
  } catch (error) {
    giveBack(tar)
    throw error
  }
}

function writePrefix(index: Uint8Array, toc: Range): void {
  const prefix = new DataView(index.buffer, index.byteOffset)
  prefix.setBigUint64(0, BigInt(toc.start), true)
  prefix.setBigUint64(8, BigInt(toc.end), true)
}

function firstBytes(index: Uint8Array): Range | undefined {
  return bytesBeforeLandmark(index.subarray(PREFIX_BYTES))
}

function parseIndex(index: Uint8Array, unit: Unit): Contents {
  const what = unitText(unit)
  const { digest, size } = unit.shown
  if (index.length < PREFIX_BYTES) throw Failure.corrupt(`${what}: its index is cut off`)
  const prefix = new DataView(index.buffer, index.byteOffset)
  const member = { start: Number(prefix.getBigUint64(0, true)), end: Number(prefix.getBigUint64(8, true)) }
  if (member.start > member.end || member.end > size) {
    throw Failure.corrupt(`${what}: its table of contents lies outside the blob`)
  }
  const json = index.subarray(PREFIX_BYTES)
  const { entries, chunks } = parseToc(json, { end: member.start, codec: GZIP, isZstdChunked: false }, what)
  const first = wantedFirst(entries)
  // a table in another image, or behind the tar's end, is no file of this layer
  if (member.start < member.end) addToc(entries, chunks, member, json.length, unit.index)
  return { blobs: [{ digest, size }], chunks, entries, first }
}

/**
 * The table itself is a file of the layer's tar, and engines that compare the mount with the tar look for it. Its bytes are the
 * one chunk that the manifest vouches for; tools write its header without mode, owner and time. One larger than chunks may be is
 * left out.
 */
function addToc(entries: Entry[], chunks: StoredChunk[], stored: Range, length: number, digest: Digest): void {
  const range = { start: JSON_AT, end: JSON_AT + length }
  if (range.end > CHUNK_MAX_BYTES) return
  entries.push({
    path: TOC_NAME,
    mode: S_IFREG,
    uid: 0,
    gid: 0,
    mtime: 0n,
    size: length,
    extents: [{ at: 0, chunk: chunks.length, offset: JSON_AT, length }],
  })
  chunks.push({ blob: 0, stored, size: range.end, codec: GZIP, checks: [{ of: 'decoded', range, digest }] })
}
