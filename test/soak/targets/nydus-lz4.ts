// Tables of nydus blobs that are compressed by LZ4.
import { decodeTable } from '../../../src/format/nydus/decode.ts'
import type { Target } from '../target.ts'
import { attempt } from '../well-formed.ts'

const SIZE = 60

/** A literal, 44 of the same by a match that reaches into itself, 15 literals. */
const BLOCK = Uint8Array.of(0x1f, 7, 1, 0, 25, 0xf0, 0, ...new Uint8Array(15).fill(9))

export const nydusLz4: Target = {
  name: 'nydus-lz4',
  seeds: [BLOCK],
  run: (bytes) => attempt(() => decodeTable(bytes, 'lz4_block', SIZE, 'table')),
}
