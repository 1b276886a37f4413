// A sequence of numbers that a seed names, so that one damaged input among 100,000 can be made again.

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = Math.imul(seed + 1, 0x9e37_79b9) >>> 0
  }

  /** From 0 to below `end`, which is at most 2^32. */
  below(end: number): number {
    return Math.floor((this.#next() / 2 ** 32) * end)
  }

  oneOf<T>(of: readonly T[]): T {
    return of[this.below(of.length)] as T // below the length
  }

  /** Sebastiano Vigna's splitmix, on 32 bits. */
  #next(): number {
    this.#state = (this.#state + 0x9e37_79b9) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85eb_ca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35)
    return (mixed ^ (mixed >>> 16)) >>> 0
  }
}
