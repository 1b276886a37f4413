// Crafted tables of contents, and blobs around them.
import { gzipSync } from 'node:zlib'
import { encodeHeader, endOfArchive, padding } from '../../src/build/tar.ts'
import { estargz, TOC_DIGEST } from '../../src/format/estargz/estargz.ts'
import { makeFooter } from '../../src/format/estargz/footer.ts'
import { TOC_NAME } from '../../src/format/estargz/toc-member.ts'
import type { Contents, Unit } from '../../src/format/format.ts'
import { digestOf } from '../../src/image/digest.ts'
import { unitOf } from './unit.ts'

export const LAYER_DIGEST = digestOf(new TextEncoder().encode('a layer'))
export const SOME_DIGEST = digestOf(new TextEncoder().encode('some bytes'))
/** The crafted blobs' files end here, the table 100 bytes later. */
export const FILES_END = 1000

export function layerOf(json: Uint8Array, size = FILES_END + 200): Unit {
  return unitOf({
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: LAYER_DIGEST,
    size,
    annotations: { [TOC_DIGEST]: digestOf(json) },
  })
}

export function indexOf(json: Uint8Array, start = FILES_END, end = start + 100): Uint8Array {
  const index = new Uint8Array(16 + json.length)
  new DataView(index.buffer).setBigUint64(0, BigInt(start), true)
  new DataView(index.buffer).setBigUint64(8, BigInt(end), true)
  index.set(json, 16)
  return index
}

export function parseJson(text: string | Uint8Array): Contents {
  const json = typeof text === 'string' ? new TextEncoder().encode(text) : text
  return estargz.parseIndex(indexOf(json), layerOf(json))
}

export function parseEntries(entries: readonly unknown[]): Contents {
  return parseJson(JSON.stringify({ version: 1, entries }))
}

/** A regular file of one chunk. */
export function file(name: string, size: number, offset: number, more: object = {}): Record<string, unknown> {
  return { name, type: 'reg', size, offset, digest: SOME_DIGEST, chunkDigest: SOME_DIGEST, ...more }
}

/** The tar around a table of contents, not compressed. */
export function tocTar(json: Uint8Array): Uint8Array {
  const header = encodeHeader({ path: TOC_NAME, type: 'file', mode: 0, uid: 0, gid: 0, mtime: 0n, size: json.length })
  return Buffer.concat([header, json, padding(json.length), endOfArchive()])
}

/** A blob of `front` other bytes, the table and the footer. */
export function blobOf(json: Uint8Array, front = FILES_END, member: Uint8Array = gzipSync(tocTar(json))): Uint8Array {
  return Buffer.concat([new Uint8Array(front), tailOf(json, front, member)])
}

/** The end of such a blob: the table and the footer. */
export function tailOf(json: Uint8Array, front: number, member: Uint8Array = gzipSync(tocTar(json))): Uint8Array {
  return Buffer.concat([member, makeFooter(front)])
}
