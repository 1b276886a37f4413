// The gzip member that holds an eStargz blob's table of contents: a tar of one file, `stargz.index.json`. Inflated and hashed in
// pieces, so that the largest one does not hold up the main thread.
import { createHash } from 'node:crypto'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Failure } from '../errors.ts'
import { type Digest, finish } from '../image/digest.ts'
import type { IndexOptions } from './format.ts'
import { inflate, isGzip } from './inflate.ts'

/** The table's name in the layer's tar. */
export const TOC_NAME = 'stargz.index.json'
/** Compressed; the largest images' tables have some megabytes. */
export const TOC_STORED_MAX_BYTES = 64 << 20
/** Inflated, with the tar around it. */
export const TOC_MAX_BYTES = 512 << 20

/** Where the JSON begins in the tar: behind one header block. */
export const JSON_AT = 512
const SIZE_AT = 124
const PIECE_BYTES = 256 << 10

/**
 * The tar that `member` decodes to, on memory of its own.
 * @param room as a format's IndexOptions
 * @throws Failure corrupt, limit; what `room` throws
 */
export async function inflateToc(member: Uint8Array, what: string, room: IndexOptions['room']): Promise<Uint8Array> {
  if (!isGzip(member)) throw Failure.corrupt(`${what}: the footer leads to no table of contents in gzip`)
  return await inflate(member, `${what}: its table of contents`, TOC_MAX_BYTES, room)
}

/**
 * Where the JSON lies in the tar.
 * @throws Failure corrupt
 */
export function findJson(tar: Uint8Array, what: string): { start: number; end: number } {
  const header = Buffer.from(tar.slice(0, JSON_AT)).toString('latin1')
  const name = header.slice(0, header.indexOf('\0'))
  const size = /^ *([0-7]+)[ \0]/.exec(header.slice(SIZE_AT, SIZE_AT + 12))?.[1]
  if (name !== TOC_NAME || size === undefined) {
    throw Failure.corrupt(`${what}: the footer leads to no ${TOC_NAME}`)
  }
  const end = JSON_AT + Number.parseInt(size, 8)
  if (end > tar.length) throw Failure.corrupt(`${what}: its table of contents is cut off`)
  return { start: JSON_AT, end }
}

/** The digest of `bytes`, the event loop being let in between pieces. */
export async function digestInTurns(bytes: Uint8Array): Promise<Digest> {
  const hash = createHash('sha256')
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    if (at > 0) await nextTurn()
    hash.update(bytes.subarray(at, at + PIECE_BYTES))
  }
  return finish(hash)
}

/** Whether `bytes`, taken for latin1, have what matches `pattern`, in `maxBytes` at most; in turns as well. */
export async function searchInTurns(bytes: Uint8Array, pattern: RegExp, maxBytes: number): Promise<boolean> {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at < text.length; at += PIECE_BYTES) {
    if (at > 0) await nextTurn()
    if (pattern.test(text.toString('latin1', at, at + PIECE_BYTES + maxBytes))) return true
  }
  return false
}
