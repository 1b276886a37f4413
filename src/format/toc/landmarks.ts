// Files of stargz's own in a layer's tar that say what a start of the image needs: `ctr-remote image optimize` puts them there, and they
// stay when other tools recompress the tar.
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
