// Whether a blob can be an ordinary layer of any image. One that is shown as nothing, under the name of its bytes, must not be: where it is
// one, its files would be missing. What is no tar no engine ever unpacked, so none ever gave its digest to a layer as that of a tar.
import type { Part } from '../image/part.ts'
import { BLOCK_BYTES, base256, checksumField, isZero, parseHeader, sumsOf } from './tar/header.ts'

/** As much as is looked at of either end of a blob. */
export const OPAQUE_END_BYTES = BLOCK_BYTES

/**
 * Why a blob may be a tar: a clause; undefined: no reader of tars gets beyond its beginning. Whoever takes the checksum for a number in any
 * of the known ways is no reason to take the blob for opaque.
 * @param head its first OPAQUE_END_BYTES, or all of it where it is shorter
 */
export function whyNotOpaque(head: Uint8Array): string | undefined {
  // what ends before its first header is an empty layer to engines
  if (head.length < BLOCK_BYTES) return `it has less than ${BLOCK_BYTES} bytes, which engines take for an empty layer`
  if (isZero(head)) return 'it begins with zeros, which end a tar: an empty layer'
  const sums: number[] = sumsOf(head)
  return checksumsIn(checksumField(head)).some((each) => sums.includes(each)) ? 'it begins as a tar does' : undefined
}

/** Why a blob is not what its image's index says of it: a clause. @param tail its last OPAQUE_END_BYTES, or all of it */
export function whyNotPart(tail: Uint8Array, { ends }: Part): string | undefined {
  if (ends === undefined || nameIn(tail) === ends) return undefined
  return `it does not end in ${ends}, as its image says`
}

function nameIn(block: Uint8Array): string | undefined {
  try {
    return block.length < BLOCK_BYTES ? undefined : parseHeader(block, { what: 'its end' }).name
  } catch {
    return undefined // no header
  }
}

/** What readers take a checksum's field for: some stop at the first byte that is no digit, some know numbers that are not octal. */
function checksumsIn(field: Uint8Array): number[] {
  const digits = /^[ \0\t]*([0-7]*)/.exec(Buffer.from(field).toString('latin1'))?.[1] ?? ''
  const octal = digits === '' ? 0 : Number.parseInt(digits, 8)
  const binary = ((field[0] ?? 0) & 0x80) === 0 ? undefined : base256(field)
  return binary === undefined ? [octal] : [octal, binary]
}
