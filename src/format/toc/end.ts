// The entries of a JSON table of contents, the last one first, without what is before those that are wanted being looked at.
//
// Seen from the end, a quote begins or ends a string when an even number of backslashes precedes it: nothing before it need be known.
import { Failure } from '../../errors.ts'
import type { Raw } from './scan.ts'

/** Of the JSON, which is read on the main thread. */
const READ_MAX_BYTES = 1 << 20

const QUOTE = 0x22
const BACKSLASH = 0x5c
const OPEN = new Set([0x5b, 0x7b])
const CLOSE = new Set([0x5d, 0x7d])
/** Of a member of a list in the object that the table is. */
const DEPTH = 2

/**
 * Objects in the lists of the table, from the end on; none where it is no such table.
 * @throws Failure corrupt (no JSON), limit (more than is read of it)
 */
export function* entriesFromEnd(bytes: Uint8Array): Generator<Raw> {
  const read = bytes.subarray(-READ_MAX_BYTES)
  const json = Buffer.from(read.buffer, read.byteOffset, read.length)
  let depth = 0
  let end = 0 // of the entry that is open
  for (let at = json.length - 1; at >= 0; at--) {
    const byte = json[at] as number // at is inside
    if (byte === QUOTE) {
      at = openingQuote(json, at)
    } else if (CLOSE.has(byte)) {
      if (depth++ === DEPTH) end = at + 1
    } else if (OPEN.has(byte) && --depth === DEPTH) {
      yield entryAt(json, at, end)
    }
  }
  if (read.length < bytes.length) throw Failure.limit(`a table of contents ends with more than ${READ_MAX_BYTES} bytes`)
}

/** -1: it is before what is read. */
function openingQuote(json: Buffer, closing: number): number {
  for (let at = closing - 1; at >= 0; at--) {
    at = json.lastIndexOf(QUOTE, at)
    let before = at
    while (json[before - 1] === BACKSLASH) before--
    if ((at - before) % 2 === 0) return at
  }
  return -1
}

function entryAt(json: Buffer, start: number, end: number): Raw {
  try {
    return JSON.parse(json.toString('utf8', start, end)) as Raw // bracketed: an object, or a list, which has no such members
  } catch (cause) {
    throw Failure.corrupt('a table of contents is no JSON at its end', { cause })
  }
}
