// Files that were made once from a whole layer and may be asked for again: its exact blob, and what engines keep to put its tar together.
// Each is named by the digest of its contents in the cache's folder `wholes/`; the ones not used for longest go when there are too many.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, hex } from '../image/digest.ts'
import { diskFailure, dropDamaged, makeFolder, openTemporary, syncFolder, systemCode } from './durable.ts'
import { openHashed } from './hash.ts'
import type { Goes } from './usage.ts'
import { TEMPORARY } from './version.ts'

const FOLDER = 'wholes'
const NAME = /^[0-9a-f]{64}$/
/** Saving or pushing an image reads its layers one after the other, some twice; beyond that they can be fetched again. */
const WHOLES_MAX_BYTES = 4 * 2 ** 30

export class WholeFiles {
  readonly #cache: string
  readonly #warn: (message: string) => void
  readonly #maxBytes: number
  /** Files that were there when this process looked last. */
  readonly #names: Set<string>

  private constructor(cache: string, warn: (message: string) => void, maxBytes: number, names: readonly string[]) {
    this.#cache = cache
    this.#warn = warn
    this.#maxBytes = maxBytes
    this.#names = new Set(names)
  }

  /** @param cache directory of an open Store. @throws Failure system */
  static async open(
    cache: string,
    warn: (message: string) => void,
    { maxBytes = WHOLES_MAX_BYTES } = {},
  ): Promise<WholeFiles> {
    await makeFolder(join(cache, FOLDER))
    const names = await fs.readdir(join(cache, FOLDER)).catch((cause) => Promise.reject(diskFailure(cache, cause)))
    return new WholeFiles(cache, warn, maxBytes, names)
  }

  /**
   * The file of that digest, all of it hashed just now; undefined when there is none, or none that is intact. The caller closes it.
   * @throws Failure system
   */
  async find(digest: Digest): Promise<FileHandle | undefined> {
    const path = this.#path(digest)
    const file = await openHashed(path, digest)
    if (file === undefined) return undefined
    if ('found' in file) {
      this.#names.delete(hex(digest))
      this.#warn(`${path} is dropped: it differs from its digest`)
      await dropDamaged(path)
      return undefined
    }
    const now = new Date()
    await fs.utimes(path, now, now).catch(() => {}) // it was thrown out meanwhile, and lives on in `file`
    return file
  }

  /** Whether there is a file of that digest, as far as this process knows; another one may have thrown it out. */
  has(digest: Digest): boolean {
    return this.#names.has(hex(digest))
  }

  /** The file of that digest as it is, for who checks what he reads of it; he closes it. @throws Failure missing, system */
  async openUnchecked(digest: Digest): Promise<FileHandle> {
    const path = this.#path(digest)
    return await fs.open(path, 'r').catch((cause) => {
      throw systemCode(cause) === 'ENOENT' ? Failure.missing(`${path} was thrown out`) : diskFailure(path, cause)
    })
  }

  /**
   * Gives a file of the cache's folder for temporary files its name, which it has from then on; others make room for it.
   * @param path of a file whose contents are known to have that digest
   * @throws Failure system
   */
  async keep(digest: Digest, path: string): Promise<void> {
    try {
      await fs.rename(path, this.#path(digest)).catch(async (error) => {
        if (systemCode(error) !== 'EISDIR') throw error
        await dropDamaged(this.#path(digest))
        await fs.rename(path, this.#path(digest))
      })
      this.#names.add(hex(digest))
      await syncFolder(join(this.#cache, FOLDER))
      await this.#makeRoom(hex(digest))
    } catch (cause) {
      throw diskFailure(path, cause)
    }
  }

  /** A new file with a name of its own, for `keep`; whoever does not keep it removes it. @throws Failure system */
  begin(): Promise<{ file: FileHandle; path: string }> {
    return openTemporary(join(this.#cache, TEMPORARY))
  }

  /** All of them, for whoever makes room. @throws what the system throws */
  async all(): Promise<(Goes & { readonly name: string })[]> {
    const folder = join(this.#cache, FOLDER)
    const files: (Goes & { readonly name: string })[] = []
    for (const name of await fs.readdir(folder)) {
      if (!NAME.test(name)) continue
      const path = join(folder, name)
      const found = await fs.stat(path).catch(() => undefined) // another process threw it out
      if (found === undefined) continue
      const { size: bytes, mtimeMs: at } = found
      const go = async () => {
        this.#names.delete(name)
        await dropDamaged(path)
        return bytes
      }
      files.push({ name, bytes, at, go })
    }
    return files
  }

  async #makeRoom(kept: string): Promise<void> {
    const files = await this.all()
    let total = files.reduce((sum, { bytes }) => sum + bytes, 0)
    for (const { name, go } of files.sort((a, b) => a.at - b.at)) {
      if (total <= this.#maxBytes) return
      if (name !== kept) total -= await go()
    }
  }

  #path(digest: Digest): string {
    return join(this.#cache, FOLDER, hex(digest))
  }
}
