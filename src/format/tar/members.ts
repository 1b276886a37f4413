// The members of a stretch of a tar that is in memory: what stands between the contents of one file and those of the next.
import { Failure } from '../../errors.ts'
import { type Member, memberOf, type Prelude } from './entry.ts'
import { BLOCK_BYTES, isZero, parseHeader, type TarHeader, textOf } from './header.ts'
import { parsePax } from './pax.ts'

/** Of a PAX header or a long name; as much as Go takes. */
const EXTENSION_MAX_BYTES = 1 << 20

/** A header that extends the one behind it: PAX, or a long name of GNU's. */
export function isExtension({ type }: TarHeader): boolean {
  return 'xLK'.includes(type)
}

/** What extends a header is held in memory, and split. @throws Failure limit */
export function checkExtension({ size }: TarHeader, of: { readonly what: string }): void {
  if (size <= EXTENSION_MAX_BYTES) return
  throw Failure.limit(`${of.what}: a PAX header or long name of ${size} bytes`, {
    why: `at most ${EXTENSION_MAX_BYTES} are accepted`,
  })
}

/**
 * What is known about the next entry once the header of an extension and its `bytes` were read.
 * @param of names the header in errors
 * @throws Failure corrupt, limit, unsupported
 */
export function extend(prelude: Prelude, header: TarHeader, bytes: Uint8Array, of: { readonly what: string }): Prelude {
  checkExtension(header, of)
  if (header.type === 'x') {
    if (prelude.pax) throw Failure.unsupported(`${of.what}: a second PAX header for one entry`)
    return { ...prelude, pax: parsePax(bytes, of) }
  }
  const end = bytes.indexOf(0)
  if (end >= 0 && !isZero(bytes.subarray(end))) throw Failure.corrupt(`${of.what}: a long name with a NUL`)
  const name = textOf(bytes, 'long name', of)
  if (name === '') throw Failure.corrupt(`${of.what}: an empty long name`)
  const key = header.type === 'L' ? 'longName' : 'longLink'
  if (prelude[key] !== undefined) throw Failure.unsupported(`${of.what}: a second long name for one entry`)
  return { ...prelude, [key]: name }
}

/** Where the blocks of `size` bytes end that begin at `at`. */
export function behind(at: number, size: number): number {
  return at + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES
}

/**
 * Members from the header at `at` on, until the archive's end or that of the bytes; of the last file there may be the header alone.
 * @param what names the tar in errors
 * @throws Failure corrupt, limit, unsupported
 */
export function* membersIn(tar: Uint8Array, at: number, what: string): Generator<Member> {
  let prelude: Prelude = {}
  for (let next = at; next + BLOCK_BYTES <= tar.length; ) {
    const of = { what: `${what}: header` }
    const block = tar.subarray(next, next + BLOCK_BYTES)
    if (isZero(block)) return
    const header = parseHeader(block, of)
    const begin = next + BLOCK_BYTES
    next = behind(begin, header.size)
    if (isExtension(header)) {
      if (next > tar.length) throw Failure.corrupt(`${of.what}: the tar is cut off`)
      prelude = extend(prelude, header, tar.subarray(begin, begin + header.size), of)
    } else {
      yield memberOf(header, prelude, what)
      prelude = {}
    }
  }
}

/** Whether the archive's end, two blocks of zeros, stands behind the members from the header at `at` on. */
export function hasEnd(tar: Uint8Array, at: number): boolean {
  for (let next = at; next + 2 * BLOCK_BYTES <= tar.length; ) {
    const block = tar.subarray(next, next + BLOCK_BYTES)
    if (isZero(block)) return isZero(tar.subarray(next + BLOCK_BYTES, next + 2 * BLOCK_BYTES))
    next = behind(next + BLOCK_BYTES, parseHeader(block, { what: 'header' }).size)
  }
  return false
}
