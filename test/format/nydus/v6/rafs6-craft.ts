// Crafted RAFS v6 bootstraps: nydus-image's layout, with whatever fields a test wants.
import { S_IFDIR, S_IFLNK, S_IFREG } from '../../../../src/tree/entry.ts'

export const BLOB = 'ab'.repeat(32)
export const BLOCK = 4096

/** A chunk of a file, or its record. */
export interface Chunk6 {
  blob?: number
  index: number
  /** Decoded. */
  size: number
  stored?: number
  offset?: number
  flags?: number
  /** What its 32 bytes of digest are filled with, unless they are given. */
  digest?: number | Uint8Array
}

export interface Node6 {
  mode?: number
  compact?: boolean
  uid?: number
  gid?: number
  /** Default: what its content or chunks have. */
  size?: number
  seconds?: bigint
  nanoseconds?: number
  /** A device's number. */
  u?: number
  /** Bits 1 to 3 of the format. */
  layout?: number
  target?: string
  /** `index:name`, with the prefix's number. */
  xattrs?: Record<string, string>
  chunks?: Chunk6[]
  /** `.` and `..` are added, and names sorted, unless this is `raw`. */
  children?: Record<string, Node6>
  raw?: boolean
}

export interface Blob6 {
  id?: string
  features?: number
  compressor?: number
  digester?: number
  chunks?: number
  storedSize?: number
  cipher?: number
  holder?: Uint8Array
  tables?: { offset: number; stored: number; decoded: number; compressor?: number }
  toc?: { size: number; digest: Uint8Array }
}

export interface Image6 {
  root?: Node6
  flags?: bigint
  chunkSize?: number
  blobs?: Blob6[]
  /** Those that files have, unless these are given; [] leaves the table out. */
  records?: Chunk6[]
  /** Nodes of the tree, or numbers. */
  prefetch?: (Node6 | number)[]
}

export interface Crafted6 {
  bytes: Uint8Array
  at: { blobs: number; prefetch: number; chunkTable: number; inode(node: Node6): number }
}

/** EXPLICIT_UID_GID, sha256, zstd. */
export const FLAGS = 0x98n

export const dir6 = (children: Record<string, Node6> = {}, more: Node6 = {}): Node6 => ({ children, ...more })
export const file6 = (chunks: Chunk6[] = [], more: Node6 = {}): Node6 => ({ chunks, ...more })

/** An inode, and where it and what belongs to it lie. */
interface Placed {
  at: number
  xattrs: Buffer
  /** Of a directory or a symlink. */
  content: Buffer
  contentAt: number
}

export function craft6(image: Image6 = {}): Crafted6 {
  const { flags = FLAGS, chunkSize = 1 << 20, blobs = [{}], prefetch = [] } = image
  const root = image.root ?? dir6()
  const placed = new Map<Node6, Placed>()
  const blobsAt = BLOCK
  const prefetchAt = blobsAt + blobs.length * 256
  const inodesAt = up(prefetchAt + prefetch.length * 4, BLOCK)
  let end = place(root, inodesAt, placed)
  for (const of of placed.values()) {
    of.contentAt = up(end, BLOCK)
    if (of.content.length > BLOCK) end = of.contentAt + of.content.length
  }
  const records = image.records ?? [...placed.keys()].flatMap(({ chunks }) => chunks ?? [])
  const unique = [...new Map(records.map((each) => [`${each.blob ?? 0} ${each.index}`, each])).values()]
  const chunkTable = up(end, BLOCK)
  const bytes = Buffer.alloc(up(chunkTable + unique.length * 80, BLOCK))
  const nid = (node: Node6) => ((placed.get(node) as Placed).at - inodesAt) / 32

  bytes.writeUInt32LE(0xe0f5e1e2, 1024)
  bytes.writeUInt32LE(0x4000_0000, 1032)
  bytes[1036] = 12
  bytes.writeUInt16LE(nid(root), 1038)
  bytes.writeUInt32LE(inodesAt / BLOCK, 1064)
  bytes.writeUInt32LE(0xc, 1104)
  bytes.writeUInt16LE(blobs.length, 1110)
  bytes.writeBigUInt64LE(flags, 1152)
  bytes.writeBigUInt64LE(BigInt(blobsAt), 1160)
  bytes.writeUInt32LE(blobs.length * 256, 1168)
  bytes.writeUInt32LE(chunkSize, 1172)
  bytes.writeBigUInt64LE(BigInt(chunkTable), 1176)
  bytes.writeBigUInt64LE(
    BigInt((image.records === undefined || image.records.length > 0 ? unique.length : 0) * 80),
    1184,
  )
  bytes.writeBigUInt64LE(BigInt(prefetchAt), 1192)
  bytes.writeUInt32LE(prefetch.length * 4, 1200)
  for (const [i, each] of prefetch.entries()) {
    bytes.writeUInt32LE(typeof each === 'number' ? each : nid(each), prefetchAt + i * 4)
  }
  for (const [i, each] of blobs.entries()) writeBlob(bytes, blobsAt + i * 256, each, i, chunkSize)
  for (const [node, of] of placed) writeInode(bytes, node, of, chunkSize, nid)
  for (const [i, each] of unique.entries()) writeRecord(bytes, chunkTable + i * 80, each)
  const inode = (node: Node6) => (placed.get(node) as Placed).at
  return { bytes: new Uint8Array(bytes), at: { blobs: blobsAt, prefetch: prefetchAt, chunkTable, inode } }
}

/** Parents first; a node that is there already is another name of it. */
function place(node: Node6, at: number, placed: Map<Node6, Placed>): number {
  const xattrs = xattrsOf(node.xattrs ?? {})
  const content = node.children ? directory(node, () => 0) : Buffer.from(node.target ?? '')
  placed.set(node, { at, xattrs, content, contentAt: 0 })
  const head = at + (node.compact ? 32 : 64) + xattrs.length
  const tail = node.chunks ? up(head, 8) + node.chunks.length * 8 : head + (content.length % BLOCK || content.length)
  let end = up(tail, 32)
  for (const each of Object.values(node.children ?? {})) if (!placed.has(each)) end = place(each, end, placed)
  return end
}

/** Names and entries, in blocks. */
function directory(node: Node6, nid: (of: Node6) => number): Buffer {
  const names = Object.entries(node.children ?? {})
  const all = node.raw ? names : [...names, ['.', node] as const, ['..', node] as const]
  if (!node.raw) all.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  const blocks: Buffer[] = []
  for (let from = 0; from < all.length; ) {
    let size = 0
    let to = from
    while (to < all.length && size + 12 + Buffer.byteLength(all[to]?.[0] ?? '') <= BLOCK) {
      size += 12 + Buffer.byteLength(all[to++]?.[0] ?? '')
    }
    const block = Buffer.alloc(to < all.length ? BLOCK : size)
    let nameAt = (to - from) * 12
    for (const [i, [name, of]] of all.slice(from, to).entries()) {
      block.writeBigUInt64LE(BigInt(nid(of)), i * 12)
      block.writeUInt16LE(nameAt, i * 12 + 8)
      nameAt += block.write(name, nameAt)
    }
    blocks.push(block)
    from = to
  }
  return Buffer.concat(blocks)
}

function xattrsOf(xattrs: Record<string, string>): Buffer {
  const entries = Object.entries(xattrs).map(([key, value]) => {
    const [index = '', name = ''] = key.split(':')
    const head = Buffer.from([Buffer.byteLength(name), Number(index), 0, 0])
    head.writeUInt16LE(Buffer.byteLength(value), 2)
    const entry = Buffer.concat([head, Buffer.from(name), Buffer.from(value)])
    return Buffer.concat([entry, Buffer.alloc(up(entry.length, 4) - entry.length)])
  })
  return entries.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.alloc(12), ...entries])
}

function writeInode(bytes: Buffer, node: Node6, of: Placed, chunkSize: number, nid: (of: Node6) => number): void {
  const { at, xattrs, contentAt } = of
  const content = node.children ? directory(node, nid) : of.content
  const type = node.children ? S_IFDIR | 0o755 : node.target === undefined ? S_IFREG | 0o644 : S_IFLNK | 0o777
  const sum = node.chunks?.reduce((total, { size }) => total + size, 0)
  const size = node.size ?? sum ?? content.length
  const layout = node.layout ?? (node.chunks ? 4 : 2)
  bytes.writeUInt16LE((layout << 1) | (node.compact ? 0 : 1), at)
  bytes.writeUInt16LE(xattrs.length === 0 ? 0 : (xattrs.length - 12) / 4 + 1, at + 2)
  bytes.writeUInt16LE(node.mode ?? type, at + 4)
  const u = node.u ?? (node.chunks ? 0x20 | (Math.log2(chunkSize) - 12) : contentAt / BLOCK)
  bytes.writeUInt32LE(u, at + 16)
  if (node.compact) {
    bytes.writeUInt32LE(size, at + 8)
    bytes.writeUInt16LE(node.uid ?? 0, at + 24)
    bytes.writeUInt16LE(node.gid ?? 0, at + 26)
  } else {
    bytes.writeBigUInt64LE(BigInt(size), at + 8)
    bytes.writeUInt32LE(node.uid ?? 0, at + 24)
    bytes.writeUInt32LE(node.gid ?? 0, at + 28)
    bytes.writeBigInt64LE(node.seconds ?? 0n, at + 32)
    bytes.writeUInt32LE(node.nanoseconds ?? 0, at + 40)
  }
  const head = at + (node.compact ? 32 : 64)
  xattrs.copy(bytes, head)
  const end = head + xattrs.length
  for (const [i, { blob = 0, index }] of (node.chunks ?? []).entries()) {
    const address = up(end, 8) + i * 8
    bytes.writeUInt16LE(index & 0xffff, address)
    bytes[address + 2] = blob + 1
    bytes[address + 3] = index >>> 16
  }
  const blocks = content.length > BLOCK ? content.length - (content.length % BLOCK || BLOCK) : 0
  content.copy(bytes, contentAt, 0, blocks)
  content.copy(bytes, end, blocks)
}

function writeBlob(bytes: Buffer, at: number, blob: Blob6, number: number, chunkSize: number): void {
  bytes.write(blob.id ?? BLOB, at)
  const { features = 1, compressor = 3, digester = 1, chunks = 16 } = blob
  for (const [i, value] of [number, chunkSize, chunks, compressor, digester, features].entries()) {
    bytes.writeUInt32LE(value, at + 64 + i * 4)
  }
  bytes.writeBigUInt64LE(BigInt(blob.storedSize ?? 100_000), at + 88)
  bytes.writeUInt32LE(blob.toc?.size ?? 0, at + 104)
  bytes.writeUInt32LE(blob.tables?.compressor ?? 0, at + 108)
  for (const [i, value] of [blob.tables?.offset, blob.tables?.stored, blob.tables?.decoded].entries()) {
    bytes.writeBigUInt64LE(BigInt(value ?? 0), at + 112 + i * 8)
  }
  bytes.set(blob.toc?.digest ?? [], at + 136)
  bytes.set(blob.holder ?? [], at + 168)
  bytes.writeUInt32LE(blob.cipher ?? 0, at + 216)
}

function writeRecord(bytes: Buffer, at: number, chunk: Chunk6): void {
  const { blob = 0, index, size, stored = size, offset = 0, flags = 0, digest = 0 } = chunk
  if (typeof digest === 'number') bytes.fill(digest, at, at + 32)
  else bytes.set(digest, at)
  for (const [i, value] of [blob, flags, stored, size].entries()) bytes.writeUInt32LE(value, at + 32 + i * 4)
  bytes.writeBigUInt64LE(BigInt(offset), at + 48)
  bytes.writeUInt32LE(index, at + 72)
}

function up(value: number, to: number): number {
  return Math.ceil(value / to) * to
}
