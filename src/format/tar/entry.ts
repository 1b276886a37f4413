// A tar header and what precedes it (PAX, GNU long names) -> an entry of the layer, as Go's archive/tar and the unpacking of
// containers/storage understand it.
import { Failure } from '../../errors.ts'
import { type Entry, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG } from '../../tree/entry.ts'
import { cleanPath, quote } from '../path.ts'
import type { TarHeader } from './header.ts'
import { paxInteger, paxText, paxTime, XATTR_PREFIX } from './pax.ts'

/** What the headers before an entry's own say about it. */
export interface Prelude {
  pax?: ReadonlyMap<string, Uint8Array>
  longName?: string
  longLink?: string
}

export interface Member {
  /** As the tar has it. */
  name: string
  /** Of a file, without its extents. */
  entry: Entry
}

const TYPES: ReadonlyMap<string, number> = new Map([
  ['\0', S_IFREG],
  ['0', S_IFREG],
  ['1', S_IFREG],
  ['2', S_IFLNK],
  ['3', S_IFCHR],
  ['4', S_IFBLK],
  ['5', S_IFDIR],
  ['6', S_IFIFO],
])
/** Eleven octal digits: what the ustar header has room for. */
const OCTAL_SIZE_MAX = 0o77777777777
/** Linux takes all ones for "no such user". */
const ID_MAX = 0xffff_fffe
const NANOSECONDS = 1_000_000_000n

/**
 * @param tar names the tar in errors
 * @throws Failure corrupt, limit, unsupported
 */
export function memberOf(header: TarHeader, prelude: Prelude, tar: string): Member {
  const pax = prelude.pax ?? new Map<string, Uint8Array>()
  const of = { what: `${tar}: entry ${quote(prelude.longName ?? header.name)}` }
  const name = oneOf(prelude.longName, paxText(pax, 'path', of), 'name', of) ?? header.name
  of.what = `${tar}: entry ${quote(name)}`
  const linkName = oneOf(prelude.longLink, paxText(pax, 'linkpath', of), 'link name', of) ?? header.linkName
  if (name === '') throw Failure.corrupt(`${of.what}: it has no name`)

  const format = formatOf(header.type, name, of)
  const hardLink = header.type === '1'
  const size = sizeOf(header, pax, of)
  if (size > 0 && (format !== S_IFREG || hardLink)) {
    throw Failure.unsupported(`${of.what}: it is no file and has ${size} bytes, which only some readers skip`)
  }
  const entry: Entry = {
    path: cleanPath(name, of),
    mode: format | (header.mode & 0o7777),
    uid: id(paxInteger(pax, 'uid', of) ?? header.uid, of),
    gid: id(paxInteger(pax, 'gid', of) ?? header.gid, of),
    mtime: paxTime(pax, 'mtime', of) ?? BigInt(header.mtime) * NANOSECONDS,
    size,
  }
  if (entry.path === '' && format !== S_IFDIR) throw Failure.corrupt(`${of.what}: the root is no directory`)
  if (hardLink) {
    entry.link = cleanPath(linkName, { what: `${of.what}, a hard link` })
    if (entry.link === '') throw Failure.corrupt(`${of.what}: a hard link to the root`)
    return { name, entry }
  }
  if (format === S_IFLNK) {
    if (linkName === '') throw Failure.corrupt(`${of.what}: a symlink to nothing`)
    entry.target = linkName
  }
  if (format === S_IFCHR || format === S_IFBLK) entry.rdev = header.rdev
  const xattrs = xattrsOf(pax)
  if (xattrs.size > 0) entry.xattrs = xattrs
  return { name, entry }
}

/** Go prefers GNU's, other readers whichever comes last. */
function oneOf(
  gnu: string | undefined,
  pax: string | undefined,
  name: string,
  of: { readonly what: string },
): string | undefined {
  if (gnu === undefined || pax === undefined || gnu === pax) return gnu ?? pax
  throw Failure.unsupported(`${of.what}: GNU's and the PAX header give it different ${name}s`)
}

function formatOf(type: string, name: string, of: { readonly what: string }): number {
  const format = TYPES.get(type)
  if (format === undefined) {
    const kind = type === 'S' ? 'a sparse file' : `of type ${JSON.stringify(type)}`
    throw Failure.unsupported(`${of.what}: it is ${kind}`)
  }
  if (!name.endsWith('/')) return format
  // the oldest tars have no type for directories, and GNU tar holds to their sign with later types as well, which Go does not
  if (type === '\0') return S_IFDIR
  if (type === '0') throw Failure.unsupported(`${of.what}: a file with a directory's name`)
  return format
}

/** A size that is written twice has to be the same, but where the ustar header has no room for it. */
function sizeOf(header: TarHeader, pax: ReadonlyMap<string, Uint8Array>, of: { readonly what: string }): number {
  const size = paxInteger(pax, 'size', of)
  if (size === undefined) return header.size
  if (size !== header.size && size <= OCTAL_SIZE_MAX) {
    throw Failure.unsupported(`${of.what}: it has ${header.size} bytes by its header, ${size} by its PAX header`)
  }
  return size
}

function id(value: number, of: { readonly what: string }): number {
  if (value > ID_MAX) throw Failure.corrupt(`${of.what}: ${value} is no owner`)
  return value
}

function xattrsOf(pax: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>()
  for (const [key, value] of pax) {
    if (key.startsWith(XATTR_PREFIX)) xattrs.set(key.slice(XATTR_PREFIX.length), value)
  }
  return xattrs
}

/** What engines do not understand in a global header, and other readers do. */
const GLOBAL: ReadonlySet<string> = new Set(['path', 'linkpath', 'size', 'uid', 'gid', 'mtime', 'hdrcharset'])

/**
 * The name a global header goes by. Engines ignore what it says, so it may say nothing that matters; but they make way for its
 * name as for any other, so it may have none that matters.
 * @throws Failure unsupported, corrupt, limit
 */
export function globalName(header: TarHeader, pax: ReadonlyMap<string, Uint8Array>, tar: string): string {
  const of = { what: `${tar}: global header ${quote(header.name)}` }
  for (const key of pax.keys()) {
    if (GLOBAL.has(key) || key.startsWith(XATTR_PREFIX)) {
      throw Failure.unsupported(`${of.what}: engines ignore the ${quote(key)} it gives to what follows`)
    }
  }
  const path = cleanPath(header.name, of)
  if (path === '' || path.includes('/') || path.startsWith('.wh.')) {
    throw Failure.unsupported(`${of.what}: engines take its name for that of a file`)
  }
  return path
}
