// Writes a plain tar.gz layer, which no engine can serve lazily without more ado.
import { chunksOf, sizeOf } from './content.ts'
import { headerOf } from './header.ts'
import { MemberWriter, type Written } from './member-writer.ts'
import { order } from './order.ts'
import type { SourceEntry } from './source-entry.ts'
import { encodeHeader, endOfArchive, padding } from './tar.ts'

/** Bytes that are compressed at once; decoders see one stream. */
const PIECE_BYTES = 4 << 20
const LEVEL = 6

/** Writes the blob to the file `path`. @throws Failure usage, system */
export async function writeTarGz(
  entries: Iterable<SourceEntry> | AsyncIterable<SourceEntry>,
  path: string,
): Promise<Written> {
  const { rest } = await order(entries, [])
  return MemberWriter.make(path, LEVEL, async (out) => {
    let parts: Uint8Array[] = []
    let length = 0
    const push = async (bytes: Uint8Array) => {
      parts.push(bytes)
      length += bytes.length
      if (length < PIECE_BYTES) return
      await out.member(Buffer.concat(parts))
      parts = []
      length = 0
    }
    for (const each of rest) {
      const size = each.type === 'file' ? sizeOf(each) : 0
      await push(encodeHeader(headerOf(each, size)))
      if (size === 0) continue
      for await (const chunk of chunksOf(each, PIECE_BYTES)) await push(chunk)
      await push(padding(size))
    }
    parts.push(endOfArchive())
    await out.member(Buffer.concat(parts))
  })
}
