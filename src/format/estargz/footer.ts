// The last bytes of an eStargz blob, which say where its table of contents begins.
//
//   eStargz 51 = 10 gzip header + 2 extra length + 26 extra ("SG", its length 22, 16 hex digits, "STARGZ") + 5 empty block + 8 trailer
//   stargz  47 = the same with an extra field of 22: 16 hex digits, "STARGZ"
//   external 46 = the same with "SG", 17, "STARGZEXTERNALTOC": the table is in another image
import { Failure } from '../../errors.ts'

export const FOOTER_BYTES = 51
const EXTERNAL_BYTES = 46
/** The footers that hold an offset: their length, and what precedes the 16 hex digits from the extra field's length on. */
const OFFSET_AFTER: readonly [length: number, before: string][] = [
  [FOOTER_BYTES, '\x1a\0SG\x16\0'],
  [47, '\x16\0'],
]
const OFFSET_DIGITS = 16

/** gzip's magic, deflate, FLG.FEXTRA alone (RFC 1952 2.3). */
const HEADER = '\x1f\x8b\x08\x04'
const EXTRA_AT = 10
/** An empty stored last block (RFC 1951 3.2.4), then CRC and length, both 0. */
const END = '\x01\x00\x00\xff\xff\0\0\0\0\0\0\0\0'

export interface Footer {
  /** Where the gzip member of the table of contents begins in the blob; undefined: it is in another image. */
  tocOffset: number | undefined
  /** Bytes of the footer itself. */
  length: number
}

/**
 * @param tail the blob's last bytes, FOOTER_BYTES of them at least unless the blob is shorter
 * @throws Failure corrupt (no footer)
 */
export function parseFooter(tail: Uint8Array, what: string): Footer {
  const text = Buffer.from(tail.subarray(-FOOTER_BYTES)).toString('latin1')
  for (const [length, before] of OFFSET_AFTER) {
    const field = extra(text, length)
    const digits = field.slice(before.length, before.length + OFFSET_DIGITS)
    if (field === `${before}${digits}STARGZ` && /^[0-9a-fA-F]{16}$/.test(digits)) {
      return { tocOffset: Number.parseInt(digits, 16), length }
    }
  }
  if (extra(text, EXTERNAL_BYTES) === '\x15\0SG\x11\0STARGZEXTERNALTOC') {
    return { tocOffset: undefined, length: EXTERNAL_BYTES }
  }
  throw Failure.corrupt(`${what}: the blob does not end with an eStargz footer`, {
    why: 'the manifest promises an eStargz layer',
    fix: 'Convert and push the image again.',
  })
}

/** The length and the contents of the extra field, if `text` ends with an empty member of `length` bytes. */
function extra(text: string, length: number): string {
  const member = text.slice(-length)
  const fits = member.length === length && member.startsWith(HEADER) && member.endsWith(END)
  return fits ? member.slice(EXTRA_AT, -END.length) : ''
}

/** The footer of a blob whose table of contents begins at `tocOffset`. */
export function makeFooter(tocOffset: number): Uint8Array {
  const header = `${HEADER}\0\0\0\0\0\xff`
  const field = `\x1a\0SG\x16\0${tocOffset.toString(16).padStart(16, '0')}STARGZ`
  return new Uint8Array(Buffer.from(header + field + END, 'latin1'))
}
