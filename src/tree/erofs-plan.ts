// Where each part of a tree goes in its EROFS image (erofs.ts draws it).
import { Failure } from '../errors.ts'
import {
  CHUNK_INDEX_BYTES,
  DEVICE_SLOT_BYTES,
  DEVICE_TABLE_SLOT,
  DIRENT_BYTES,
  INODE_BYTES,
  NID_BYTES,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
  XATTR_PREFIXES,
} from './erofs-format.ts'
import { BLOCK_BYTES, type Directory, type Inode, isDirectory } from './inode.ts'
import { sortNames } from './names.ts'

/** Two million inodes with long names and labels take half of it. */
export const IMAGE_MAX_BYTES = 2 ** 30

/** A tree's inodes, numbered in the order of the image, in columns; all places are bytes from the image's start. */
export interface Plan {
  inodes: Inode[]
  nlinks: number[]
  /** Each directory: its number and its parent's, and where its entries begin and end in the next two columns. */
  directories: { number: number; parent: number; first: number; end: number }[]
  entryNames: string[]
  /** Bytes of each name. */
  entryBytes: number[]
  entryNumbers: number[]
  offsets: Float64Array
  /** Bytes of a directory's entries or of a symlink's target; as many of their last bytes as lie behind the inode. */
  dataBytes: Uint32Array
  tailBytes: Uint32Array
  /** Where the rest of that data is; 0: nowhere. */
  plainAt: Float64Array
  size: number
}

/** @throws Failure limit when the image would be too large */
export function planImage(root: Directory, devices: number): Plan {
  const plan = number(root)
  for (const { number, first, end } of plan.directories)
    plan.dataBytes[number] = entriesBytes(plan.entryBytes, first, end)
  const start = align((DEVICE_TABLE_SLOT + devices) * DEVICE_SLOT_BYTES, BLOCK_BYTES)
  plan.size = placePlain(plan, align(placeInodes(plan, start), BLOCK_BYTES))
  return plan
}

export function align(at: number, to: number): number {
  return Math.ceil(at / to) * to
}

/** Bytes of an inode's xattrs, header included; 0 without any. A multiple of 4. */
export function xattrsBytes(xattrs: ReadonlyMap<string, Uint8Array>): number {
  if (xattrs.size === 0) return 0
  let bytes = XATTR_HEADER_BYTES
  for (const [name, value] of xattrs) {
    const prefix = xattrPrefix(name)
    if (prefix === undefined) throw new Error(`xattr ${name} has no EROFS prefix`) // entries.ts drops such
    bytes += align(XATTR_ENTRY_BYTES + Buffer.byteLength(name) - prefix.prefix.length + value.length, 4)
  }
  return bytes
}

export function xattrPrefix(name: string): (typeof XATTR_PREFIXES)[number] | undefined {
  return XATTR_PREFIXES.find(({ prefix, whole }) => (whole ? name === prefix : name.startsWith(prefix)))
}

/** Children are numbered side by side, so that a walk reads forward. */
function number(root: Directory): Plan {
  const inodes: Inode[] = [root]
  const nlinks = [2]
  const directories: Plan['directories'] = []
  const entryNames: string[] = []
  const entryBytes: number[] = []
  const entryNumbers: number[] = []
  const raise = (of: number) => {
    nlinks[of] = (nlinks[of] as number) + 1
  }
  // a stack of the directories still to be described, the next one last
  const pending = [{ number: 0, parent: 0 }]
  for (let next = pending.pop(); next; next = pending.pop()) {
    const { number, parent } = next
    const { children } = inodes[number] as Directory // only directories are pushed
    const first = entryNames.length
    const below: typeof pending = []
    for (const name of sortNames(['.', '..', ...children.keys()])) {
      const child = children.get(name)
      let of = child === undefined ? (name === '.' ? number : parent) : child.number
      // what another plan has left there is no number of this one
      if (child !== undefined && of !== undefined && inodes[of] !== child) of = undefined
      if (child !== undefined && of !== undefined) raise(of)
      if (child !== undefined && of === undefined) {
        of = inodes.length
        child.number = of
        inodes.push(child)
        if (isDirectory(child)) {
          nlinks.push(2)
          raise(number)
          below.push({ number: of, parent: number })
        } else {
          nlinks.push(1)
        }
      }
      entryNames.push(name)
      entryBytes.push(Buffer.byteLength(name))
      entryNumbers.push(of as number)
    }
    directories.push({ number, parent, first, end: entryNames.length })
    for (const each of below.reverse()) pending.push(each)
  }
  return {
    inodes,
    nlinks,
    directories,
    entryNames,
    entryBytes,
    entryNumbers,
    offsets: new Float64Array(inodes.length),
    dataBytes: new Uint32Array(inodes.length),
    tailBytes: new Uint32Array(inodes.length),
    plainAt: new Float64Array(inodes.length),
    size: 0,
  }
}

/** What a directory's entries take: whole blocks, then the used part of the last. */
function entriesBytes(names: readonly number[], first: number, end: number): number {
  let blocks = 0
  let used = 0
  for (let i = first; i < end; i++) {
    const size = DIRENT_BYTES + (names[i] as number)
    if (used + size > BLOCK_BYTES) {
      blocks++
      used = 0
    }
    used += size
  }
  return blocks * BLOCK_BYTES + used
}

/** An inode with what lies behind it crosses no block unless it is larger than one. */
function placeInodes(plan: Plan, start: number): number {
  let at = start
  let i = -1
  for (const inode of plan.inodes) {
    i++
    if (inode.target !== undefined) plan.dataBytes[i] = Buffer.byteLength(inode.target)
    let size = INODE_BYTES + xattrsBytes(inode.xattrs)
    const tail = (plan.dataBytes[i] as number) % BLOCK_BYTES
    if (inode.content) size = align(size, CHUNK_INDEX_BYTES) + CHUNK_INDEX_BYTES
    else if (size + tail <= BLOCK_BYTES) {
      plan.tailBytes[i] = tail
      size += tail
    }
    const room = BLOCK_BYTES - (at % BLOCK_BYTES)
    if (size > room) at += room
    plan.offsets[i] = at
    at = align(at + size, NID_BYTES)
  }
  refuseBeyondLimit(at)
  return at
}

function placePlain(plan: Plan, start: number): number {
  let at = start
  for (let i = 0; i < plan.dataBytes.length; i++) {
    const bytes = plan.dataBytes[i] as number
    if (bytes === 0) continue
    const plain = align(bytes - (plan.tailBytes[i] as number), BLOCK_BYTES)
    if (plain === 0) continue
    plan.plainAt[i] = at
    at += plain
    refuseBeyondLimit(at)
  }
  return at
}

function refuseBeyondLimit(bytes: number): void {
  if (bytes > IMAGE_MAX_BYTES) throw Failure.limit(`the tree's metadata takes more than ${IMAGE_MAX_BYTES} bytes`)
}
