// zstd:chunked blobs as their two writers make them, frame by frame: containers/storage's has headers in frames of their own and leaves
// runs of zeros out of its chunks, stargz's is eStargz in zstd.
import { zstdCompressSync } from 'node:zlib'
import { endOfArchive, padding } from '../../../src/build/tar.ts'
import { TOC_DIGEST } from '../../../src/format/estargz/estargz.ts'
import type { Contents, Unit } from '../../../src/format/format.ts'
import {
  CONTAINERS_CHECKSUM,
  CONTAINERS_POSITION,
  STARGZ_CHECKSUM,
  STARGZ_POSITION,
} from '../../../src/format/zstd-chunked/place.ts'
import { zstdChunked } from '../../../src/format/zstd-chunked/zstd-chunked.ts'
import { digestOf } from '../../../src/image/digest.ts'
import type { Descriptor } from '../../../src/image/manifest.ts'
import type { Item } from '../estargz/stargz-craft.ts'
import { unitOf } from '../unit.ts'

export type Family = 'containers' | 'stargz'

export const ZSTD_LAYER = 'application/vnd.oci.image.layer.v1.tar+zstd'

/** A skippable frame. */
export function skippable(bytes: Uint8Array): Uint8Array {
  const head = Buffer.alloc(8)
  head.writeUInt32LE(0x184d2a50)
  head.writeUInt32LE(bytes.length, 4)
  return Buffer.concat([head, bytes])
}

function numbers(values: readonly number[], magic: string): Uint8Array {
  const bytes = Buffer.alloc(values.length * 8)
  for (const [i, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), i * 8)
  return Buffer.concat([bytes, Buffer.from(magic)])
}

export interface Crafted {
  blob: Uint8Array
  tar: Uint8Array
  json: Uint8Array
  descriptor: Descriptor
}

/** What follows the files: table, tar-split in containers/storage's, footer; and the annotations that tell of it. */
export function withTable(files: Uint8Array, json: Uint8Array, family: Family, tar = new Uint8Array()): Crafted {
  const table = zstdCompressSync(json)
  const offset = files.length + 8
  const checksum = digestOf(table)
  const position = `${offset}:${table.length}:${json.length}:1`
  const split = zstdCompressSync('{}')
  const splitAt = offset + table.length + 8
  const [footer, annotations] =
    family === 'containers'
      ? [
          [
            skippable(split),
            skippable(numbers([offset, table.length, json.length, 1, splitAt, split.length, 2], 'GNUlInUx')),
          ],
          { [CONTAINERS_CHECKSUM]: checksum, [CONTAINERS_POSITION]: position },
        ]
      : [
          [skippable(numbers([offset, table.length, json.length, 1], 'GnUlInUx'))],
          { [TOC_DIGEST]: digestOf(json), [STARGZ_CHECKSUM]: checksum, [STARGZ_POSITION]: position },
        ]
  const blob = Buffer.concat([files, skippable(table), ...footer])
  const descriptor = { mediaType: ZSTD_LAYER, digest: digestOf(blob), size: blob.length, annotations }
  return { blob, tar, json, descriptor }
}

/** Of a file's contents: pieces of `chunkSize` at most, and runs of zeros of `zerosMin` at least. */
function cut(contents: Uint8Array, chunkSize: number, zerosMin: number): { bytes: Uint8Array; zeros: boolean }[] {
  const pieces: { bytes: Uint8Array; zeros: boolean }[] = []
  let begun = 0
  for (let at = 0; at < contents.length; ) {
    let end = at
    while (contents[end] === 0) end++
    const zeros = end - at >= zerosMin
    if (zeros && at > begun) pieces.push({ bytes: contents.subarray(begun, at), zeros: false })
    if (zeros) pieces.push({ bytes: contents.subarray(at, end), zeros })
    if (zeros) begun = end
    at = Math.max(end, at + 1)
    if (at - begun < chunkSize && at < contents.length) continue
    if (at > begun) pieces.push({ bytes: contents.subarray(begun, at), zeros: false })
    begun = at
  }
  return pieces
}

export interface CraftOptions {
  family?: Family
  chunkSize?: number
  /** Bytes of zeros that containers/storage takes for a run. */
  zerosMin?: number
  /** Changes the table's entries. */
  change?: (entries: Record<string, unknown>[]) => unknown
}

/** A layer of these entries. */
export function craft(items: readonly Item[], options: CraftOptions = {}): Crafted {
  const { family = 'containers', chunkSize = 4 << 20, zerosMin = 1024, change = (entries) => entries } = options
  const frames: Uint8Array[] = []
  const tar: Uint8Array[] = []
  let size = 0
  let open: Uint8Array[] = []
  const close = () => {
    const bytes = Buffer.concat(open)
    open = []
    if (bytes.length === 0) return
    tar.push(bytes)
    const frame = zstdCompressSync(bytes)
    frames.push(frame)
    size += frame.length
  }
  const entries: Record<string, unknown>[] = []
  for (const { headers, contents, toc } of items) {
    open.push(headers)
    const pieces = cut(contents, chunkSize, family === 'containers' ? zerosMin : Number.POSITIVE_INFINITY)
    const own = contents.length > 0 && family === 'containers' ? { digest: digestOf(contents) } : {}
    const first = { ...toc, ...own }
    if (pieces.length === 0) entries.push(first)
    let at = 0
    const rows: Record<string, unknown>[] = []
    for (const [i, { bytes, zeros }] of pieces.entries()) {
      close()
      const chunk = {
        ...(at > 0 ? { chunkOffset: at } : {}),
        ...(pieces.length > 1 && (family === 'containers' || i < pieces.length - 1) ? { chunkSize: bytes.length } : {}),
        ...(pieces.length > 1 || family === 'stargz' ? { chunkDigest: digestOf(bytes) } : {}),
        ...(zeros && pieces.length > 1 ? { chunkType: 'zeros' } : {}),
        offset: size,
      }
      rows.push(i === 0 ? { ...first, ...chunk } : { name: toc.name, type: 'chunk', ...chunk })
      open.push(bytes)
      at += bytes.length
      if (family === 'containers') close()
    }
    if (rows[0] && family === 'containers') rows[0].endOffset = size
    entries.push(...rows)
    open.push(padding(contents.length))
  }
  open.push(endOfArchive())
  close()
  const table = {
    version: 1,
    entries: change(entries),
    ...(family === 'containers' ? { tarSplitDigest: 'sha256:0' } : {}),
  }
  const json = Buffer.from(JSON.stringify(table, null, family === 'stargz' ? '\t' : undefined))
  return withTable(Buffer.concat(frames), json, family, Buffer.concat(tar))
}

/** The crafted tables' files end here. */
export const FILES_END = 1000

/** A table of these entries, as `readIndex` would have read it. */
export function parseZstdEntries(entries: readonly unknown[]): Contents {
  return parseZstdJson(Buffer.from(JSON.stringify({ version: 1, entries })))
}

export function parseZstdJson(json: Uint8Array): Contents {
  return zstdChunked.parseIndex(zstdIndexOf(json), zstdLayerOf(json))
}

export function zstdIndexOf(json: Uint8Array): Uint8Array {
  const index = new Uint8Array(8 + json.length)
  new DataView(index.buffer).setBigUint64(0, BigInt(FILES_END), true)
  index.set(json, 8)
  return index
}

export function zstdLayerOf(json: Uint8Array): Unit {
  return unitOf(withTable(new Uint8Array(FILES_END), json, 'containers').descriptor)
}
