// What a layer says about the layers below it: OCI's `.wh.` names (image specification, layer.md) -> what overlayfs understands.
import { Failure } from '../errors.ts'
import { S_IFCHR, S_IFMT } from './entry.ts'
import type { Inode } from './inode.ts'

const PREFIX = '.wh.'
const INTERNAL = '.wh..wh.'
const OPAQUE = '.wh..wh..opq'

/** `opaque`: the directory hides what is below it; `internal`: bookkeeping of aufs, meaningless; else the name that is removed. */
export type Marker = 'opaque' | 'internal' | { removes: string }

/** What the last component `name` of `path` says, if it is a marker. @throws Failure corrupt */
export function parseMarker(name: string, path: string): Marker | undefined {
  if (!name.startsWith(PREFIX)) return undefined
  if (name === OPAQUE) return 'opaque'
  if (name.startsWith(INTERNAL)) return 'internal'
  const removes = name.slice(PREFIX.length)
  if (removes === '' || removes === '.' || removes === '..') {
    throw Failure.corrupt(`${JSON.stringify(path)} is a whiteout of no name`)
  }
  return { removes }
}

/** Overlayfs reads `trusted.`, its rootless mounts `user.`. */
export const OPAQUE_XATTRS: ReadonlyMap<string, Uint8Array> = new Map([
  ['trusted.overlay.opaque', Uint8Array.of(0x79)], // y
  ['user.overlay.opaque', Uint8Array.of(0x79)],
])

/** Overlayfs's own xattrs: an image must not speak for it. */
export function isOverlayXattr(name: string): boolean {
  return name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')
}

/** The device 0:0 that overlayfs takes for a whiteout. */
export function isWhiteout(of: Inode): boolean {
  return (of.mode & S_IFMT) === S_IFCHR && of.rdev?.[0] === 0 && of.rdev[1] === 0
}
