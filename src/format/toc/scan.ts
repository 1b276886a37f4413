// Splits a JSON table of contents, {"version": 1, "entries": [{…}, …]}, into its entries without parsing it whole.
//
// JSON.parse of half a gigabyte of hostile JSON can allocate ten times that, inside one native call that a worker's memory limit
// cannot interrupt: V8 then aborts the whole process. Here only one entry of bounded length and depth is ever parsed at a time.
import { isUtf8 } from 'node:buffer'
import { Failure } from '../../errors.ts'

/** Longer than any honest entry: two paths of 4 KiB, escaped, and 64 KiB of extended attributes in base64. */
export const ENTRY_MAX_BYTES = 1 << 20
/** An entry is an object with at most one object in it. */
const DEPTH_MAX = 32

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const NULL = 'null'

/** Parsed JSON that nobody has looked at yet. */
export type Raw = Record<string, unknown>

/**
 * The members of the list `entries`, one at a time, each an object.
 * @param what names the table in errors
 * @throws Failure corrupt (no such JSON), limit (an entry too long or too deep), unsupported (a version other than 1)
 */
export function* scanToc(bytes: Uint8Array, what: string): Generator<Raw> {
  if (!isUtf8(bytes)) throw Failure.corrupt(`${what} is no UTF-8`)
  const json = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  let at = skipSpace(json, 0)
  if (json[at] !== OPEN_OBJECT) throw Failure.corrupt(`${what} is no JSON object`)
  let seen = false
  at = skipSpace(json, at + 1)
  while (json[at] !== CLOSE_OBJECT) {
    const keyEnd = skipString(json, at, what)
    const key = parse(json, at, keyEnd, what)
    at = skipSpace(json, keyEnd)
    if (json[at] !== COLON) throw malformed(what, at)
    at = skipSpace(json, at + 1)
    if (key === 'entries') {
      if (seen) throw Failure.corrupt(`${what} lists its entries twice`)
      seen = true
      at = yield* scanList(json, at, what)
    } else {
      const end = skipValue(json, at, what)
      if (key === 'version' && parse(json, at, end, what) !== 1) {
        throw Failure.unsupported(`${what} is of another version than 1`)
      }
      at = end
    }
    at = afterValue(json, at, CLOSE_OBJECT, what)
  }
  if (skipSpace(json, at + 1) !== json.length) throw malformed(what, at + 1)
  if (!seen) throw Failure.corrupt(`${what} has no entries`)
}

/** Go writes a list of nothing as null. */
function* scanList(json: Buffer, start: number, what: string): Generator<Raw, number> {
  if (json.toString('latin1', start, start + NULL.length) === NULL) return start + NULL.length
  if (json[start] !== OPEN_ARRAY) throw Failure.corrupt(`${what} has no list of entries`)
  let at = skipSpace(json, start + 1)
  while (json[at] !== CLOSE_ARRAY) {
    if (json[at] !== OPEN_OBJECT) throw malformed(what, at)
    const end = skipValue(json, at, what)
    yield parse(json, at, end, what) as Raw // it begins with a brace
    at = afterValue(json, end, CLOSE_ARRAY, what)
  }
  return at + 1
}

/** Behind the comma that follows a value, or at the closing bracket. */
function afterValue(json: Buffer, end: number, close: number, what: string): number {
  const at = skipSpace(json, end)
  if (json[at] === close) return at
  const next = skipSpace(json, at + 1)
  if (json[at] !== COMMA || json[next] === close) throw malformed(what, at)
  return next
}

function skipSpace(json: Buffer, start: number): number {
  let at = start
  while (json[at] === 0x20 || json[at] === 0x0a || json[at] === 0x0d || json[at] === 0x09) at++
  return at
}

function skipString(json: Buffer, start: number, what: string): number {
  if (json[start] !== QUOTE) throw malformed(what, start)
  for (let at = start + 1; at < json.length; at++) {
    if (json[at] === QUOTE) return at + 1
    if (json[at] === BACKSLASH) at++
    if (at - start > ENTRY_MAX_BYTES) throw tooLong(what, start)
  }
  throw malformed(what, json.length)
}

/** The end of the value at `start`. Brackets are only counted: `parse` sees to the rest of the grammar. */
function skipValue(json: Buffer, start: number, what: string): number {
  let depth = 0
  for (let at = start; at < json.length; at++) {
    const byte = json[at]
    if (byte === QUOTE) {
      at = skipString(json, at, what) - 1
      if (depth === 0) return at + 1
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      if (++depth > DEPTH_MAX) throw Failure.limit(`${what} nests deeper than ${DEPTH_MAX} at byte ${start}`)
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
      if (depth === 0) return at
      if (--depth === 0) return at + 1
    } else if (byte === COMMA && depth === 0) {
      return at
    }
    if (at - start > ENTRY_MAX_BYTES) throw tooLong(what, start)
  }
  throw malformed(what, json.length)
}

function parse(json: Buffer, start: number, end: number, what: string): unknown {
  try {
    return JSON.parse(json.toString('utf8', start, end))
  } catch (cause) {
    throw Failure.corrupt(`${what} is no JSON at byte ${start}`, { cause })
  }
}

function malformed(what: string, at: number): Failure {
  return Failure.corrupt(`${what} is no JSON table of contents: unexpected byte at ${at}`)
}

function tooLong(what: string, start: number): Failure {
  return Failure.limit(`${what} has a value longer than ${ENTRY_MAX_BYTES} bytes at byte ${start}`)
}
