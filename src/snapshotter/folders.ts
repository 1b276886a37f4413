// The directories that snapshots are written in: SNAPSHOTS/<id>/fs and work, on disk before the snapshot is known, and removed behind its end. Where records
// of snapshots are damaged, a directory that none has may be one of theirs, and is kept.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { describe } from '../errors.ts'
import { diskFailure, makeFolder, systemCode } from '../store/durable.ts'

/** Whom a directory is to belong to, and how. */
export interface Owner {
  uid: number
  gid: number
  mode: number
}

/** What most images give their root. */
const USUAL_MODE = 0o755
const REMOVED = 'removed-'
/** Of snapshots that are lost: for whoever wants to have what is in them. */
const LOST = 'lost-'
const ID = /^[1-9]\d*$/

export class Folders {
  readonly #dir: string
  readonly #log: (message: string) => void
  #removing: Promise<void> = Promise.resolve()
  /** Whether the next directory lies in `#next`, made before anybody asks for it: that takes three steps of the disk, giving it a name one. Undefined: it is being taken. */
  #ready: Promise<boolean> | undefined
  readonly #next: string

  private constructor(dir: string, log: (message: string) => void) {
    this.#dir = dir
    this.#next = `${dir}.next`
    this.#log = log
  }

  /**
   * @param isKnown whether there is a snapshot of this ID
   * @param unknown what becomes of a directory that no snapshot has
   * @throws Failure system
   */
  static async open(
    dir: string,
    isKnown: (id: number) => boolean,
    unknown: 'is removed' | 'is kept',
    log: (message: string) => void,
  ): Promise<Folders> {
    await makeFolder(dir)
    const folders = new Folders(dir, log)
    await folders.#dropReady() // an earlier process left it, whole or not
    folders.#makeReady()
    for (const name of await fs.readdir(dir)) {
      if (name.startsWith(REMOVED)) folders.#removeSoon(join(dir, name))
      else if (name.startsWith(LOST) || (ID.test(name) && isKnown(Number(name)))) continue
      else if (unknown === 'is removed' || !ID.test(name)) await folders.remove(name)
      else await folders.#keep(name)
    }
    return folders
  }

  upperOf(id: number): string {
    return this.ownOf(id).upper
  }

  /**
   * Both that a snapshot is written in.
   * @param by a path that leads where the directory of all snapshots is
   */
  ownOf(id: number, by = this.#dir): { upper: string; work: string } {
    return { upper: join(by, String(id), 'fs'), work: join(by, String(id), 'work') }
  }

  /**
   * @param owner may be on its way; where it comes to nothing, there is no directory
   * @throws Failure system; what `owner` rejects with
   */
  async make(id: number, owner: Promise<Owner>): Promise<void> {
    const folder = join(this.#dir, String(id))
    const made = this.#make(folder)
    try {
      const [wanted] = await Promise.all([owner, made])
      await give(this.upperOf(id), wanted)
    } catch (cause) {
      // what lay there before is not ours to remove
      const isOurs = await made.then(
        () => true,
        () => false,
      )
      if (isOurs) await this.remove(id)
      throw diskFailure(folder, cause)
    }
  }

  async #make(folder: string): Promise<void> {
    if (!(await this.#takeReady(folder))) await makeUsual(folder)
  }

  /** The next directory becomes `folder`. @returns false: there is none. @throws what the system throws */
  async #takeReady(folder: string): Promise<boolean> {
    const ready = this.#ready
    if (ready === undefined) return false
    this.#ready = undefined
    try {
      if (!(await ready)) return false
      await fs.rename(this.#next, folder)
      return true
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return false // somebody has removed it
      throw error
    } finally {
      this.#makeReady()
    }
  }

  /** Where none can be made, the next snapshot makes its own, or is told why not. */
  #makeReady(): void {
    const made = makeUsual(this.#next).then(() => true)
    this.#ready = made.catch(() => this.#dropReady().then(() => false))
  }

  /** Never rejects. */
  async #dropReady(): Promise<void> {
    await fs.rm(this.#next, { recursive: true, force: true }).catch(() => {}) // then it is in the way of the next, which is not made ahead
  }

  /** Takes a snapshot's directory away, and removes it behind that. What fails is logged, and tried again at the next start. Never rejects. */
  async remove(id: number | string): Promise<void> {
    const folder = join(this.#dir, String(id))
    const removed = join(this.#dir, `${REMOVED}${id}-${Date.now()}`)
    try {
      await fs.rename(folder, removed)
      this.#removeSoon(removed)
    } catch (error) {
      if (systemCode(error) !== 'ENOENT') this.#log(`${folder} is not removed: ${describe(error)}`)
    }
  }

  /** Under another name, which no snapshot will get. @throws Failure system */
  async #keep(id: string): Promise<void> {
    const kept = join(this.#dir, `${LOST}${id}-${Date.now()}`)
    try {
      await fs.rename(join(this.#dir, id), kept)
    } catch (cause) {
      throw diskFailure(kept, cause)
    }
    this.#log(`what a snapshot of which the record is lost had in its directory is in ${kept}`)
  }

  /** When all that was taken away is removed, and nothing is being made ahead. Never rejects. */
  async settled(): Promise<void> {
    await this.#removing
    await this.#ready
  }

  /** One after the other: a container's files may be many. */
  #removeSoon(folder: string): void {
    this.#removing = this.#removing
      .then(() => fs.rm(folder, { recursive: true, force: true }))
      .catch((error) => this.#log(`${folder} is not removed: ${describe(error)}`))
  }
}

/** A new directory of a snapshot, as much at once as can be: on a busy machine each call of the system is a turn of the loop that waits behind others. */
async function makeUsual(folder: string): Promise<void> {
  const [upper, work] = [join(folder, 'fs'), join(folder, 'work')]
  await fs.mkdir(folder)
  await Promise.all([fs.mkdir(work), fs.mkdir(upper)])
  // whatever the umask is
  await Promise.all([fs.chmod(folder, 0o711), fs.chmod(work, 0o711), fs.chmod(upper, USUAL_MODE)])
}

/** Of a directory as makeUsual makes it. */
async function give(upper: string, { uid, gid, mode }: Owner): Promise<void> {
  const isOwn = uid === process.geteuid?.() && gid === process.getegid?.() // what this process makes is theirs anyway
  if (!isOwn) await fs.chown(upper, uid, gid)
  if (!isOwn || mode !== USUAL_MODE) await fs.chmod(upper, mode) // a change of owner may take bits away
}
