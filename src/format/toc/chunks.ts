// The pieces of files that a table of contents lists -> chunks to fetch, and where in them each piece lies.
//
//   offset ─┬─ stored member ───────────┬─ next offset        one chunk a distinct offset, to the next greater one
//           │ piece  piece      piece   │                     (what follows the last piece is tar headers)
//           └─ innerOffset counts the decoded bytes before a piece
import { Failure } from '../../errors.ts'
import type { Digest } from '../../image/digest.ts'
import { CHUNK_MAX_BYTES, CHUNK_STORED_MAX_BYTES, type Codec, type StoredChunk } from '../../tree/chunk.ts'
import type { Extent } from '../../tree/entry.ts'
import { quote } from '../path.ts'

/** `length` bytes of a file, `inner` bytes into the decoded stream that begins at `offset` of the blob. */
export interface Piece {
  path: string
  offset: number
  inner: number
  length: number
  digest: Digest
  /** Where the stored bytes that it needs end, if the table says that. */
  end?: number
  /** Its chunk's number is filled in by `chunksOf`. */
  extent: Extent
}

/**
 * Chunks in the order of their offsets. Two files may share a piece; otherwise pieces of a chunk do not overlap.
 * @param end where the last chunk ends in the blob
 * @throws Failure corrupt, limit
 */
export function chunksOf(pieces: Piece[], end: number, codec: Codec, what: string): StoredChunk[] {
  pieces.sort((a, b) => a.offset - b.offset || a.inner - b.inner || a.length - b.length)
  const chunks: StoredChunk[] = []
  for (let from = 0; from < pieces.length; ) {
    const first = pieces[from] as Piece // from is below the length
    let to = from
    while (pieces[to]?.offset === first.offset) to++
    const group = pieces.slice(from, to)
    const next = pieces[to]?.offset ?? end
    // chunks stay apart, whatever the table says of their ends
    const needed = group.map((each) => each.end ?? next).reduce((a, b) => Math.max(a, b))
    chunks.push(chunkOf(group, Math.min(needed, next), chunks.length, codec, what))
    from = to
  }
  return chunks
}

/** @param pieces those of one offset, sorted by `inner`; at least one */
function chunkOf(pieces: Piece[], end: number, number: number, codec: Codec, what: string): StoredChunk {
  const first = pieces[0] as Piece // at least one
  const where = (piece: Piece) => `${what}: entry ${quote(piece.path)}`
  if (first.offset >= end) {
    throw Failure.corrupt(
      `${where(first)}: its bytes at ${first.offset} lie outside the blob's files, which end at ${end}`,
    )
  }
  if (end - first.offset > CHUNK_STORED_MAX_BYTES) {
    throw Failure.limit(`${where(first)}: its chunk at ${first.offset} is stored in ${end - first.offset} bytes`, {
      why: `at most ${CHUNK_STORED_MAX_BYTES} are accepted`,
    })
  }
  const checks: StoredChunk['checks'][number][] = []
  let previous: Piece | undefined
  let size = 0
  for (const piece of pieces) {
    piece.extent.chunk = number
    if (piece.inner + piece.length > CHUNK_MAX_BYTES) {
      throw Failure.limit(`${where(piece)}: its chunk at ${piece.offset} is larger than ${CHUNK_MAX_BYTES} bytes`)
    }
    if (previous && piece.inner < size) {
      const same = piece.inner === previous.inner && piece.length === previous.length
      if (same && piece.digest === previous.digest) continue
      throw Failure.corrupt(`${where(piece)}: its bytes overlap those of entry ${quote(previous.path)}`)
    }
    size = piece.inner + piece.length
    checks.push({ of: 'decoded', range: { start: piece.inner, end: size }, digest: piece.digest })
    previous = piece
  }
  return { blob: 0, stored: { start: first.offset, end }, size, codec, checks }
}
