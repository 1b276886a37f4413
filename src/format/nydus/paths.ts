// Paths of a bootstrap's entries. A bootstrap has each name once, and a path spells out all directories above it: a few megabytes of
// bootstrap can make gigabytes of paths.
import { Failure } from '../../errors.ts'
import { PATH_MAX_BYTES } from '../../tree/entries.ts'
import { quote } from '../path.ts'
import type { RafsBytes } from './bytes.ts'

/** Of all paths: as much as a table of contents of eStargz may have, which spells them out itself. */
const LETTERS_MAX = 512 << 20

export class RafsPaths {
  readonly #lettersMax: number
  #letters = 0

  constructor(lettersMax = LETTERS_MAX) {
    this.#lettersMax = lettersMax
  }

  /** The path of `name` in the directory `parent`. @param from names it in errors @throws Failure limit */
  join(parent: string, name: string, from: Pick<RafsBytes, 'what'>): string {
    const path = parent === '' ? name : `${parent}/${name}`
    // a letter has a byte at least
    if (path.length > PATH_MAX_BYTES) {
      throw Failure.limit(`${from.what}: path ${quote(path)} is longer than ${PATH_MAX_BYTES} bytes`)
    }
    this.#letters += path.length
    if (this.#letters > this.#lettersMax) {
      throw Failure.limit(`${from.what}: the paths up to it have more than ${this.#lettersMax} letters`)
    }
    return path
  }
}
