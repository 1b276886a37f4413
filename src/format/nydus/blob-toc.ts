// What the end of a nydus blob says of the blob: entries of 128 bytes, and a tar header behind them; the bootstrap has the SHA-256 of all.
//
//   0 flags u32 (1 as it is, 2 zstd)   8 name 16   24 SHA-256 of the decoded bytes 32   56 offset u64   64 stored u64   72 decoded size u64
import { createHash } from 'node:crypto'
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'
import { RafsBytes } from './bytes.ts'
import { DIGEST_BYTES } from './chunk-record.ts'
import type { Compressor } from './rafs.ts'

const ENTRY_BYTES = 128
const HEADER_BYTES = 512
const AT = { flags: 0, name: 8, digest: 24, offset: 56, stored: 64, decoded: 72 }
const NAME_BYTES = 16
const COMPRESSORS = new Map<number, Compressor>([
  [1, 'none'],
  [2, 'zstd'],
])

/** In the header behind it. */
export const TOC_NAME = 'rafs.blob.toc'
/** The part that has the digests of all chunks. */
export const DIGESTS_NAME = 'blob.digest'

export interface TocEntry {
  compressor: Compressor
  stored: Range
  decodedSize: number
  /** SHA-256 of what it decodes to. */
  digest: Uint8Array
}

/** By name. @param digest what `toc` must have @throws Failure corrupt, unsupported */
export function parseBlobToc(toc: Uint8Array, digest: Uint8Array, what: string): Map<string, TocEntry> {
  const got = createHash('sha256').update(toc).digest()
  if (!got.equals(digest)) {
    throw Failure.corrupt(`${what}: its table of contents differs from the bootstrap`, {
      why: `want ${Buffer.from(digest).toString('hex')}, got ${got.toString('hex')}`,
    })
  }
  const size = toc.length - HEADER_BYTES
  if (size < 0 || size % ENTRY_BYTES !== 0)
    throw Failure.corrupt(`${what}: its table of contents has ${toc.length} bytes`)
  const from = new RafsBytes(toc, `${what}: table of contents`)
  const entries = new Map<string, TocEntry>()
  for (let at = 0; at < size; at += ENTRY_BYTES) {
    const name = Buffer.from(toc.subarray(at + AT.name, at + AT.name + NAME_BYTES))
      .toString('latin1')
      .replace(/\0+$/, '')
    if (entries.has(name)) throw Failure.corrupt(`${from.what}: the entry at ${at} is a second ${JSON.stringify(name)}`)
    const compressor = COMPRESSORS.get(from.u32(at + AT.flags))
    const start = from.u64(at + AT.offset, 'an offset')
    const end = start + from.u64(at + AT.stored, 'a size')
    // parts that nobody here reads may be of any kind
    if (compressor === undefined) continue
    entries.set(name, {
      compressor,
      stored: { start, end },
      decodedSize: from.u64(at + AT.decoded, 'a decoded size'),
      digest: from.slice({ start: at + AT.digest, end: at + AT.digest + DIGEST_BYTES }),
    })
  }
  return entries
}
