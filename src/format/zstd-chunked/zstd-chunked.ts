// zstd:chunked: a tar in zstd frames, one a chunk of a file, with a table of contents in a skippable frame behind them
// (containers/storage pkg/chunked, stargz-snapshotter estargz/zstdchunked).
//
//   │ frames: tar headers, chunks of files │ 8: skippable │ table, zstd │ skippable frames: tar-split, footer │
//   0                                      offset - 8     offset        offset + length                       size
//
// The index of a layer, as readIndex returns it and parseIndex takes it, is 8 bytes and the JSON:
//   0  8  where the files' frames end (little-endian; not under the digest: it bounds chunks, whose digests are)
import { Failure } from '../../errors.ts'
import type { Blob, Range, ReadOptions } from '../../image/blob.ts'
import type { Descriptor } from '../../image/manifest.ts'
import { ZSTD } from '../../tree/chunk.ts'
import { tarSizeOf } from '../estargz/estargz.ts'
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
import { inflateInto } from '../inflate.ts'
import { giveBack } from '../memory.ts'
import { checkInflated, checkStored, checkTocDigest } from '../toc/bounds.ts'
import { bytesBeforeLandmark, wantedFirst } from '../toc/landmarks.ts'
import { checkText } from '../toc/text.ts'
import { parseToc } from '../toc/toc.ts'
import { FOOTER_BYTES, parseZstdFooter } from './footer.ts'
import { decodeFrames } from './frames.ts'
import { promisedToc, type TocPosition } from './place.ts'

const MEDIA_TYPES: readonly string[] = [
  'application/vnd.oci.image.layer.v1.tar+zstd',
  'application/vnd.docker.image.rootfs.diff.tar.zstd',
]
/** A skippable frame's magic and length (RFC 8878 3.1.2). */
const SKIPPABLE_HEADER_BYTES = 8
const PREFIX_BYTES = 8

export const zstdChunked: Format = { name: 'zstd:chunked', plan, readIndex, firstBytes, parseIndex }

function plan({ layers }: Planned): readonly (Unit | string)[] {
  return layers.map(unitOf)
}

/** Each layer is a tree of its own. */
function unitOf(layer: Descriptor): Unit | string {
  const { digest, size, mediaType } = layer
  if (!MEDIA_TYPES.includes(mediaType)) return ''
  const promised = promisedToc(layer)
  if (typeof promised === 'string') return promised
  const index = promised.json ?? promised.stored
  if (index === undefined) throw new TypeError('a table is promised by a digest at least')
  return {
    format: zstdChunked.name,
    layers: [layer],
    shown: layer,
    index,
    identity: promised.identity,
    blobs: [{ digest, size }],
    tarSize: tarSizeOf(layer),
  }
}

async function readIndex(unit: Unit, source: Source, options?: IndexOptions): Promise<Uint8Array> {
  const what = unitText(unit)
  const blob = source.blob(unit.shown)
  const promised = promisedToc(unit.shown)
  if (typeof promised === 'string') throw new TypeError(promised) // then there is no unit
  const { offset, length, inflated } = promised.position ?? (await readFooter(blob, what, options))
  if (length === 0 || offset < SKIPPABLE_HEADER_BYTES || offset + length > blob.size) {
    throw Failure.corrupt(
      `${what}: its table of contents of ${length} bytes at ${offset} lies outside the blob of ${blob.size} bytes`,
    )
  }
  checkStored(length, what)
  checkInflated(inflated, what)
  const stored = await readExactly(blob, { start: offset, end: offset + length }, what, options)
  if (promised.stored !== undefined) await checkTocDigest(stored, promised.stored, what)
  await options?.room?.(inflated)
  const index = new Uint8Array(PREFIX_BYTES + inflated)
  try {
    const json = index.subarray(PREFIX_BYTES)
    await inflateInto(json, stored, 'zstd', `${what}: its table of contents`)
    if (promised.json !== undefined) await checkTocDigest(json, promised.json, what)
    const end = offset - SKIPPABLE_HEADER_BYTES
    new DataView(index.buffer).setBigUint64(0, BigInt(end), true)
    const decoded = async (range: Range) => decodeFrames(await readExactly(blob, range, what, options))
    await checkText(json, end, decoded, what)
    return index
  } catch (error) {
    giveBack(index)
    throw error
  }
}

async function readFooter(blob: Blob, what: string, options?: ReadOptions): Promise<TocPosition> {
  const start = Math.max(blob.size - FOOTER_BYTES, 0)
  const range = { start, end: blob.size }
  return parseZstdFooter(blob.size > 0 ? await readExactly(blob, range, what, options) : new Uint8Array(), what)
}

function firstBytes(index: Uint8Array): Range | undefined {
  return bytesBeforeLandmark(index.subarray(PREFIX_BYTES))
}

function parseIndex(index: Uint8Array, unit: Unit): Contents {
  const what = unitText(unit)
  const { digest, size } = unit.shown
  if (index.length < PREFIX_BYTES) throw Failure.corrupt(`${what}: its index is cut off`)
  const end = Number(new DataView(index.buffer, index.byteOffset).getBigUint64(0, true))
  if (end > size) throw Failure.corrupt(`${what}: its table of contents lies outside the blob`)
  const json = index.subarray(PREFIX_BYTES)
  const { entries, chunks } = parseToc(json, { end, codec: ZSTD, isZstdChunked: true }, what)
  return { blobs: [{ digest, size }], chunks, entries, first: wantedFirst(entries) }
}
