// The only maker of verified bytes. Whatever is written to a device has been through `verify`, and the compiler sees to it.
import { Failure } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import { algorithmOf, type ChunkDigest } from '../image/digest.ts'
import type { Check, Chunk, Place } from '../tree/chunk.ts'
import type { Piece } from './digests.ts'

declare const verified: unique symbol
/** A chunk's decoded bytes, of which every byte that a place uses has passed a check. */
export type Verified = Uint8Array & { readonly [verified]: true }

// A byte is hashed once as stored and once as decoded; twice over is slack for an index that lists a file twice.
const HASHED_MAX_TIMES = 4

/**
 * `decoded` once all checks of the chunk pass and every byte of every place is covered by one.
 * Ranges of checks count from the chunk's own first byte.
 * @param stored the chunk's stored bytes, or 'gone' when `decoded` was put together from its places
 * @param digests of pieces of both, in their order
 * @throws Failure corrupt: a digest differs, or checks, sizes and places contradict each other; limit: too much to hash;
 * unsupported: a check is about bytes that are gone
 */
export function verify(
  chunk: Chunk,
  decoded: Uint8Array,
  stored: Uint8Array | 'gone',
  digests: (pieces: readonly Piece[]) => ChunkDigest[],
): Verified {
  const name = chunkName(chunk)
  // with codec none they are the same; otherwise a chunk that can be repeated has no checks of stored bytes
  const of = { decoded, stored: stored === 'gone' ? decoded : stored }
  if (decoded.length !== chunk.size) throw Failure.corrupt(`${name}: want ${chunk.size} bytes, got ${decoded.length}`)
  if (chunk.checks.length === 0) throw Failure.corrupt(`${name}: nothing to check it with`)

  if (stored === 'gone' && !canRepeat(chunk)) {
    throw Failure.unsupported(`${name}: not everything was kept that its checks are about`)
  }
  let allowance = HASHED_MAX_TIMES * (decoded.length + length(chunk.stored))
  const pieces: Piece[] = []
  for (const check of chunk.checks) {
    const bytes = of[check.of]
    if (!within(check.range, bytes.length)) {
      throw Failure.corrupt(`${name}: a check of ${show(check.range)} in ${bytes.length} ${check.of} bytes`)
    }
    allowance -= length(check.range)
    if (allowance < 0) throw Failure.limit(`${name}: its checks overlap more than ${HASHED_MAX_TIMES} times`)
    pieces.push({
      algorithm: algorithmOf(check.digest),
      bytes: bytes.subarray(check.range.start, check.range.end),
    })
  }
  const got = digests(pieces)
  for (const [i, { of, range, digest }] of chunk.checks.entries()) {
    if (got[i] !== digest) throw Failure.corrupt(`${name}: ${of} bytes ${show(range)}: want ${digest}, got ${got[i]}`)
  }
  requirePlacesCovered(chunk, covered(chunk))
  return decoded as Verified
}

/** How a chunk is called in messages. */
export function chunkName(chunk: Chunk): string {
  return `chunk at ${chunk.stored.start}`
}

/** Whether all bytes that its checks are about can be read back from its places. */
function canRepeat(chunk: Chunk): boolean {
  if (chunk.codec.name !== 'none' && chunk.checks.some((check) => check.of === 'stored')) return false
  const wanted = chunk.checks.map((check) => check.range).sort(byStart)
  return firstOutside(wanted, union(chunk.places.map(placeRange))) === undefined
}

/** What of the decoded bytes the checks vouch for, all of which have passed: disjoint, sorted. */
function covered(chunk: Chunk): Range[] {
  const checked = (of: Check['of']) => chunk.checks.filter((check) => check.of === of).map(({ range }) => range)
  if (chunk.codec.name === 'none') return union([...checked('decoded'), ...checked('stored')])
  // decoding is a function: all stored bytes right, then all decoded bytes right
  const whole = union(checked('stored'))
  if (whole.length === 1 && whole[0]?.start === 0 && whole[0].end === length(chunk.stored)) {
    return [{ start: 0, end: chunk.size }]
  }
  return union(checked('decoded'))
}

function union(ranges: Range[]): Range[] {
  const joined: Range[] = []
  for (const { start, end } of ranges.sort(byStart)) {
    const last = joined.at(-1)
    if (last && start <= last.end) last.end = Math.max(last.end, end)
    else joined.push({ start, end })
  }
  return joined
}

function requirePlacesCovered(chunk: Chunk, ranges: Range[]): void {
  let before = 0
  for (const place of chunk.places) {
    const { from, length, at } = place
    const sorted = from >= before
    if (
      !sorted ||
      length === 0 ||
      !within(placeRange(place), chunk.size) ||
      !within({ start: at, end: at + length }, Infinity)
    ) {
      throw Failure.corrupt(
        `${chunkName(chunk)}: a place of ${show(placeRange(place))} in ${chunk.size} bytes, at ${at}`,
      )
    }
    before = from
  }
  const outside = firstOutside(chunk.places.map(placeRange), ranges)
  if (outside) throw Failure.corrupt(`${chunkName(chunk)}: no check covers bytes ${show(outside)}`)
}

/** The first of `inner` that is not within one of `outer`; both are sorted, and `outer` is disjoint. */
function firstOutside(inner: readonly Range[], outer: readonly Range[]): Range | undefined {
  let i = 0
  return inner.find((range) => {
    while (i < outer.length && (outer[i] as Range).end <= range.start) i++ // i is below the length
    const around = outer[i]
    return !around || around.start > range.start || around.end < range.end
  })
}

function byStart(a: Range, b: Range): number {
  return a.start - b.start
}

function placeRange({ from, length }: Place): Range {
  return { start: from, end: from + length }
}

function within(range: Range, size: number): boolean {
  const { start, end } = range
  return Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && end <= size
}

function length(range: Range): number {
  return range.end - range.start
}

function show(range: Range): string {
  return `${range.start}-${range.end}`
}
