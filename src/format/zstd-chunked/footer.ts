// The last bytes of a zstd:chunked blob by stargz's writer, in a skippable frame: where its table of contents is. Only read where the
// manifest does not say it; containers/storage's own footer is 64 bytes, and nobody reads it.
//
//   0  8  offset     8  8  length     16  8  length of the JSON     24  8  type     32  8  magic
import { Failure } from '../../errors.ts'
import type { TocPosition } from './place.ts'

export const FOOTER_BYTES = 40

const MAGIC = 'GnUlInUx'
const MAGIC_AT = 32

/**
 * @param tail the blob's last FOOTER_BYTES, or all of it
 * @throws Failure corrupt: no footer
 */
export function parseZstdFooter(tail: Uint8Array, what: string): TocPosition {
  const magic = Buffer.from(tail.subarray(MAGIC_AT)).toString('latin1')
  if (tail.length !== FOOTER_BYTES || magic !== MAGIC) {
    throw Failure.corrupt(`${what}: the blob does not end with a zstd:chunked footer`, {
      why: 'the manifest promises a zstd:chunked layer, and does not say where its table of contents is',
      fix: 'Convert and push the image again.',
    })
  }
  const view = new DataView(tail.buffer, tail.byteOffset, tail.length)
  const number = (at: number) => Number(view.getBigUint64(at, true))
  return { offset: number(0), length: number(8), inflated: number(16) }
}
