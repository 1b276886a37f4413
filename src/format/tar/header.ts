// One header block of a tar: what its fields say, by the dialect its magic names (POSIX.1-1988 "ustar", GNU, or the seventh edition's).
//
//   0 name 100 mode 108 uid 116 gid 124 size 136 mtime 148 checksum 156 type 157 linkname 257 magic 263 version 265 uname, gname
//   329 devmajor 337 devminor 345 prefix (ustar), atime and ctime (GNU) 500
//
// What Go's archive/tar refuses is refused, and so is what it takes but other readers take for something else.
import { isUtf8 } from 'node:buffer'
import { Failure } from '../../errors.ts'

export const BLOCK_BYTES = 512

/** A header's fields, before anything that extends it is looked at. */
export interface TarHeader {
  /** The type flag's character; NUL for the oldest tars' files. */
  type: string
  name: string
  linkName: string
  mode: number
  uid: number
  gid: number
  size: number
  /** Seconds since 1970. */
  mtime: number
  rdev: readonly [number, number]
}

const TYPE_AT = 156
const CHARACTER_DEVICE = 0x33
const BLOCK_DEVICE = 0x34
const MAGIC_AT = 257
const VERSION_AT = 263
const UNAME_AT = 265
const CHECKSUM_AT = 148
const CHECKSUM_END = 156
const PREFIX_AT = 345
const PREFIX_BYTES = 155
const STAR_TRAILER_AT = 508
const SPACE = 0x20

const ZEROS = new Uint8Array(64 << 10)

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const part = bytes.subarray(at, at + ZEROS.length)
    if (Buffer.compare(part, ZEROS.subarray(0, part.length)) !== 0) return false
  }
  return true
}

/**
 * @param of names the header in errors
 * @throws Failure corrupt, unsupported
 */
export function parseHeader(block: Uint8Array, of: { readonly what: string }): TarHeader {
  checkSum(block, of)
  const dialect = dialectOf(block, of)
  const number = (at: number, length: number, name: string) => numeric(block.subarray(at, at + length), name, of)
  const count = (at: number, length: number, name: string) => {
    const value = number(at, length, name)
    if (value < 0) throw Failure.corrupt(`${of.what}: its ${name} is ${value}`)
    return value
  }
  const name = text(block, 0, 100, 'name', of)
  const prefix = dialect === 'ustar' ? text(block, PREFIX_AT, PREFIX_BYTES, 'prefix', of) : ''
  return {
    type: String.fromCharCode(block[TYPE_AT] as number), // a block has 512 bytes
    name: prefix === '' ? name : `${prefix}/${name}`,
    linkName: text(block, 157, 100, 'link name', of),
    mode: count(100, 8, 'mode'),
    uid: count(108, 8, 'uid'),
    gid: count(116, 8, 'gid'),
    size: count(124, 12, 'size'),
    mtime: number(136, 12, 'mtime'),
    rdev: dialect === 'v7' ? [0, 0] : [count(329, 8, 'device number'), count(337, 8, 'device number')],
  }
}

function checkSum(block: Uint8Array, of: { readonly what: string }): void {
  const want = octal(checksumField(block))
  if (want === undefined || !sumsOf(block).includes(want))
    throw Failure.corrupt(`${of.what}: its checksum does not fit: no tar header`)
}

export function checksumField(block: Uint8Array): Uint8Array {
  return block.subarray(CHECKSUM_AT, CHECKSUM_END)
}

/** The sums of a block's bytes that its checksum may be, its own field counting as spaces; the oldest tars took bytes for signed. */
export function sumsOf(block: Uint8Array): [unsigned: number, signed: number] {
  let unsigned = 0
  let signed = 0
  for (let at = 0; at < BLOCK_BYTES; at++) {
    const byte = at >= CHECKSUM_AT && at < CHECKSUM_END ? SPACE : (block[at] as number)
    unsigned += byte
    signed += byte < 0x80 ? byte : byte - 0x100
  }
  return [unsigned, signed]
}

function dialectOf(block: Uint8Array, of: { readonly what: string }): 'v7' | 'ustar' | 'gnu' {
  const magic = latin1(block.subarray(MAGIC_AT, VERSION_AT))
  const version = latin1(block.subarray(VERSION_AT, UNAME_AT))
  if (magic === 'ustar\0') {
    if (latin1(block.subarray(STAR_TRAILER_AT)) === 'tar\0') {
      throw Failure.unsupported(`${of.what}: it is of star's own dialect, whose prefix is shorter`)
    }
    return 'ustar'
  }
  if (magic === 'ustar ' && version === ' \0') {
    // where one of them is no number, Go takes them for a prefix, as its own writer once made them
    for (const at of [PREFIX_AT, PREFIX_AT + 12]) {
      const field = block.subarray(at, at + 12)
      if (field[0] !== 0 && !isNumeric(field)) {
        throw Failure.unsupported(`${of.what}: its times may be a prefix of its name`)
      }
    }
    return 'gnu'
  }
  // what others take for a prefix, and for a device's number, Go does not look at
  const device = block[TYPE_AT] === CHARACTER_DEVICE || block[TYPE_AT] === BLOCK_DEVICE
  if (!isZero(block.subarray(MAGIC_AT, UNAME_AT)) || !isZero(block.subarray(PREFIX_AT)) || device) {
    throw Failure.unsupported(`${of.what}: its magic is ${JSON.stringify(magic + version)}, of no known dialect`)
  }
  return 'v7'
}

/** Up to the first NUL. */
function text(block: Uint8Array, at: number, length: number, name: string, of: { readonly what: string }): string {
  return textOf(block.subarray(at, at + length), name, of)
}

/** Bytes up to the first NUL. @throws Failure unsupported when they are no UTF-8 */
export function textOf(bytes: Uint8Array, name: string, of: { readonly what: string }): string {
  const end = bytes.indexOf(0)
  const used = end < 0 ? bytes : bytes.subarray(0, end)
  if (!isUtf8(used)) throw Failure.unsupported(`${of.what}: its ${name} is no UTF-8`)
  return Buffer.from(used.buffer, used.byteOffset, used.length).toString('utf8')
}

function isNumeric(field: Uint8Array): boolean {
  return ((field[0] as number) & 0x80) !== 0 ? base256(field) !== undefined : octal(field) !== undefined
}

function numeric(field: Uint8Array, name: string, of: { readonly what: string }): number {
  const value = ((field[0] as number) & 0x80) !== 0 ? base256(field) : octal(field)
  if (value === undefined) throw Failure.corrupt(`${of.what}: its ${name} is ${JSON.stringify(latin1(field))}`)
  return value
}

/** Octal digits among spaces and NULs; none are 0. */
function octal(field: Uint8Array): number | undefined {
  const digits = /^[ \0]*([0-7]*)[ \0]*$/.exec(latin1(field))?.[1]
  return digits === undefined ? undefined : digits === '' ? 0 : Number.parseInt(digits, 8)
}

/** GNU: two's complement, big-endian, behind a bit that says so. Undefined beyond what a number holds. */
export function base256(field: Uint8Array): number | undefined {
  const negative = ((field[0] as number) & 0x40) !== 0
  let value = 0n
  for (const [i, byte] of field.entries()) {
    const bits = negative ? ~byte & 0xff : byte
    value = (value << 8n) | BigInt(i === 0 ? bits & 0x7f : bits)
  }
  const number = Number(negative ? -value - 1n : value)
  return Number.isSafeInteger(number) ? number : undefined
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}
