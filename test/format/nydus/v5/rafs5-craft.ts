// Crafted RAFS v5 bootstraps: nydus-image's layout, with whatever fields a test wants.
import { S_IFDIR, S_IFLNK, S_IFREG } from '../../../../src/tree/entry.ts'

export const BLOB = 'ab'.repeat(32)

export interface Record5 {
  blob?: number
  flags?: number
  stored?: number
  size: number
  offset?: number
  fileOffset?: number
  index?: number
  /** What its 32 bytes of digest are filled with. */
  digest?: number | Uint8Array
}

export interface Node5 {
  name: string | Uint8Array
  mode?: number
  ino?: number
  uid?: number
  gid?: number
  size?: number
  seconds?: bigint
  nanoseconds?: number
  rdev?: number
  /** What its 32 bytes of digest are filled with. */
  digest?: number
  target?: string
  xattrs?: Record<string, string>
  chunks?: Record5[]
  children?: Node5[]
  /** The range of its children in the inode table otherwise than it is, from 1. */
  childIndex?: number
  childCount?: number
}

export interface Image5 {
  root?: Partial<Node5>
  flags?: bigint
  chunkSize?: number
  blobs?: string[]
  /** Entries of the extended table, of the blobs; [] leaves it out. */
  features?: number[]
  prefetch?: number[]
}

export interface Crafted5 {
  bytes: Uint8Array
  /** Where the tables lie, and each inode by its place in the table, from 0. */
  at: { inodeTable: number; prefetch: number; blobs: number; extended: number; inodes: number[] }
}

/** EXPLICIT_UID_GID, sha256, no compression. */
export const FLAGS = 0x19n

export const dir5 = (name: string, children: Node5[] = [], more: Partial<Node5> = {}): Node5 => ({
  name,
  children,
  ...more,
})
export const file5 = (name: string, chunks: Record5[] = [], more: Partial<Node5> = {}): Node5 => ({
  name,
  chunks,
  ...more,
})

export function craft5(image: Image5 = {}): Crafted5 {
  const { flags = FLAGS, chunkSize = 4096, blobs = [BLOB], prefetch = [] } = image
  const features = image.features ?? blobs.map(() => 0)
  const nodes: Node5[] = [{ name: '/', children: [], ...image.root }]
  const firsts = new Map<Node5, number>()
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i] as Node5
    firsts.set(node, nodes.length + 1)
    for (const each of node.children ?? []) nodes.push(each)
  }
  const ids = Buffer.from(blobs.map((id) => `${'\0'.repeat(8)}${id}`).join('\0'))
  const inodeTable = 8192
  const prefetchAt = inodeTable + up(nodes.length * 4)
  const blobsAt = prefetchAt + up(prefetch.length * 4)
  const extended = blobsAt + up(ids.length)
  const inodes: number[] = []
  const parts: Buffer[] = []
  let end = extended + features.length * 64
  for (const [i, node] of nodes.entries()) {
    const part = inode5(node, i + 1, firsts.get(node) as number)
    inodes.push(end)
    parts.push(part)
    end += part.length
  }
  const head = Buffer.alloc(inodes[0] as number)
  head.writeUInt32LE(0x52414653, 0)
  head.writeUInt32LE(0x500, 4)
  head.writeUInt32LE(8192, 8)
  head.writeUInt32LE(chunkSize, 12)
  head.writeBigUInt64LE(flags, 16)
  head.writeBigUInt64LE(BigInt(nodes.length), 24)
  for (const [i, at] of [inodeTable, prefetchAt, blobsAt].entries()) head.writeBigUInt64LE(BigInt(at), 32 + i * 8)
  for (const [i, count] of [nodes.length, prefetch.length, up(ids.length), features.length].entries()) {
    head.writeUInt32LE(count, 56 + i * 4)
  }
  head.writeBigUInt64LE(BigInt(extended), 72)
  for (const [i, at] of inodes.entries()) head.writeUInt32LE(at / 8, inodeTable + i * 4)
  for (const [i, ino] of prefetch.entries()) head.writeUInt32LE(ino, prefetchAt + i * 4)
  ids.copy(head, blobsAt)
  for (const [i, each] of features.entries()) {
    head.writeUInt32LE(1000, extended + i * 64)
    head.writeUInt32LE(each, extended + i * 64 + 4)
  }
  const bytes = new Uint8Array(Buffer.concat([head, ...parts]))
  return { bytes, at: { inodeTable, prefetch: prefetchAt, blobs: blobsAt, extended, inodes } }
}

function inode5(node: Node5, number: number, first: number): Buffer {
  const { children, chunks, target, xattrs } = node
  const name = Buffer.from(node.name)
  const type = children ? S_IFDIR | 0o755 : target === undefined ? S_IFREG | 0o644 : S_IFLNK | 0o777
  const size = chunks?.reduce((most, each) => Math.max(most, (each.fileOffset ?? 0) + each.size), 0) ?? 0
  const count = children?.length ?? chunks?.length ?? 0
  const inode = Buffer.alloc(128)
  inode.fill(node.digest ?? 0, 0, 32)
  inode.writeBigUInt64LE(BigInt(node.ino ?? number), 40)
  inode.writeUInt32LE(node.uid ?? 0, 48)
  inode.writeUInt32LE(node.gid ?? 0, 52)
  inode.writeUInt32LE(node.mode ?? type, 60)
  inode.writeBigUInt64LE(BigInt(node.size ?? size), 64)
  inode.writeBigUInt64LE((target === undefined ? 0n : 1n) | (xattrs ? 4n : 0n), 80)
  inode.writeUInt32LE(1, 88)
  inode.writeUInt32LE(node.childIndex ?? (children?.length ? first : 0), 92)
  inode.writeUInt32LE(node.childCount ?? count, 96)
  inode.writeUInt16LE(name.length, 100)
  inode.writeUInt16LE(Buffer.byteLength(target ?? ''), 102)
  inode.writeUInt32LE(node.rdev ?? 0, 104)
  inode.writeUInt32LE(node.nanoseconds ?? 0, 108)
  inode.writeBigInt64LE(node.seconds ?? 0n, 112)
  const pairs = Object.entries(xattrs ?? {}).map(([key, value]) => {
    const pair = Buffer.from(`....${key}\0${value}`)
    pair.writeUInt32LE(pair.length - 4, 0)
    return pair
  })
  const total = Buffer.alloc(xattrs ? 8 : 0)
  if (xattrs) total.writeBigUInt64LE(BigInt(Buffer.concat(pairs).length))
  const records = (chunks ?? []).map(record5)
  return Buffer.concat([
    inode,
    padded(name),
    padded(Buffer.from(target ?? '')),
    padded(Buffer.concat([total, ...pairs])),
    ...records,
  ])
}

function record5({
  blob = 0,
  flags = 0,
  size,
  stored = size,
  offset = 0,
  fileOffset = 0,
  index = 0,
  digest = 0,
}: Record5): Buffer {
  const record = Buffer.alloc(80)
  record.fill(digest, 0, 32)
  for (const [i, value] of [blob, flags, stored, size].entries()) record.writeUInt32LE(value, 32 + i * 4)
  record.writeBigUInt64LE(BigInt(offset), 48)
  record.writeBigUInt64LE(BigInt(fileOffset), 64)
  record.writeUInt32LE(index, 72)
  return record
}

function up(bytes: number): number {
  return Math.ceil(bytes / 8) * 8
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(up(bytes.length) - bytes.length)])
}
