// Several ranges in one answer (RFC 9110 14.6): each part says which bytes it has, and has exactly those.
//
//   [CRLF] --BOUNDARY CRLF headers CRLF CRLF bytes CRLF --BOUNDARY CRLF … CRLF --BOUNDARY--
//
// Who answers may leave ranges out, join neighbours, or order them anew.
import { Failure } from '../errors.ts'

/** Bytes of the blob, at their offset in it. */
export interface Piece {
  readonly at: number
  readonly bytes: Uint8Array
}

/** A delimiter of 72 bytes at most and a few headers, of which some servers send six. */
const HEAD_MAX_BYTES = 4 << 10
/** RFC 2046 5.1.1 */
const BOUNDARY = /^multipart\/byteranges\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))/i
const CONTENT_RANGE = /^content-range:[ \t]*bytes[ \t]+(\d{1,15})-(\d{1,15})\/(\d{1,15}|\*)[ \t]*$/im

/** What stands between the parts of an answer; undefined: it is not in parts. */
export function boundaryOf(contentType: string | undefined): string | undefined {
  const [, quoted, plain] = BOUNDARY.exec(contentType?.trim() ?? '') ?? []
  return quoted ?? plain
}

/** Takes an answer apart as it arrives. */
export class ByteRanges {
  readonly #delimiter: string
  readonly #size: number
  /** What came of a part's head, or of what follows the last part. */
  #head = ''
  /** Where the next byte of the part lies in the blob, and where the part ends. */
  #at = 0
  #end = 0
  #isOver = false

  /** @param size of the blob */
  constructor(boundary: string, size: number) {
    this.#delimiter = `--${boundary}`
    this.#size = size
  }

  /** Whether the last part has come. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** @returns what of the parts has come with these bytes @throws Failure corrupt: it is no such answer */
  *take(bytes: Uint8Array): Generator<Piece> {
    for (let from = 0; from < bytes.length && !this.#isOver; ) {
      if (this.#at < this.#end) {
        const part = bytes.subarray(from, from + this.#end - this.#at)
        const at = this.#at
        this.#at += part.length
        from += part.length
        yield { at, bytes: part }
      } else {
        from += this.#takeHead(bytes.subarray(from))
      }
    }
  }

  /** @returns how many of the bytes belong to the head */
  #takeHead(bytes: Uint8Array): number {
    const before = this.#head.length
    const text =
      this.#head +
      Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, HEAD_MAX_BYTES)).toString('latin1')
    const start = /^(?:\r\n|\r$)/.exec(text)?.[0].length ?? 0
    const delimiter = text.slice(start, start + this.#delimiter.length)
    if (!this.#delimiter.startsWith(delimiter)) throw broken('there is no boundary where one has to be')
    const behind = start + this.#delimiter.length
    if (text.startsWith('--', behind)) {
      this.#isOver = true
      return bytes.length
    }
    const end = text.indexOf('\r\n\r\n', behind)
    if (end < 0) {
      if (text.length >= HEAD_MAX_BYTES) throw broken('the headers of a part have no end')
      this.#head = text
      return bytes.length
    }
    const [, first, last, size] = CONTENT_RANGE.exec(text.slice(behind, end)) ?? []
    const [at, until] = [Number(first), Number(last) + 1]
    if (!(at < until && until <= this.#size) || (size !== '*' && Number(size) !== this.#size))
      throw broken('a part does not say which bytes of the blob it has')
    this.#head = ''
    this.#at = at
    this.#end = until
    return end + 4 - before
  }
}

function broken(why: string): Failure {
  return Failure.corrupt('an answer of several ranges is malformed', { why })
}
