// Where in a layer's tar a table of contents says that contents end: what stands behind them is headers.
import { behind } from '../tar/members.ts'
import type { Raw } from './scan.ts'

/** A place in the tar: `at` bytes into what the members or frames from `offset` of the blob on decode to. */
export interface Place {
  offset: number
  at: number
}

/** Behind a chunk of a file of `size` bytes, and behind what fills its last block. */
export function placeBehind(chunk: Raw, size: number): Place {
  const at = numberIn(chunk.innerOffset)
  const begin = numberIn(chunk.chunkOffset)
  const length = numberIn(chunk.chunkSize) || size - begin
  const padding = begin + length === size ? behind(0, size) - size : 0
  return { offset: numberIn(chunk.offset), at: at + length + padding }
}

/** 0 where there is none; what is wrong is said when the table is parsed. */
export function numberIn(value: unknown): number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0
}
