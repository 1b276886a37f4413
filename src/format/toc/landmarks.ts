// Files of stargz's own in a layer's tar that say what a start of the image needs: `ctr-remote image optimize` puts them there, and they
// stay when other tools recompress the tar.
import type { Range } from '../../image/blob.ts'
import { type Entry, ZEROS } from '../../tree/entry.ts'

/** The data of files before this one in the blob is what a start of the image needs. */
export const LANDMARK = '.prefetch.landmark'
/** Says that nothing is known to be needed first. */
export const NO_LANDMARK = '.no.prefetch.landmark'

/** Numbers of the chunks before the landmark, where chunks are numbered by their places in the blob. */
export function wantedFirst(entries: readonly Entry[]): number[] {
  if (entries.some((each) => each.path === NO_LANDMARK)) return []
  const extents = entries.findLast((each) => each.path === LANDMARK)?.extents
  const landmark = extents?.find(({ chunk }) => chunk !== ZEROS)?.chunk
  return landmark === undefined ? [] : Array.from({ length: landmark }, (_, i) => i)
}

/** A table lists the files in the order of the blob: what a start needs, and the landmark behind it, stand at its beginning. */
const SEARCHED_MAX_BYTES = 16 << 20

/** The stored bytes before the landmark, found in a table that is not parsed; undefined: none is found. */
export function bytesBeforeLandmark(json: Uint8Array): Range | undefined {
  const text = Buffer.from(json.buffer, json.byteOffset, Math.min(json.length, SEARCHED_MAX_BYTES))
  const at = text.indexOf(`"${LANDMARK}"`)
  if (at < 0 || text.includes(`"${NO_LANDMARK}"`)) return undefined
  const end = offsetIn(text.toString('latin1', text.lastIndexOf('{', at), text.indexOf('}', at) + 1))
  return end === undefined ? undefined : { start: 0, end }
}

/** Of an entry that holds no object. */
function offsetIn(entry: string): number | undefined {
  try {
    const raw: unknown = JSON.parse(entry)
    const offset: unknown = typeof raw === 'object' && raw !== null && 'offset' in raw ? raw.offset : undefined
    return typeof offset === 'number' && Number.isSafeInteger(offset) && offset > 0 ? offset : undefined
  } catch {
    return undefined // whoever parses the table says what is wrong with it
  }
}
