// Tars made block by block, right and wrong, and what scanning them gives.
import { gzipSync } from 'node:zlib'
import { endOfArchive, padding } from '../../../src/build/tar.ts'
import { type Contents, type Unit, unitText } from '../../../src/format/format.ts'
import { BLOCK_BYTES } from '../../../src/format/tar/header.ts'
import { type Scan, type ScanOptions, scanTar } from '../../../src/format/tar/scan.ts'
import { parseTarIndex } from '../../../src/format/tar/tar-index.ts'
import type { Entry } from '../../../src/tree/entry.ts'
import { layerOf } from '../craft.ts'

export const LAYER: Unit = layerOf(new Uint8Array())

/** Fields of a header block, as they stand in it. */
export interface Block {
  name?: string | Uint8Array
  mode?: string | Uint8Array
  uid?: string | Uint8Array
  gid?: string | Uint8Array
  /** Octal digits are made of a number. */
  size?: number | string | Uint8Array
  mtime?: string | Uint8Array
  type?: string
  linkName?: string | Uint8Array
  magic?: string
  major?: string
  minor?: string
  prefix?: string
  /** At 508. */
  trailer?: string
  checksum?: string
}

export const GNU = 'ustar  \0'
export const USTAR = 'ustar\x0000'
export const V7 = '\0\0\0\0\0\0\0\0'

/** A header block with its checksum. */
export function header(block: Block = {}): Uint8Array {
  const bytes = Buffer.alloc(BLOCK_BYTES)
  const put = (at: number, value: string | Uint8Array) => bytes.set(Buffer.from(value as string), at)
  const { size = 0, magic = USTAR } = block
  put(0, block.name ?? 'a')
  put(100, block.mode ?? '0000644')
  put(108, block.uid ?? '0000000')
  put(116, block.gid ?? '0000000')
  put(124, typeof size === 'number' ? size.toString(8).padStart(11, '0') : size)
  put(136, block.mtime ?? '00000000012')
  put(156, block.type ?? '0')
  put(157, block.linkName ?? '')
  put(257, magic)
  put(329, block.major ?? '')
  put(337, block.minor ?? '')
  put(345, block.prefix ?? '')
  put(508, block.trailer ?? '')
  bytes.fill(' ', 148, 156)
  const sum = bytes.reduce((total, byte) => total + byte, 0)
  put(148, block.checksum ?? `${sum.toString(8).padStart(6, '0')}\0 `)
  return new Uint8Array(bytes)
}

/** An entry with contents; its size is theirs, unless it is given. */
export function member(block: Block, contents: string | Uint8Array = ''): Uint8Array {
  const bytes = Buffer.from(contents as string)
  return Buffer.concat([header({ size: bytes.length, ...block }), bytes, padding(bytes.length)])
}

/** A PAX header of these records. */
export function pax(
  records: readonly (readonly [string | Uint8Array, string | Uint8Array])[],
  block: Block = {},
): Uint8Array {
  const lines = records.map(([key, value]) => {
    const parts = [' ', key, '=', value, '\n']
    const rest = Buffer.concat(parts.map((part) => Buffer.from(part as string)))
    let length = rest.length
    while (`${length}`.length + rest.length !== length) length++
    return Buffer.concat([Buffer.from(`${length}`), rest])
  })
  return member({ type: 'x', name: 'PaxHeaders/a', ...block }, Buffer.concat(lines))
}

/** With the end that archives have. */
export function archive(...parts: readonly Uint8Array[]): Uint8Array {
  return Buffer.concat([...parts, endOfArchive()])
}

export interface Scanned extends Scan {
  /** tar-split's lines. */
  lines: string[]
  contents: Contents
  entries: Entry[]
}

/** @param pieceBytes what the stream brings at a time */
export async function scan(bytes: Uint8Array, pieceBytes = 700, options?: ScanOptions): Promise<Scanned> {
  const split: Buffer[] = []
  const sink = { split: (lines: Uint8Array) => void split.push(Buffer.from(lines)) }
  const scanned = await scanTar(inPieces(bytes, pieceBytes), sink, options)
  const contents = parseTarIndex(scanned.index, unitText(LAYER))
  const lines = Buffer.concat(split).toString().split('\n').slice(0, -1)
  return { ...scanned, lines, contents, entries: [...contents.entries] }
}

export async function* inPieces(bytes: Uint8Array, pieceBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += pieceBytes) yield bytes.slice(at, at + pieceBytes)
}

/** The same contents with their chunks gzipped, in a blob of their own: what `listing` decodes. */
export function gzipped(
  { chunks, ...contents }: Contents,
  bytes: Uint8Array,
): { contents: Contents; blob: Uint8Array } {
  const members: Uint8Array[] = []
  let at = 0
  const stored = chunks.map((chunk) => {
    const compressed = gzipSync(bytes.subarray(chunk.stored.start, chunk.stored.end), { level: 1 })
    members.push(compressed)
    const range = { start: at, end: at + compressed.length }
    at = range.end
    return { ...chunk, stored: range }
  })
  return { contents: { ...contents, chunks: stored }, blob: Buffer.concat(members) }
}

/** Puts the tar together from tar-split's lines, as containers/storage does: a file's contents are asked for by its name. */
export function assemble(lines: readonly string[], contentsOf: (name: string) => Uint8Array): Uint8Array {
  return Buffer.concat(
    lines.map((line) => {
      const { type, name, size, payload } = JSON.parse(line) as {
        type: 1 | 2
        name: string
        size?: number
        payload: string
      }
      if (type === 2) return Buffer.from(payload, 'base64')
      return size === undefined ? new Uint8Array() : contentsOf(name)
    }),
  )
}
