// What a layer is built from: one file, directory, link or device.
import type { TarType } from './tar.ts'

export interface SourceEntry {
  /** A leading `./` or `/` does not matter. */
  path: string
  type: TarType
  /** Permission bits. Default: 0755 for directories, 0777 for symlinks, else 0644. */
  mode?: number
  uid?: number
  gid?: number
  /** Nanoseconds since 1970. Default: 0. */
  mtime?: bigint
  /** Files only: the bytes, or a file of this machine that has `size` of them. Default: none. */
  content?: Uint8Array | FileContent
  /** Links: where to. A hard link's is a path of the layer. */
  target?: string
  /** Devices: [major, minor]. */
  rdev?: readonly [number, number]
  xattrs?: ReadonlyMap<string, Uint8Array>
}

export interface FileContent {
  file: string
  size: number
}
