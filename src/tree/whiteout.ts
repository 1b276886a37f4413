// What a layer says about the layers below it: OCI's `.wh.` names (image specification, layer.md) -> what overlayfs understands.
import { Failure } from '../errors.ts'
import { S_IFCHR, S_IFMT } from './entry.ts'
import type { Inode } from './inode.ts'

const PREFIX = '.wh.'
const INTERNAL = '.wh..wh.'
const OPAQUE_NAME = '.wh..wh..opq'

/** `opaque`: the directory hides what is below it; `internal`: bookkeeping of aufs, meaningless; else the name that is removed. */
export type Marker = 'opaque' | 'internal' | { removes: string }

/** What the last component `name` of `path` says, if it is a marker. @throws Failure corrupt */
export function parseMarker(name: string, path: string): Marker | undefined {
  if (!name.startsWith(PREFIX)) return undefined
  if (name === OPAQUE_NAME) return 'opaque'
  if (name.startsWith(INTERNAL)) return 'internal'
  const removes = name.slice(PREFIX.length)
  if (removes === '' || removes === '.' || removes === '..') {
    throw Failure.corrupt(`${JSON.stringify(path)} is a whiteout of no name`)
  }
  return { removes }
}

/**
 * What overlayfs reads where it is mounted by the machine's root. Its mounts in user namespaces read `user.overlay.opaque`, which the FUSE
 * server shows there in this one's place: with both, containers see the other as an attribute like any, and commit it.
 */
export const OPAQUE_XATTR = 'trusted.overlay.opaque'
export const OPAQUE: Uint8Array = Uint8Array.of(0x79) // y

/** Overlayfs's own xattrs: an image must not speak for it. */
export function isOverlayXattr(name: string): boolean {
  return name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')
}

/** The device 0:0 that overlayfs takes for a whiteout. */
export function isWhiteout(of: Inode): boolean {
  return (of.mode & S_IFMT) === S_IFCHR && of.rdev?.[0] === 0 && of.rdev[1] === 0
}
