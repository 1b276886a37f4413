// Images whose trees keep all that the cache has of them: a record an image in the cache's folder `pins/`, and its twin.
import { join } from 'node:path'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { type Found, keepTwins, namesOfTwins, readTwins, removeTwins } from './twins.ts'

/** An image that was pinned. */
export interface Pin {
  reference: string
  trees: readonly Digest[]
}

const FOLDER = 'pins'
const NAME = /^[0-9a-f]{64}\.json$/

export class Pins {
  readonly #cache: string
  readonly #found: Found

  /**
   * @param cache directory of an open Store
   * @param found told of damage, in a sentence
   */
  constructor(cache: string, found: Found) {
    this.#cache = cache
    this.#found = found
  }

  /** Resolves when it is durable. @throws Failure system */
  async add({ reference, trees }: Pin): Promise<void> {
    await keepTwins(this.#cache, nameOf(reference), { reference, trees })
  }

  /** The same. @returns whether it was pinned. @throws Failure system */
  async remove(reference: string): Promise<boolean> {
    const name = nameOf(reference)
    const wasPinned = (await this.#read(name)) !== undefined
    await removeTwins(this.#cache, name)
    return wasPinned
  }

  /** In the order of their names; a record of which nothing is left pins nothing. @throws Failure system */
  async all(): Promise<Pin[]> {
    const pins: Pin[] = []
    for (const name of await namesOfTwins(this.#cache, FOLDER)) {
      const pin = NAME.test(name) ? await this.#read(join(FOLDER, name)) : undefined
      if (pin !== undefined) pins.push(pin)
    }
    return pins
  }

  /** Names of the folders of all trees that are pinned. @throws Failure system */
  async trees(): Promise<ReadonlySet<string>> {
    return new Set((await this.all()).flatMap(({ trees }) => trees.map(hex)))
  }

  #read(name: string): Promise<Pin | undefined> {
    const is = (record: unknown): record is Pin => isPin(record) && nameOf(record.reference) === name
    return readTwins(this.#cache, name, is, this.#found)
  }
}

function nameOf(reference: string): string {
  return join(FOLDER, `${hex(digestOf(new TextEncoder().encode(reference)))}.json`)
}

function isPin(record: unknown): record is Pin {
  if (typeof record !== 'object' || record === null || !('reference' in record && 'trees' in record)) return false
  const { reference, trees } = record
  return typeof reference === 'string' && Array.isArray(trees) && trees.every(isDigest)
}
