// The ID that containers/storage gives a layer: a hash over the layer's own identity and those of all layers below it. Pure.
//
//   id of the base layer   = the DiffID's hex digits, as they are
//   id above it            = sha256(parent's id + "+" + the DiffID's hex digits)
//   id by index, anywhere  = sha256(parent's id, '' at the base + "+@TOC=" + the index's hex digits)
import { createHash } from 'node:crypto'
import { type Digest, hex } from '../image/digest.ts'

/** What a layer is identified by: the digest of its tar, or, as engines since Podman 5.1 do themselves, that of its index. */
export interface Identity {
  by: 'diffid' | 'index'
  digest: Digest
}

/** The ID of a layer on its parent. */
export function layerId(parent: string | undefined, { by, digest }: Identity): string {
  if (by === 'index') return sha256(`${parent ?? ''}+@TOC=${hex(digest)}`)
  return parent === undefined ? hex(digest) : sha256(`${parent}+${hex(digest)}`)
}

/** The ID of a further entry for a layer, one that names another blob of the same tar. No engine computes this ID. */
export function blobId(id: string, blob: Digest): string {
  return sha256(`${id}+blob=${hex(blob)}`)
}

const LINK_LENGTH = 26
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/**
 * The layer's short name. Containers keep it in their `lower` file, so it must stay the same for ever. Engines draw 26 characters of
 * base 32 at random; these are 130 bits of a hash.
 */
export function linkName(id: string): string {
  const digest = createHash('sha256').update(`link ${id}`).digest()
  let bits = BigInt(`0x${digest.toString('hex')}`)
  let name = ''
  while (name.length < LINK_LENGTH) {
    name += BASE32[Number(bits & 31n)]
    bits >>= 5n
  }
  return name
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
