// Which pieces of a tree's chunks lie on other trees' devices. A piece is what one check is about: it is known by its digest, its algorithm
// and its length, whichever files, chunks or formats it is part of. A chunk can be put together where all of its pieces are found.
//
// No object a chunk: the tree's checks are hashed into a table of numbers, and other trees' checks are looked up in it one by one.
import type { ChunkTable, Columns } from './chunk-table.ts'
import { READY_MISSING } from './ready.ts'

/** Where pieces of a tree are. */
export interface FoundPieces {
  /** By check of the tree: the number of the holder that has its piece, from 1; 0: none has, or some other piece of its chunk is missing. */
  readonly holder: Uint8Array
  /** By check of the tree: where on that holder's device. */
  readonly at: Float64Array
}

/** As `holder` counts them. */
export const HOLDERS_MAX = 255

const WORDS = 8
const NONE_CODEC = 0

export class PieceSearch {
  readonly #columns: Columns
  readonly #chunks: number
  readonly #digests: Uint32Array
  /** Of a hash table with open addressing: numbers of checks, from 1. */
  readonly #slots: Uint32Array
  /** By check: the next with the same piece, from 1. */
  readonly #same: Uint32Array
  /** Odd, drawn anew: whoever makes an index cannot have its digests meet in one slot. */
  readonly #factors: Uint32Array
  readonly #holder: Uint8Array
  readonly #at: Float64Array
  /** Pieces that no holder was found for. */
  #left = 0

  constructor(tree: ChunkTable, factors = crypto.getRandomValues(new Uint32Array(WORDS + 1))) {
    this.#columns = tree.columns
    this.#chunks = tree.length
    this.#factors = factors.map((each) => each | 1)
    this.#digests = digestWords(tree.columns)
    const checks = tree.columns.checkStart.length
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(2 * checks + 2)))
    this.#same = new Uint32Array(checks)
    this.#holder = new Uint8Array(checks)
    this.#at = new Float64Array(checks)
    for (let chunk = 0; chunk < tree.length; chunk++) {
      for (let check = firstOf(this.#columns.checksEnd, chunk); check < end(this.#columns.checksEnd, chunk); check++) {
        if (placeOf(this.#columns, chunk, check) >= 0) this.#insert(check)
      }
    }
  }

  /** Whether everything was found. */
  get isOver(): boolean {
    return this.#left === 0
  }

  /**
   * Looks for pieces on the device of a tree.
   * @param holder its number, from 1 to HOLDERS_MAX
   * @param states its ready bytes, one a chunk
   */
  look(holder: number, tree: ChunkTable, states: Uint8Array): void {
    const { columns } = tree
    const digests = digestWords(columns)
    for (let chunk = 0; chunk < tree.length && this.#left > 0; chunk++) {
      if (states[chunk] === READY_MISSING) continue
      for (let check = firstOf(columns.checksEnd, chunk); check < end(columns.checksEnd, chunk); check++) {
        const slot = this.#slotOf(columns, digests, check)
        let found = this.#slots[slot] as number
        if (found === 0 || this.#holder[found - 1] !== 0) continue
        const at = placeOf(columns, chunk, check)
        if (at < 0) continue
        for (; found > 0; found = this.#same[found - 1] as number) {
          this.#holder[found - 1] = holder
          this.#at[found - 1] = at
          this.#left--
        }
      }
    }
  }

  /** Of chunks all of whose pieces were found; undefined: there are none. */
  found(): FoundPieces | undefined {
    const { checksEnd } = this.#columns
    let any = false
    for (let chunk = 0; chunk < this.#chunks; chunk++) {
      const [first, last] = [firstOf(checksEnd, chunk), end(checksEnd, chunk)]
      if (first < last && !this.#holder.subarray(first, last).includes(0)) any = true
      else this.#holder.fill(0, first, last)
    }
    return any ? { holder: this.#holder, at: this.#at } : undefined
  }

  #insert(check: number): void {
    const slot = this.#slotOf(this.#columns, this.#digests, check)
    this.#same[check] = this.#slots[slot] as number
    this.#slots[slot] = check + 1
    this.#left++
  }

  /** Where the piece of a check of some tree is, or would be. */
  #slotOf(columns: Columns, digests: Uint32Array, check: number): number {
    const slots = this.#slots
    const mask = slots.length - 1
    const length = lengthOf(columns, check)
    let hash = Math.imul(length, this.#factors[WORDS] as number)
    for (let i = 0; i < WORDS; i++) {
      hash = Math.imul(hash ^ (digests[check * WORDS + i] as number), this.#factors[i] as number)
      hash ^= hash >>> 15
    }
    let slot = hash & mask
    for (; ; slot = (slot + 1) & mask) {
      const found = slots[slot] as number
      if (found === 0 || this.#isSame(found - 1, columns, digests, check, length)) return slot
    }
  }

  #isSame(own: number, columns: Columns, digests: Uint32Array, check: number, length: number): boolean {
    if (lengthOf(this.#columns, own) !== length) return false
    if (this.#columns.checkAlgorithm[own] !== columns.checkAlgorithm[check]) return false
    for (let i = 0; i < WORDS; i++) {
      if (this.#digests[own * WORDS + i] !== digests[check * WORDS + i]) return false
    }
    return true
  }
}

/** Digests as words; they are 8-byte aligned, as all columns. */
function digestWords({ checkDigest: { buffer, byteOffset, length } }: Columns): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length / Uint32Array.BYTES_PER_ELEMENT)
}

/** Where the first number of a chunk is in a column that `ends` tells the ends of. */
function firstOf(ends: Uint32Array, chunk: number): number {
  return chunk === 0 ? 0 : (ends[chunk - 1] as number)
}

function end(ends: Uint32Array, chunk: number): number {
  return ends[chunk] as number
}

function lengthOf({ checkStart, checkEnd }: Columns, check: number): number {
  return (checkEnd[check] as number) - (checkStart[check] as number)
}

/** Where on the tree's device a piece lies, all of it; -1: nowhere in one place, or its check is about bytes that no device has. */
function placeOf(columns: Columns, chunk: number, check: number): number {
  const { checkOf, codec, checkStart, checkEnd, placesEnd, placeFrom, placeLength, placeAt } = columns
  if (checkOf[check] !== 0 && codec[chunk] !== NONE_CODEC) return -1
  const [start, stop] = [checkStart[check] as number, checkEnd[check] as number]
  if (start >= stop) return -1
  for (let place = firstOf(placesEnd, chunk); place < end(placesEnd, chunk); place++) {
    const from = placeFrom[place] as number
    if (from <= start && stop <= from + (placeLength[place] as number)) return (placeAt[place] as number) + start - from
  }
  return -1
}
