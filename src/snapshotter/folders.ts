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

const REMOVED = 'removed-'
/** Of snapshots that are lost: for whoever wants to have what is in them. */
const LOST = 'lost-'
const ID = /^[1-9]\d*$/

export class Folders {
  readonly #dir: string
  readonly #log: (message: string) => void
  #removing: Promise<void> = Promise.resolve()

  private constructor(dir: string, log: (message: string) => void) {
    this.#dir = dir
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

  /** As much as can be at once: on a busy machine each call of the system is a turn of the loop that waits behind others. @throws Failure system */
  async make(id: number, { uid, gid, mode }: Owner): Promise<void> {
    const folder = join(this.#dir, String(id))
    const { upper, work } = this.ownOf(id)
    try {
      await fs.mkdir(folder)
      await Promise.all([fs.mkdir(work), fs.mkdir(upper)])
      // whatever the umask is
      const owned = isOwn(uid, gid) ? Promise.resolve() : fs.chown(upper, uid, gid) // which may take bits away
      await Promise.all([fs.chmod(folder, 0o711), fs.chmod(work, 0o711), owned.then(() => fs.chmod(upper, mode))])
    } catch (cause) {
      throw diskFailure(folder, cause)
    }
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

  /** When all that was taken away is removed. Never rejects. */
  async settled(): Promise<void> {
    await this.#removing
  }

  /** One after the other: a container's files may be many. */
  #removeSoon(folder: string): void {
    this.#removing = this.#removing
      .then(() => fs.rm(folder, { recursive: true, force: true }))
      .catch((error) => this.#log(`${folder} is not removed: ${describe(error)}`))
  }
}

/** Whether what this process makes is theirs anyway. */
function isOwn(uid: number, gid: number): boolean {
  return uid === process.geteuid?.() && gid === process.getegid?.()
}
