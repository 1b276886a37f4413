// The index of a nydus image, as readIndex returns it and parseIndex takes it: the bootstrap, and those tables of its blobs that it takes to
// find and to verify chunks. Little-endian.
//
//   u32 magic │ u32 parts │ of each: u32 kind, u32 blob, u64 length │ the parts, one behind the other
import { Failure } from '../../errors.ts'

/** What is known of a blob's tables. */
export interface BlobTables {
  /** The blob's number in the bootstrap. */
  blob: number
  /** Where its chunks are: compressed, with a header behind it, as the blob has them. */
  stored?: Uint8Array
  /** The same as nydusd keeps them: decoded, filled up to a block, and the header. */
  decoded?: Uint8Array
  /** The blob's end, which says what is where in it. */
  toc?: Uint8Array
  /** The digests of its chunks; `toc` has theirs. */
  digests?: Uint8Array
  /** Bytes of the blob, u64, where the manifest does not say it. */
  size?: Uint8Array
}

export interface NydusIndex {
  bootstrap: Uint8Array
  tables: readonly BlobTables[]
}

const MAGIC = 0x786e796e // "nynx"
const HEADER_BYTES = 8
const PART_BYTES = 16
const BOOTSTRAP = 0
const KINDS = ['stored', 'decoded', 'toc', 'digests', 'size'] as const

/** On memory of its own. */
export function packIndex({ bootstrap, tables }: NydusIndex): Uint8Array {
  const parts = [{ kind: BOOTSTRAP, blob: 0, bytes: bootstrap }]
  for (const of of tables) {
    for (const [i, key] of KINDS.entries()) {
      const bytes = of[key]
      if (bytes !== undefined) parts.push({ kind: i + 1, blob: of.blob, bytes })
    }
  }
  const begin = HEADER_BYTES + PART_BYTES * parts.length
  const packed = new Uint8Array(parts.reduce((sum, { bytes }) => sum + bytes.length, begin))
  const view = new DataView(packed.buffer)
  view.setUint32(0, MAGIC, true)
  view.setUint32(4, parts.length, true)
  let end = begin
  for (const [i, { kind, blob, bytes }] of parts.entries()) {
    const at = HEADER_BYTES + PART_BYTES * i
    view.setUint32(at, kind, true)
    view.setUint32(at + 4, blob, true)
    view.setBigUint64(at + 8, BigInt(bytes.length), true)
    packed.set(bytes, end)
    end += bytes.length
  }
  return packed
}

/** What is returned lies in `index`. @throws Failure corrupt */
export function unpackIndex(index: Uint8Array, what: string): NydusIndex {
  const cutOff = () => Failure.corrupt(`${what}: its index is cut off`)
  const view = new DataView(index.buffer, index.byteOffset, index.length)
  if (index.length < HEADER_BYTES || view.getUint32(0, true) !== MAGIC) throw cutOff()
  const count = view.getUint32(4, true)
  let at = HEADER_BYTES + PART_BYTES * count
  if (at > index.length) throw cutOff()
  let bootstrap: Uint8Array | undefined
  const tables = new Map<number, BlobTables>()
  for (let i = 0; i < count; i++) {
    const part = HEADER_BYTES + PART_BYTES * i
    const kind = view.getUint32(part, true)
    const blob = view.getUint32(part + 4, true)
    const end = at + Number(view.getBigUint64(part + 8, true))
    if (end > index.length) throw cutOff()
    const bytes = index.subarray(at, end)
    at = end
    if (kind === BOOTSTRAP) {
      bootstrap = bytes
      continue
    }
    const key = KINDS[kind - 1]
    if (key === undefined) throw Failure.corrupt(`${what}: its index has a part of kind ${kind}`)
    const of = tables.get(blob) ?? { blob }
    of[key] = bytes
    tables.set(blob, of)
  }
  if (bootstrap === undefined) throw cutOff()
  return { bootstrap, tables: [...tables.values()] }
}
