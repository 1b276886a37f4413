// Whether the tar of an eStargz layer ends before the entry of its table of contents. stargz's writer appends the table to the
// entries; BuildKit's copies a tar as it is, its end included, and engines stop there: the table is then no file of the layer.
//
//                 offset                                                                       tocOffset
//   │ …           │ member: chunk, padding, headers of what follows, (zeros: the tar's end)    │ member: header of the table, JSON │
//
// These bytes are under no digest until the whole layer was read. All that they decide is whether a file that the manifest vouches for
// is shown; the tar itself is compared with the tree when the layer is read whole.
import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import { Failure } from '../../errors.ts'
import type { Range } from '../../image/blob.ts'
import { CHUNK_MAX_BYTES } from '../../tree/chunk.ts'
import { searchInTurns } from '../index-bytes.ts'
import { BLOCK_BYTES } from '../tar/header.ts'
import { hasEnd } from '../tar/members.ts'
import { entriesFromEnd } from '../toc/end.ts'
import { numberIn, type Place, placeBehind } from '../toc/place.ts'
import type { Raw } from '../toc/scan.ts'

/** Stored bytes that are worth a request: a chunk of 4 MiB that does not compress, and headers. */
const FETCHED_MAX_BYTES = 8 << 20
/** Two blocks of zeros. */
const END_BYTES = 2 * BLOCK_BYTES
/**
 * The name with which one of stargz's own files ends. Its writer makes them where it makes the tar: such a table, when it is so large that
 * what precedes it was not read with it, is not worth a third request.
 */
const LANDMARK = /prefetch\.landmark"/
const LANDMARK_BYTES = 18
/** CRC and length, with which a gzip member ends (RFC 1952 2.3). */
const TRAILER_BYTES = 8

/** A blob's bytes, of which some are at hand. */
export interface Stored {
  isAtHand(range: Range): boolean
  read(range: Range): Promise<Uint8Array>
}

/**
 * @param json the table of contents, which begins at `tocOffset` of the blob
 * @throws Failure what reading the blob throws
 */
export async function endsBeforeToc(json: Uint8Array, tocOffset: number, stored: Stored): Promise<boolean> {
  const last = lastContents(json)
  if (last === undefined || last.offset >= tocOffset) return false
  const members = { start: last.offset, end: tocOffset }
  if (stored.isAtHand(members)) {
    const decoded = await decode(await stored.read(members))
    if (decoded !== undefined) return seesEnd(decoded, last.at)
  }
  // at least some blocks stand where nothing or the end stands
  if (tocOffset < TRAILER_BYTES) return false
  const trailer = { start: tocOffset - TRAILER_BYTES, end: tocOffset }
  if (!stored.isAtHand(trailer) && (isEmpty(last) || (await searchInTurns(json, LANDMARK, LANDMARK_BYTES))))
    return false
  const rest = lengthIn(await stored.read(trailer)) - last.at
  if (rest >= 0 && rest < last.following * BLOCK_BYTES + END_BYTES) return false
  if (rest >= 0 && last.following === 0) return true
  // headers that take more than a block, or in a member of their own
  if (members.end - members.start > FETCHED_MAX_BYTES) return false
  const decoded = await decode(await stored.read(members))
  return decoded !== undefined && seesEnd(decoded, last.at)
}

function isEmpty({ offset, following }: { offset: number; following: number }): boolean {
  return offset === 0 && following === 0
}

/** What gzip's trailer says the member before it decodes to (ISIZE). */
function lengthIn(trailer: Uint8Array): number {
  return new DataView(trailer.buffer, trailer.byteOffset).getUint32(4, true)
}

/** Undefined: these are no gzip members, or such that decode to more than a chunk may have. */
export async function decode(members: Uint8Array): Promise<Uint8Array | undefined> {
  try {
    return await promisify(gunzip)(members, { maxOutputLength: CHUNK_MAX_BYTES })
  } catch {
    return undefined // whoever reads these chunks is told
  }
}

function seesEnd(decoded: Uint8Array, at: number): boolean {
  try {
    return hasEnd(decoded, at)
  } catch (error) {
    if (error instanceof Failure) return false // engines refuse it, or see headers of another dialect
    throw error
  }
}

/** Where the last contents of a file end, and how many entries follow. Undefined: that is not to be seen from the table's end. */
function lastContents(json: Uint8Array): (Place & { following: number }) | undefined {
  let following = 0
  let chunk: Raw | undefined
  try {
    for (const raw of entriesFromEnd(json)) {
      if (raw.type === 'chunk') {
        chunk ??= raw
      } else if (raw.type === 'reg' && numberIn(raw.size) > 0) {
        return { ...placeBehind(chunk ?? raw, numberIn(raw.size)), following }
      } else {
        following++
      }
    }
  } catch (error) {
    if (error instanceof Failure) return undefined // whoever parses it says so
    throw error
  }
  return { offset: 0, at: 0, following }
}
