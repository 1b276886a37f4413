// Small files that somebody else has sealed, in the cache's folder `credentials/`. What is in them is not known here.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { diskFailure, makeFolder, readWhole, removeFile, replaceFile, systemCode } from './durable.ts'
import { TEMPORARY } from './version.ts'

const FOLDER = 'credentials'
/** As many as are remembered in memory; the oldest go. */
const FILES_MAX = 4096
/** A token of a cloud has some kilobytes. */
const FILE_MAX_BYTES = 64 << 10
const ASIDE = '.damaged'

export class SealedFolder {
  readonly #cache: string
  readonly #folder: string
  readonly #max: number

  /** @param cache directory of an open Store. Nothing is made before something is written. */
  constructor(cache: string, max: number = FILES_MAX) {
    this.#cache = cache
    this.#folder = join(cache, FOLDER)
    this.#max = max
  }

  /** @throws Failure system */
  async read(name: string): Promise<Uint8Array | 'damaged' | undefined> {
    return await readWhole(join(this.#folder, name), FILE_MAX_BYTES)
  }

  /** Resolves when it is durable. @throws Failure system */
  async write(name: string, bytes: Uint8Array): Promise<void> {
    await makeFolder(this.#folder)
    await replaceFile(join(this.#cache, TEMPORARY), join(this.#folder, name), bytes)
    await this.#dropOldest(name)
  }

  /** @throws Failure system */
  async remove(name: string): Promise<void> {
    await removeFile(join(this.#folder, name))
  }

  /** @throws Failure system */
  async setAside(name: string): Promise<void> {
    const path = join(this.#folder, name)
    try {
      await fs.rename(path, `${path}${ASIDE}`)
    } catch (cause) {
      if (systemCode(cause) !== 'ENOENT') throw diskFailure(path, cause)
    }
  }

  /** Those set aside count as well. */
  async #dropOldest(kept: string): Promise<void> {
    const names = (await fs.readdir(this.#folder)).filter((each) => each !== kept)
    if (names.length < this.#max) return
    const aged = await Promise.all(
      names.map(async (name) => {
        const found = await fs.stat(join(this.#folder, name)).catch(() => undefined) // gone, by another process
        return { name, at: found?.mtimeMs ?? 0 }
      }),
    )
    aged.sort((a, b) => a.at - b.at)
    for (const { name } of aged.slice(0, names.length - this.#max + 1)) await this.remove(name)
  }
}
