// The gzip member that holds an eStargz blob's table of contents: a tar of one file, `stargz.index.json`.
import { Failure } from '../../errors.ts'
import type { IndexOptions } from '../format.ts'
import { inflate, isGzip } from '../inflate.ts'
import { TOC_MAX_BYTES } from '../toc/bounds.ts'

/** The table's name in the layer's tar. */
export const TOC_NAME = 'stargz.index.json'
/** Where the JSON begins in the tar: behind one header block. */
export const JSON_AT = 512
const SIZE_AT = 124

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
