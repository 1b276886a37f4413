// Whether a blob can be an ordinary layer of any image. One that is shown as nothing, under the name of its bytes, must not be: where it is
// one, its files would be missing. What is no tar no engine ever unpacked, so none ever gave its digest to a layer as that of a tar.
import type { Part } from '../image/part.ts'
import { BLOCK_BYTES, base256, checksumField, isZero, parseHeader, sumsOf } from './tar/header.ts'

/** As much as is looked at of either end of a blob; what is shorter is an empty layer to engines. */
export const OPAQUE_END_BYTES = BLOCK_BYTES

/**
 * Whether a blob may be a tar with something in it. If any reader of tars takes its first block for a header, it may.
 * @param head its first OPAQUE_END_BYTES, or all of it where it is shorter
 */
export function beginsTar(head: Uint8Array): boolean {
  if (head.length < BLOCK_BYTES) return false
  const sums: number[] = sumsOf(head)
  return checksumsIn(checksumField(head)).some((each) => sums.includes(each))
}

/** Whether engines may take a blob for an empty layer: it ends before its first header, or begins with zeros, which end a tar. */
export function beginsEmpty(head: Uint8Array): boolean {
  return head.length < BLOCK_BYTES || isZero(head)
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
