// Indexes as the native side reads them, beside the parsers.
import type { Unit } from '../../src/format/format.ts'
import { isUsual } from '../mount/usual-trees.ts'
import type { Outcome } from './target.ts'

/** `refused` is what the native side leaves to a parser. @throws AssertionError where the two do not agree */
export async function usualOutcome(index: Uint8Array, unit: Unit): Promise<Outcome> {
  return (await isUsual(index, unit)) ? 'read' : 'refused'
}
