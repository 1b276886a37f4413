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
import { mapLimited } from '../limit.ts'
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
/** As many calls as the threads of the event loop take at a time, and some that wait. */
const READ_AT_ONCE = 16

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

interface Asked extends PromiseWithResolvers<TreeNumbers> {
  readonly tree: Digest
  readonly imageBytes: () => Promise<number>
}

interface Wanted extends Asked {
  readonly nids: number
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
  /** Those that are given numbers in the next turn. */
  readonly #asked = new Map<Digest, Asked>()
  /** The last turn: one process asks for the lock once at a time. */
  #turn: Promise<void> = Promise.resolve()
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
    const same = this.#asked.get(tree)
    if (same !== undefined) return await same.promise
    const asked = { tree, imageBytes, ...Promise.withResolvers<TreeNumbers>() }
    this.#asked.set(tree, asked)
    if (this.#asked.size === 1) {
      this.#turn = this.#turn.then(() => {
        const all = [...this.#asked.values()]
        this.#asked.clear()
        return this.#giveAll(all)
      })
    }
    return await asked.promise
  }

  #get(tree: Digest): TreeNumbers | undefined {
    const { slot, inodeBase } = this.#known.get(hex(tree)) ?? {}
    return slot === undefined || inodeBase === undefined ? undefined : { slot, inodeBase }
  }

  /** The layers of an image are asked for at once: the disk takes the numbers of many as fast as those of one. Never rejects. */
  async #giveAll(asked: readonly Asked[]): Promise<void> {
    const sized = await Promise.all(
      asked.map(async (each) => {
        try {
          const known = this.#get(each.tree) // since it was asked for
          if (known !== undefined) {
            each.resolve(known)
            return []
          }
          return [{ ...each, nids: Math.ceil((await each.imageBytes()) / NID_BYTES) }]
        } catch (error) {
          each.reject(error)
          return []
        }
      }),
    )
    const wanted = sized.flat()
    if (wanted.length === 0) return
    const failures = await this.#keepAll(wanted).catch((error: unknown) => new Map(wanted.map((each) => [each, error])))
    for (const each of wanted) {
      try {
        const numbers = failures.has(each) ? this.#given(each, failures.get(each)) : this.#get(each.tree)
        each.resolve(numbers as TreeNumbers) // kept
      } catch (error) {
        each.reject(error)
      }
    }
  }

  /** What is given though the disk did not take it. @throws `error`, Failure limit */
  #given({ tree, nids }: Wanted, error: unknown): TreeNumbers {
    const isUnmade = systemCode(error) === 'ENOENT' // the folder: the disk did not take it, which was told
    if (this.#refused === undefined || !(isRefusal(error) || isUnmade)) throw error
    if (!isUnmade) this.#refused(error)
    return this.#get(tree) ?? this.#giveAlone(tree, nids) // only the mark was not taken
  }

  /** For as long as this process lives. @throws Failure limit */
  #giveAlone(tree: Digest, nids: number): TreeNumbers {
    const { slot, inodeBase } = this.#alone
    if (slot <= this.#last) throw tooMany(this.#folder)
    this.#alone = { slot: slot - 1, inodeBase: inodeBase + nids }
    this.#known.set(hex(tree), { slot, inodeBase })
    return { slot, inodeBase }
  }

  /** @returns why some of them were not kept, or not marked */
  async #keepAll(wanted: readonly Wanted[]): Promise<Map<Wanted, unknown>> {
    return await lockedFolder(this.#locks, this.#folder, async () => {
      await this.#read()
      const mark: Mark = { last: this.#last, nextBase: this.#nextBase }
      const fresh = wanted.filter(({ tree }) => this.#get(tree) === undefined)
      // numbers are told apart before the first await
      const keeping = fresh.map((each) => this.#keep(each, mark))
      // one that is ahead of the files burns numbers, and gives none twice
      const marking = fresh.length > 0 ? this.#keepMark(mark) : undefined
      const [marked, ...kept] = await Promise.allSettled([marking, ...keeping])
      const failures = new Map<Wanted, unknown>()
      for (const [i, each] of fresh.entries()) {
        const failed = [kept[i], marked].find((one) => one?.status === 'rejected')
        if (failed?.status === 'rejected') failures.set(each, failed.reason)
      }
      return failures
    })
  }

  /** Gives the next numbers after the mark, and moves it, in this turn. @throws Failure limit, system */
  async #keep({ tree, nids }: Wanted, mark: Mark): Promise<void> {
    const known = this.#known.get(hex(tree))?.slot
    if (known === undefined && mark.last >= this.#alone.slot) throw tooMany(this.#folder)
    const numbers = { slot: known ?? ++mark.last, inodeBase: mark.nextBase }
    mark.nextBase += nids
    const record = encodeRecord({ ...numbers, tree: hex(tree), nids })
    if (known === undefined) await this.#claim(numbers.slot, record)
    else await replaceFile(this.#temporary, this.#path(known), record)
    this.#note(numbers.slot, { tree: hex(tree), inodeBase: numbers.inodeBase, nids }, 0)
  }

  async #keepMark(mark: Mark): Promise<void> {
    if (this.#mark !== undefined) await replaceFile(this.#temporary, this.#mark, encodeRecord(mark))
  }

  async #claim(slot: number, record: Uint8Array): Promise<void> {
    // the lock keeps others away; not replacing holds even where a filesystem has no locks worth the name
    if (!(await claimFile(this.#temporary, this.#path(slot), record))) {
      throw Failure.system(`slot ${slot} of ${this.#folder} was taken in spite of the lock`, {
        fix: 'Keep the cache on a local filesystem: --cache DIR.',
      })
    }
  }

  async #read(): Promise<void> {
    const [names, mark] = await Promise.all([fs.readdir(this.#folder), this.#readMark()])
    const fresh = names
      .filter((name) => /^[1-9][0-9]{0,6}$/.test(name) && Number(name) > this.#last && Number(name) <= SLOT_MAX)
      .map(Number)
      .sort((a, b) => a - b)
    const slots = [...this.#baseless, ...fresh]
    const read = await mapLimited(slots, READ_AT_ONCE, (slot) => readWhole(this.#path(slot), FILE_MAX_BYTES))
    for (const [i, slot] of slots.entries()) {
      const bytes = read[i]
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
