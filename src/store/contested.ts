// Layers that lost the DiffID that their images claim to another image, until they are proven: records in the cache's folder `contested/`,
// and their twins. They outlive a restart, because an engine may have taken the one for the other by then.
import { join } from 'node:path'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { makeFolder } from './durable.ts'
import { keepTwins, namesOfTwins, peekTwins, readTwins, removeTwins } from './twins.ts'

/** A layer, and the DiffID that it is not shown under. */
export interface ContestedName {
  diffId: Digest
  blob: Digest
  /** Digest of the index by which it is read; absent: its format knows none. */
  index?: Digest
  tree: Digest
  /** Whether it is one of several layers that show one tree together. */
  together: boolean
}

const FOLDER = 'contested'
const NAME = /^[0-9a-f]{64}\.json$/

export class ContestedNames {
  readonly #cache: string
  readonly #warn: (message: string) => void

  private constructor(cache: string, warn: (message: string) => void) {
    this.#cache = cache
    this.#warn = warn
  }

  /** @param cache directory of an open Store. @throws Failure system */
  static async open(cache: string, warn: (message: string) => void): Promise<ContestedNames> {
    await makeFolder(join(cache, FOLDER))
    return new ContestedNames(cache, warn)
  }

  /** Resolves when it is durable. @throws Failure system */
  keep(name: ContestedName): Promise<void> {
    return keepTwins(this.#cache, nameOf(name), name)
  }

  /** @throws Failure system */
  forget(of: ContestedName): Promise<void> {
    return removeTwins(this.#cache, nameOf(of))
  }

  /** All of them; records of which nothing is left are dropped, with a warning. @throws Failure system */
  async all(): Promise<ContestedName[]> {
    const found: ContestedName[] = []
    for (const name of await namesOfTwins(this.#cache, FOLDER)) {
      if (!NAME.test(name)) continue
      const path = join(FOLDER, name)
      const is = (record: unknown): record is ContestedName => isContested(record) && nameOf(record) === path
      const record = await readTwins(this.#cache, path, is, this.#warn)
      if (record !== undefined) found.push(record)
    }
    return found
  }
}

/** The same of a blob, without changing anything. @throws Failure system */
export async function peekContested(cache: string, blob: Digest): Promise<ContestedName[]> {
  const names = (await namesOfTwins(cache, FOLDER)).filter((name) => NAME.test(name))
  const found = await Promise.all(names.map((name) => peekTwins(cache, join(FOLDER, name), isContested)))
  return found.flatMap((each) => (each?.blob === blob ? [each] : []))
}

function nameOf({ diffId, blob, tree, together }: ContestedName): string {
  const key = JSON.stringify([diffId, blob, tree, together])
  return join(FOLDER, `${hex(digestOf(new TextEncoder().encode(key)))}.json`)
}

function isContested(record: unknown): record is ContestedName {
  if (typeof record !== 'object' || record === null) return false
  if (!('diffId' in record && 'blob' in record && 'tree' in record && 'together' in record)) return false
  if ('index' in record && !isDigest(record.index)) return false
  return typeof record.together === 'boolean' && [record.diffId, record.blob, record.tree].every(isDigest)
}
