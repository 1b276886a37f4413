// Tar headers: ustar (POSIX.1-1988), with a PAX header (POSIX.1-2001) before it where ustar has no room.
import { Failure } from '../errors.ts'
import { BLOCK_BYTES } from '../format/tar/header.ts'

export type TarType = 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'

export interface TarHeader {
  /** Without leading slash; the root is ''. */
  path: string
  type: TarType
  /** Permission bits with setuid, setgid and sticky. */
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
  /** Bytes; files only, else 0. */
  size: number
  /** Of a symlink; of a hard link a path as above. */
  target?: string
  rdev?: readonly [number, number]
  xattrs?: ReadonlyMap<string, Uint8Array>
}

const FLAGS: Readonly<Record<TarType, string>> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  dir: '5',
  fifo: '6',
}
const NAME_BYTES = 100
/** Seven and eleven octal digits. */
const SMALL_MAX = 0o7777777
const LARGE_MAX = 0o77777777777
const NANOSECONDS = 1_000_000_000n

/** The zeros that fill the last block of `size` bytes. */
export function padding(size: number): Uint8Array {
  return new Uint8Array((BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES)
}

/** The two blocks of zeros that end an archive. */
export function endOfArchive(): Uint8Array {
  return new Uint8Array(2 * BLOCK_BYTES)
}

/** An entry's name in the archive: directories end with a slash. */
export function tarName({ path, type }: { path: string; type: TarType }): string {
  if (path === '') return './'
  return type === 'dir' ? `${path}/` : path
}

/** The header blocks of an entry. @throws Failure unsupported when an attribute's name cannot be written */
export function encodeHeader(of: TarHeader): Uint8Array {
  const name = tarName(of)
  const seconds = floorSeconds(of.mtime)
  const pax = new Map<string, Uint8Array | string>()
  if (!fits(name)) pax.set('path', name)
  if (of.target !== undefined && !fits(of.target)) pax.set('linkpath', of.target)
  if (of.size > LARGE_MAX) pax.set('size', `${of.size}`)
  if (of.uid > SMALL_MAX) pax.set('uid', `${of.uid}`)
  if (of.gid > SMALL_MAX) pax.set('gid', `${of.gid}`)
  if (of.mtime < 0n || seconds > BigInt(LARGE_MAX) || of.mtime % NANOSECONDS !== 0n) pax.set('mtime', paxTime(of.mtime))
  for (const [key, value] of of.xattrs ?? []) {
    if (key.includes('=')) {
      throw Failure.unsupported(`${JSON.stringify(of.path)}: an extended attribute's name has an "="`, {
        why: 'tar cannot express it',
      })
    }
    pax.set(`SCHILY.xattr.${key}`, value)
  }
  const block = ustar(of, FLAGS[of.type], name, of.size, seconds < 0n ? 0 : Number(seconds))
  if (pax.size === 0) return block
  const records = Buffer.concat([...pax].map(([key, value]) => paxRecord(key, value)))
  const plain = { mode: 0o644, uid: 0, gid: 0 }
  return new Uint8Array(
    Buffer.concat([ustar(plain, 'x', 'PaxHeaders/entry', records.length, 0), records, padding(records.length), block]),
  )
}

const fits = (text: string) => text.length <= NAME_BYTES && /^[\x20-\x7e]*$/.test(text)

function floorSeconds(time: bigint): bigint {
  return time >= 0n ? time / NANOSECONDS : -((-time + NANOSECONDS - 1n) / NANOSECONDS)
}

/** Decimal seconds; the fraction of a negative time counts away from zero, as the number is written. */
function paxTime(time: bigint): string {
  const size = time < 0n ? -time : time
  const fraction = (size % NANOSECONDS).toString().padStart(9, '0').replace(/0+$/, '')
  return `${time < 0n ? '-' : ''}${size / NANOSECONDS}${fraction === '' ? '' : `.${fraction}`}`
}

/** `LENGTH key=value\n`, LENGTH counting its own digits. */
function paxRecord(key: string, value: Uint8Array | string): Uint8Array {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')])
  let length = rest.length
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length
  return Buffer.concat([Buffer.from(`${length}`), rest])
}

function ustar(
  of: Pick<TarHeader, 'mode' | 'uid' | 'gid' | 'target' | 'rdev'>,
  flag: string,
  name: string,
  size: number,
  seconds: number,
): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES)
  const put = (at: number, text: string) => block.set(Buffer.from(text, 'latin1'), at)
  // a number too large for its field is in the PAX header, which counts
  const octal = (at: number, digits: number, value: number) =>
    put(at, (value < 8 ** digits ? value : 0).toString(8).padStart(digits, '0'))
  put(0, ascii(name))
  octal(100, 7, of.mode)
  octal(108, 7, of.uid)
  octal(116, 7, of.gid)
  octal(124, 11, size)
  octal(136, 11, seconds)
  put(148, ' '.repeat(8))
  put(156, flag)
  put(157, ascii(of.target ?? ''))
  put(257, 'ustar\x0000')
  octal(329, 7, of.rdev?.[0] ?? 0)
  octal(337, 7, of.rdev?.[1] ?? 0)
  // the sum counts its own field as spaces
  const sum = block.reduce((total, byte) => total + byte, 0)
  put(148, `${sum.toString(8).padStart(6, '0')}\0 `)
  return block
}

function ascii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, NAME_BYTES)
}
