// The extended attributes behind an inode of a RAFS v6 bootstrap, as EROFS has them: 12 bytes, of which byte 4 counts shared ones (nydus
// writes none), then each padded to 4 bytes:
//   u8 length of the name · u8 prefix · u16 length of the value · name without the prefix · value
import { Failure } from '../../../errors.ts'
import type { Range } from '../../../image/blob.ts'
import type { RafsBytes } from '../bytes.ts'

const HEADER_BYTES = 12
const SHARED_AT = 4
const ENTRY_BYTES = 4
const PREFIXES = new Map([
  [1, 'user.'],
  [2, 'system.posix_acl_access'],
  [3, 'system.posix_acl_default'],
  [4, 'trusted.'],
  [6, 'security.'],
])

/** Bytes that an inode's count stands for. */
export function xattrsLength(count: number): number {
  return count === 0 ? 0 : HEADER_BYTES + ENTRY_BYTES * (count - 1)
}

/** Undefined when there are none. @throws Failure corrupt, unsupported */
export function parseXattrs6(from: RafsBytes, list: Range): ReadonlyMap<string, Uint8Array> | undefined {
  if (list.start === list.end) return undefined
  if (from.bytes[list.start + SHARED_AT] !== 0) throw Failure.unsupported(`${from.what}: it has shared xattrs`)
  const xattrs = new Map<string, Uint8Array>()
  for (let at = list.start + HEADER_BYTES; at < list.end; ) {
    const name = { start: at + ENTRY_BYTES, end: at + ENTRY_BYTES + (from.bytes[at] as number) } // the list is within the bootstrap
    const prefix = PREFIXES.get(from.bytes[at + 1] as number)
    const value = { start: name.end, end: name.end + from.u16(at + 2) }
    if (prefix === undefined || value.end > list.end) {
      throw Failure.corrupt(`${from.what}: its xattrs are broken at ${at}`, {
        why: `they lie between ${list.start} and ${list.end}`,
      })
    }
    xattrs.set(`${prefix}${from.text(name, 'the name of an xattr')}`, from.slice(value))
    at = Math.ceil(value.end / ENTRY_BYTES) * ENTRY_BYTES
  }
  return xattrs.size === 0 ? undefined : xattrs
}
