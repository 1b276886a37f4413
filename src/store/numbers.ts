// Slot numbers: one a tree, given once and never to another, because the kernel holds node IDs that contain them (node ID =
// slot << 40 | nid). `slots/<n>` holds the hex digits of its tree's digest. A file that is damaged burns its number.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, hex } from '../image/digest.ts'
import { claimFile, lockedFolder, readWhole } from './durable.ts'
import type { Locks } from './locks.ts'

/** 22 bits of a node ID; 0 is no slot. */
export const SLOT_MAX = (1 << 22) - 1
const HEX = /^[0-9a-f]{64}$/

export class Numbers {
  readonly #folder: string
  readonly #temporary: string
  readonly #locks: Locks
  readonly #numbers = new Map<string, number>()
  /** The highest number seen on disk. Numbers are given upwards, so what lies above was not read yet. */
  #last = 0
  /** The last call: one process asks for the lock once at a time. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(folder: string, temporary: string, locks: Locks) {
    this.#folder = folder
    this.#temporary = temporary
    this.#locks = locks
  }

  /** The tree's number, given now if it has none. @throws Failure limit, timeout, system */
  async of(tree: Digest): Promise<number> {
    const known = this.#numbers.get(hex(tree))
    if (known !== undefined) return known
    const given = this.#turn.then(() => this.#numbers.get(hex(tree)) ?? this.#give(tree))
    this.#turn = given.catch(() => {}) // told to whoever asked; the next one tries anew
    return given
  }

  #give(tree: Digest): Promise<number> {
    return lockedFolder(this.#locks, this.#folder, async () => {
      await this.#read()
      const found = this.#numbers.get(hex(tree))
      if (found !== undefined) return found
      const number = this.#last + 1
      if (number > SLOT_MAX) {
        throw Failure.limit(`all ${SLOT_MAX} slots of ${this.#folder} are given`, {
          fix: 'Stop all that use this cache, and name a new one with --cache DIR.',
        })
      }
      // the lock keeps others away; not replacing holds even where a filesystem has no locks worth the name
      if (
        !(await claimFile(this.#temporary, join(this.#folder, String(number)), new TextEncoder().encode(hex(tree))))
      ) {
        throw Failure.system(`slot ${number} of ${this.#folder} was taken in spite of the lock`, {
          fix: 'Keep the cache on a local filesystem: --cache DIR.',
        })
      }
      this.#last = number
      this.#numbers.set(hex(tree), number)
      return number
    })
  }

  async #read(): Promise<void> {
    const fresh = (await fs.readdir(this.#folder))
      .filter((name) => /^[1-9][0-9]{0,6}$/.test(name) && Number(name) > this.#last && Number(name) <= SLOT_MAX)
      .map(Number)
      .sort((a, b) => a - b)
    for (const number of fresh) {
      const bytes = await readWhole(join(this.#folder, String(number)), 64)
      this.#last = number
      if (bytes === undefined || bytes === 'damaged') continue
      const tree = new TextDecoder().decode(bytes)
      if (HEX.test(tree) && !this.#numbers.has(tree)) this.#numbers.set(tree, number)
    }
  }
}
