// Ranges of a content, as a request asks for them and as an answer has them (RFC 9110 14).
import type { Range } from '../image/blob.ts'

/** Between parts; no byte of theirs is looked at for it, since each says how long it is. */
const BOUNDARY = 'lazylayer-part'
/** More are a mistake, or an attack: what is asked for so is given whole (RFC 9110 14.2). */
const RANGES_MAX = 256

/** Ranges of RFC 9110 14.1.2, suffixes too, in the order in which they are asked for; undefined: what is no such range, which is ignored. */
export function requestedRanges(
  header: string | undefined,
  size: number,
): readonly Range[] | 'unsatisfiable' | undefined {
  const [, specs] = /^bytes=(.+)$/.exec(header ?? '') ?? []
  const all = (specs ?? '').split(',').map((each) => rangeOf(each.trim(), size))
  if (all.length > RANGES_MAX || all.includes(undefined)) return undefined
  const satisfiable = all.filter((each) => each !== undefined).filter(({ start, end }) => start < end)
  return satisfiable.length === 0 ? 'unsatisfiable' : satisfiable
}

/** An empty range: it lies behind the end. */
function rangeOf(spec: string, size: number): Range | undefined {
  const match = /^(\d*)-(\d*)$/.exec(spec)
  const [, from = '', to = ''] = match ?? []
  if (match === null || (from === '' && to === '')) return undefined
  if (to !== '' && from !== '' && Number(to) < Number(from)) return undefined
  const start = from === '' ? Math.max(0, size - Number(to)) : Number(from)
  const end = from === '' || to === '' ? size : Math.min(size, Number(to) + 1)
  return { start, end: Math.max(start, end) }
}

/** An answer of several ranges (RFC 9110 14.6). */
export function byteRanges(
  ranges: readonly Range[],
  mediaType: string,
  size: number,
  read: (start: number, end: number) => AsyncIterable<Uint8Array>,
): { headers: Record<string, string>; body: AsyncIterable<Uint8Array> } {
  const heads = ranges.map(({ start, end }, i) =>
    Buffer.from(
      `${i === 0 ? '' : '\r\n'}--${BOUNDARY}\r\ncontent-type: ${mediaType}\r\ncontent-range: bytes ${start}-${end - 1}/${size}\r\n\r\n`,
    ),
  )
  const end = Buffer.from(`\r\n--${BOUNDARY}--\r\n`)
  const length = ranges.reduce((sum, { start, end }) => sum + end - start, end.length)
  async function* body() {
    for (const [i, { start, end }] of ranges.entries()) {
      yield heads[i] as Uint8Array // one each
      yield* read(start, end)
    }
    yield end
  }
  return {
    headers: {
      'content-type': `multipart/byteranges; boundary=${BOUNDARY}`,
      'content-length': `${heads.reduce((sum, each) => sum + each.length, length)}`,
    },
    body: body(),
  }
}
