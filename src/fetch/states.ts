// What the ready file says of chunks.

/** States of a chunk; any other value: nothing is there. */
export const VERIFIED = 1
export const STORED = 2

export interface Slots {
  state(chunk: number): number
  /** The same of each, in one read. */
  statesOf(chunks: readonly number[]): readonly number[]
}

/** Of each of these its state, or why the disk does not tell: whoever reads that one fails, nobody else. */
export function statesOf(slots: Slots, chunks: readonly number[]): readonly (number | Error)[] {
  try {
    return slots.statesOf(chunks)
  } catch {
    return chunks.map((chunk) => stateOf(slots, chunk))
  }
}

/** Nothing of it is here, and the disk says so. */
export function isMissing(slots: Slots, chunk: number): boolean {
  const state = stateOf(slots, chunk)
  return typeof state === 'number' && state !== VERIFIED && state !== STORED
}

function stateOf(slots: Slots, chunk: number): number | Error {
  try {
    return slots.state(chunk)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}
