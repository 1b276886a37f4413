// An entry of the table of contents that eStargz keeps, as it is written in JSON (stargz-snapshotter docs/estargz.md, "TOC").
import { type TarHeader, type TarType, tarName } from './tar.ts'

export interface TocEntry {
  name: string
  type: string
  size?: number
  modtime?: string
  linkName?: string
  mode?: number
  uid?: number
  gid?: number
  devMajor?: number
  devMinor?: number
  xattrs?: Record<string, string>
  offset?: number
  innerOffset?: number
  digest?: string
  chunkOffset?: number
  chunkSize?: number
  chunkDigest?: string
}

const TYPES: Readonly<Record<TarType, string>> = {
  file: 'reg',
  dir: 'dir',
  symlink: 'symlink',
  hardlink: 'hardlink',
  char: 'char',
  block: 'block',
  fifo: 'fifo',
}

/** The entry of a header; contents are filled in as they are written. Zeros are left out, as other tools do. */
export function tocEntry(of: TarHeader): TocEntry {
  const entry: TocEntry = { name: tarName(of), type: TYPES[of.type] }
  if (of.size > 0) entry.size = of.size
  if (of.mtime !== 0n) entry.modtime = modtime(of.mtime)
  if (of.target !== undefined) entry.linkName = of.target
  if (of.mode > 0) entry.mode = of.mode
  if (of.uid > 0) entry.uid = of.uid
  if (of.gid > 0) entry.gid = of.gid
  if (of.rdev?.[0]) entry.devMajor = of.rdev[0]
  if (of.rdev?.[1]) entry.devMinor = of.rdev[1]
  if (of.xattrs && of.xattrs.size > 0) {
    entry.xattrs = Object.fromEntries(
      [...of.xattrs].map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
    )
  }
  return entry
}

/** RFC 3339, as long as needed. */
function modtime(time: bigint): string {
  const nanoseconds = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n
  const seconds = new Date(Number((time - nanoseconds) / 1_000_000n)).toISOString().slice(0, -'.000Z'.length)
  const fraction = nanoseconds.toString().padStart(9, '0').replace(/0+$/, '')
  return `${seconds}${fraction === '' ? '' : `.${fraction}`}Z`
}
