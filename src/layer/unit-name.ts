// What a unit's layers are known by in the cache.
import type { Unit } from '../format/format.ts'

/**
 * What a unit is known by. Its blobs' digests and sizes are claims until all of them was read, so the digest of the index, which is
 * checked, is part of it: nobody's blob answers for another's by saying that it has its digest. And so is where it comes from: what
 * an index's digest does not cover (where in the blob the index lies) is one registry's word, and counts for what comes from there.
 * And the format, in which the manifest says that it is to be read.
 */
export function nameOf(unit: Unit, origin: string): string {
  return `${unit.format} ${layersOf(unit)} ${unit.index} ${origin}`
}

/** As a manifest names them. */
export function layersOf({ layers }: Unit): string {
  return layers.map(({ digest, size }) => `${digest} ${size}`).join(' ')
}
