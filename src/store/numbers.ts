// The numbers of a tree under one of its names, given once and never to another:
//   slot       the kernel holds node IDs that contain it (node ID = slot << 40 | nid)
//   inodeBase  st_ino = inodeBase + nid, so that no two files of a mount share one; 64 bits, but below 2^32 while there is room,
//              because 32-bit programs cannot stat what lies above. Each takes as many as its image can have nids, no gap between.
//
// `slots/<slot>` is a record of both. A file that is damaged burns its slot, and as many inode numbers as an image can have, unless
// `twins/slots.json` tells how far they were given; that also keeps the numbers of files that are gone from being given again. One of
// an earlier version holds the hex digits of the digest alone, and is given a base when it is next asked for.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, hex } from '../image/digest.ts'
import { NID_BYTES } from '../tree/erofs-format.ts'
import { IMAGE_MAX_BYTES } from '../tree/erofs-plan.ts'
import { claimFile, isRefusal, lockedFolder, readWhole, replaceFile, systemCode } from './durable.ts'
import type { Locks } from './locks.ts'
import { decodeRecord, encodeRecord } from './record.ts'

/** 22 bits of a node ID; 0 is no slot. */
export const SLOT_MAX = (1 << 22) - 1
/**
 * Where the disk takes nothing, numbers are this process's alone. Slots are given from the last one down, and inode numbers from here on
 * (2^45), where no cache comes by itself: those on disk were given upwards.
 */
const ALONE_BASE = 2 ** 45
/** No image has more nids. */
const NIDS_MAX = IMAGE_MAX_BYTES / NID_BYTES
const HEX = /^[0-9a-f]{64}$/
const FILE_MAX_BYTES = 1024

export interface TreeNumbers {
  slot: number
  inodeBase: number
}

interface KnownNumbers {
  slot: number
  /** Undefined: none was given yet. */
  inodeBase: number | undefined
}

/** How far numbers were given. */
interface Mark {
  last: number
  nextBase: number
}

interface Kept {
  /** Its own: damage can swap files, too. Undefined: it was kept before that was told. */
  slot?: number
  tree: string
  inodeBase: number | undefined
  nids: number
}

export class Numbers {
  readonly #folder: string
  readonly #temporary: string
  readonly #mark: string | undefined
  readonly #refused: ((error: unknown) => void) | undefined
  readonly #locks: Locks
  readonly #known = new Map<string, KnownNumbers>()
  /** The highest slot seen on disk. Slots are given upwards, so what lies above was not read yet. */
  #last = 0
  /** Of the files that had no base when they were read: others may have given them one. */
  readonly #baseless = new Set<number>()
  /** The lowest that no tree has, as far as files were read. */
  #nextBase = 0
  /** The last call: one process asks for the lock once at a time. */
  #turn: Promise<unknown> = Promise.resolve()
  /** The next that are this process's alone. */
  #alone: TreeNumbers = { slot: SLOT_MAX, inodeBase: ALONE_BASE }

  /**
   * @param mark the file that tells how far numbers were given; its folder exists
   * @param refused told why the disk took none; without it, whoever asks is
   */
  constructor(
    folder: string,
    temporary: string,
    locks: Locks,
    { mark, refused }: { mark?: string; refused?: (error: unknown) => void } = {},
  ) {
    this.#mark = mark
    this.#refused = refused
    this.#folder = folder
    this.#temporary = temporary
    this.#locks = locks
  }

  /**
   * The tree's numbers, given now if it has none.
   * @param imageBytes says how long its image is; asked only when there is none
   * @throws Failure limit, timeout, system; what `imageBytes` throws
   */
  async of(tree: Digest, imageBytes: () => Promise<number>): Promise<TreeNumbers> {
    const known = this.#get(tree)
    if (known !== undefined) return known
    const given = this.#turn.then(() => this.#get(tree) ?? this.#give(tree, imageBytes))
    this.#turn = given.catch(() => {}) // told to whoever asked; the next one tries anew
    return given
  }

  #get(tree: Digest): TreeNumbers | undefined {
    const { slot, inodeBase } = this.#known.get(hex(tree)) ?? {}
    return slot === undefined || inodeBase === undefined ? undefined : { slot, inodeBase }
  }

  async #give(tree: Digest, imageBytes: () => Promise<number>): Promise<TreeNumbers> {
    const nids = Math.ceil((await imageBytes()) / NID_BYTES)
    return await this.#giveKept(tree, nids).catch((error) => {
      const isUnmade = systemCode(error) === 'ENOENT' // the folder: the disk did not take it, which was told
      if (this.#refused === undefined || !(isRefusal(error) || isUnmade)) throw error
      if (!isUnmade) this.#refused(error)
      return this.#get(tree) ?? this.#giveAlone(tree, nids) // only the mark was not taken
    })
  }

  /** For as long as this process lives. @throws Failure limit */
  #giveAlone(tree: Digest, nids: number): TreeNumbers {
    const { slot, inodeBase } = this.#alone
    if (slot <= this.#last) throw tooMany(this.#folder)
    this.#alone = { slot: slot - 1, inodeBase: inodeBase + nids }
    this.#known.set(hex(tree), { slot, inodeBase })
    return { slot, inodeBase }
  }

  async #giveKept(tree: Digest, nids: number): Promise<TreeNumbers> {
    return await lockedFolder(this.#locks, this.#folder, async () => {
      await this.#read()
      const found = this.#get(tree)
      if (found !== undefined) return found
      const slot = this.#known.get(hex(tree))?.slot
      const numbers = { slot: slot ?? this.#last + 1, inodeBase: this.#nextBase }
      const record = encodeRecord({ ...numbers, tree: hex(tree), nids })
      if (slot === undefined) await this.#claim(numbers.slot, record)
      else await replaceFile(this.#temporary, this.#path(slot), record)
      this.#note(numbers.slot, { tree: hex(tree), inodeBase: numbers.inodeBase, nids }, 0)
      const mark: Mark = { last: this.#last, nextBase: this.#nextBase }
      if (this.#mark !== undefined) await replaceFile(this.#temporary, this.#mark, encodeRecord(mark))
      return numbers
    })
  }

  async #claim(slot: number, record: Uint8Array): Promise<void> {
    if (slot > this.#alone.slot) throw tooMany(this.#folder)
    // the lock keeps others away; not replacing holds even where a filesystem has no locks worth the name
    if (!(await claimFile(this.#temporary, this.#path(slot), record))) {
      throw Failure.system(`slot ${slot} of ${this.#folder} was taken in spite of the lock`, {
        fix: 'Keep the cache on a local filesystem: --cache DIR.',
      })
    }
  }

  async #read(): Promise<void> {
    const fresh = (await fs.readdir(this.#folder))
      .filter((name) => /^[1-9][0-9]{0,6}$/.test(name) && Number(name) > this.#last && Number(name) <= SLOT_MAX)
      .map(Number)
      .sort((a, b) => a - b)
    const mark = await this.#readMark()
    for (const slot of [...this.#baseless, ...fresh]) {
      const bytes = await readWhole(this.#path(slot), FILE_MAX_BYTES)
      const kept = bytes === undefined || bytes === 'damaged' ? undefined : decode(bytes)
      this.#note(slot, kept?.slot === undefined || kept.slot === slot ? kept : undefined, mark?.last ?? 0)
    }
    this.#last = Math.max(this.#last, mark?.last ?? 0)
    this.#nextBase = Math.max(this.#nextBase, mark?.nextBase ?? 0)
  }

  async #readMark(): Promise<Mark | undefined> {
    const bytes = this.#mark && (await readWhole(this.#mark, FILE_MAX_BYTES))
    return bytes instanceof Uint8Array ? (decodeRecord(bytes) as Mark | undefined) : undefined // as #give wrote it
  }

  /**
   * Remembers what the file of a slot says; undefined: it is damaged.
   * @param marked up to that slot it is known how far inode numbers were given
   */
  #note(slot: number, kept: Kept | undefined, marked: number): void {
    this.#last = Math.max(this.#last, slot)
    this.#baseless.delete(slot)
    if (kept === undefined) {
      if (slot > marked) this.#nextBase += NIDS_MAX
      return
    }
    const { tree, inodeBase, nids } = kept
    if (inodeBase === undefined) this.#baseless.add(slot)
    else this.#nextBase = Math.max(this.#nextBase, inodeBase + nids)
    const known = this.#known.get(tree)
    if (known === undefined || known.slot === slot) this.#known.set(tree, { slot, inodeBase })
  }

  #path(slot: number): string {
    return join(this.#folder, String(slot))
  }
}

function tooMany(folder: string): Failure {
  return Failure.limit(`all ${SLOT_MAX} slots of ${folder} are given`, {
    fix: 'Stop all that use this cache, and name a new one with --cache DIR.',
  })
}

function decode(bytes: Uint8Array): Kept | undefined {
  const text = new TextDecoder().decode(bytes)
  if (HEX.test(text)) return { tree: text, inodeBase: undefined, nids: 0 }
  return decodeRecord(bytes) as Kept | undefined // as #give wrote it
}
