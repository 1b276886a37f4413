// The blobs that a RAFS v5 bootstrap names, in two tables:
//
//   blob table      u32, u32 (what an old daemon read ahead) · the ID's text · NUL between entries · zeros up to the table's end
//   extended table  u32 chunks · u32 features · u64 decoded bytes · u64 stored bytes · zeros; absent in old images
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import type { RafsBytes } from '../bytes.ts'
import { checkFeatures } from '../codes.ts'
import { RAFS_BLOBS_MAX, type RafsBlob } from '../rafs.ts'
import type { Superblock5 } from './superblock.ts'

const READ_AHEAD_BYTES = 8
/** IDs are names of files or of objects, whatever keeps the blobs; they stand in messages. */
const ID_MAX_BYTES = 255
const EXTENDED_BYTES = 64
const EXTENDED_AT = { chunks: 0, features: 4, stored: 16 }

/** In the order of their numbers. @throws Failure corrupt, limit, unsupported */
export function parseBlobs5(from: RafsBytes, { compressor, digester, blobs, extended }: Superblock5): RafsBlob[] {
  const ids = parseIds(from, blobs)
  const more = (extended.end - extended.start) / EXTENDED_BYTES
  if (more !== 0 && more !== ids.length) {
    throw Failure.corrupt(`${from.what}: the extended blob table has ${more} entries, the blob table ${ids.length}`)
  }
  return ids.map((id, i) => {
    const blob = { id, compressor, digester, tables: undefined }
    if (more === 0) return { ...blob, features: undefined, chunkCount: undefined, compressedSize: 0 }
    const at = extended.start + i * EXTENDED_BYTES
    const features = from.u32(at + EXTENDED_AT.features)
    checkFeatures(features, `${from.what}: blob ${id}`)
    const compressedSize = from.u64(at + EXTENDED_AT.stored, `the size of blob ${i}`)
    return { ...blob, features, chunkCount: from.u32(at + EXTENDED_AT.chunks), compressedSize }
  })
}

function parseIds(from: RafsBytes, table: Range): string[] {
  const ids: string[] = []
  for (let at = table.start; table.end - at > READ_AHEAD_BYTES; ) {
    const start = at + READ_AHEAD_BYTES
    const nul = from.bytes.indexOf(0, start)
    const end = nul < 0 || nul > table.end ? table.end : nul
    if (end - start > ID_MAX_BYTES) {
      throw Failure.limit(`${from.what}: the ID of blob ${ids.length} has ${end - start} bytes`, {
        why: `at most ${ID_MAX_BYTES} are accepted`,
      })
    }
    const id = from.text({ start, end }, 'the ID of a blob')
    if (ids.push(id) > RAFS_BLOBS_MAX) throw Failure.limit(`${from.what}: more than ${RAFS_BLOBS_MAX} blobs`)
    at = end + 1
  }
  return ids
}
