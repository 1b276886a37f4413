// The records of a PAX header (POSIX.1-2001 pax, "pax Extended Header"): `LENGTH KEY=VALUE\n`, one behind the other.
//
// Go's archive/tar lets the last of several records of a key win, and an empty value leave what the ustar header says, where POSIX has
// it removed; the values of attributes are bytes.
import { Failure } from '../../errors.ts'
import { quote } from '../path.ts'
import { textOf } from './header.ts'

export const XATTR_PREFIX = 'SCHILY.xattr.'

/** Whose empty values readers understand in two ways. */
const NOT_EMPTY: ReadonlySet<string> = new Set(['path', 'linkpath', 'size', 'uid', 'gid', 'mtime'])

const SPACE = 0x20
const NEWLINE = 0x0a
const EQUALS = 0x3d
/** Headers of more than 1 MiB are refused before they are read. */
const LENGTH_DIGITS_MAX = 7

/**
 * @param of names the header in errors
 * @throws Failure corrupt, unsupported (records that contradict each other, sparse files, another character set)
 */
export function parsePax(bytes: Uint8Array, of: { readonly what: string }): Map<string, Uint8Array> {
  const records = new Map<string, Uint8Array>()
  for (let at = 0; at < bytes.length; ) {
    const space = bytes.subarray(at, at + LENGTH_DIGITS_MAX + 1).indexOf(SPACE)
    const digits = Buffer.from(bytes.subarray(at, at + Math.max(space, 0))).toString('latin1')
    const end = at + (/^[1-9]\d*$/.test(digits) ? Number(digits) : 0)
    const equals = bytes.indexOf(EQUALS, at)
    const key = at + space + 1
    if (end > bytes.length || bytes[end - 1] !== NEWLINE || equals <= key || equals >= end - 1) {
      throw Failure.corrupt(`${of.what}: its PAX header has a malformed record at ${at}`)
    }
    add(records, bytes.subarray(key, equals), bytes.subarray(equals + 1, end - 1), of)
    at = end
  }
  return records
}

function add(
  records: Map<string, Uint8Array>,
  keyBytes: Uint8Array,
  value: Uint8Array,
  of: { readonly what: string },
): void {
  if (keyBytes.includes(0)) throw Failure.corrupt(`${of.what}: a PAX key has a NUL`)
  const key = textOf(keyBytes, 'PAX key', of)
  const present = records.get(key)
  if (present && Buffer.compare(present, value) !== 0) {
    throw Failure.unsupported(`${of.what}: its PAX header says two things about ${quote(key)}`)
  }
  // SCHILY.realsize is star's mark of a sparse file
  if (key.startsWith('GNU.sparse.') || key === 'SCHILY.realsize') {
    throw Failure.unsupported(`${of.what}: it is a sparse file (${quote(key)})`)
  }
  if (key === 'SCHILY.devmajor' || key === 'SCHILY.devminor') {
    throw Failure.unsupported(`${of.what}: its PAX header has ${key}, which only some readers heed`)
  }
  if (key === 'hdrcharset' && !CHARACTER_SETS.has(Buffer.from(value).toString('latin1'))) {
    throw Failure.unsupported(`${of.what}: its PAX header is of another character set`)
  }
  if (value.length === 0 && NOT_EMPTY.has(key)) {
    throw Failure.unsupported(`${of.what}: its PAX header has an empty ${key}`)
  }
  records.set(key, value.slice())
}

/** With "BINARY" names are what they are. */
const CHARACTER_SETS: ReadonlySet<string> = new Set(['BINARY', 'ISO-IR 10646 2000 UTF-8'])

/** A text; NULs would cut it off for some readers. Undefined where there is no such record. */
export function paxText(
  records: ReadonlyMap<string, Uint8Array>,
  key: string,
  of: { readonly what: string },
): string | undefined {
  const value = records.get(key)
  if (value === undefined) return undefined
  if (value.includes(0)) throw Failure.corrupt(`${of.what}: its PAX ${key} has a NUL`)
  return textOf(value, `PAX ${key}`, of)
}

export function paxInteger(
  records: ReadonlyMap<string, Uint8Array>,
  key: string,
  of: { readonly what: string },
): number | undefined {
  const text = paxText(records, key, of)
  if (text === undefined) return undefined
  if (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))) return Number(text)
  throw Failure.corrupt(`${of.what}: its PAX ${key} is ${quote(text)}`)
}

/** Nanoseconds since 1970; more digits are cut off, as Go does. */
export function paxTime(
  records: ReadonlyMap<string, Uint8Array>,
  key: string,
  of: { readonly what: string },
): bigint | undefined {
  const text = paxText(records, key, of)
  if (text === undefined) return undefined
  const [, sign, seconds, fraction = ''] = /^(-?)(\d{1,16})(?:\.(\d*))?$/.exec(text) ?? []
  if (seconds === undefined) throw Failure.corrupt(`${of.what}: its PAX ${key} is ${quote(text)}`)
  const size = BigInt(seconds) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'))
  return sign === '-' ? -size : size
}
