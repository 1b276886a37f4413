// Files that were made once from a whole layer and may be asked for again: its exact blob, and what engines keep to put its tar together.
// Each is named by the digest of its contents in the cache's folder `wholes/`; the ones not used for longest go when there are too many.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import { type Digest, hex } from '../image/digest.ts'
import {
  ABSENT,
  diskFailure,
  dropDamaged,
  makeFolderIfTaken,
  openTemporary,
  syncFolder,
  systemCode,
  UNREADABLE,
} from './durable.ts'
import { Hasher, type Hashing } from './hasher.ts'
import type { Goes } from './usage.ts'
import { TEMPORARY } from './version.ts'

const FOLDER = 'wholes'
const NAME = /^[0-9a-f]{64}$/
/** Saving or pushing an image reads its layers one after the other, some twice; beyond that they can be fetched again. */
const WHOLES_MAX_BYTES = 4 * 2 ** 30

/** What tells a file that was written to from one that was not. */
interface Look {
  ino: number
  size: number
  mtimeMs: number
}

export class WholeFiles {
  readonly #cache: string
  readonly #warn: (message: string) => void
  readonly #maxBytes: number
  /** Files that were there when this process looked last, and what those looked like that were hashed. */
  readonly #known: Map<Digest, Look | undefined>
  readonly #hasher = new Hasher()

  private constructor(cache: string, warn: (message: string) => void, maxBytes: number, known: readonly Digest[]) {
    this.#cache = cache
    this.#warn = warn
    this.#maxBytes = maxBytes
    this.#known = new Map(known.map((digest) => [digest, undefined]))
  }

  /** @param cache directory of an open Store. @throws Failure system */
  static async open(
    cache: string,
    warn: (message: string) => void,
    { maxBytes = WHOLES_MAX_BYTES } = {},
  ): Promise<WholeFiles> {
    await makeFolderIfTaken(join(cache, FOLDER))
    const names = await fs.readdir(join(cache, FOLDER)).catch((cause) => {
      if (systemCode(cause) === 'ENOENT') return [] // it could not be made
      throw diskFailure(cache, cause)
    })
    return new WholeFiles(cache, warn, maxBytes, names.filter((name) => NAME.test(name)).map(digestOfName))
  }

  /**
   * The file of that digest; undefined when there is none, or none that is intact. All of it was hashed, now or since this process
   * began, and nobody has written to it since. The caller closes it.
   * @throws Failure system
   */
  async find(digest: Digest): Promise<FileHandle | undefined> {
    const path = this.#path(digest)
    let file: FileHandle
    try {
      file = await fs.open(path, 'r')
    } catch (cause) {
      if (ABSENT.has(systemCode(cause))) return undefined
      throw diskFailure(path, cause)
    }
    try {
      if (await this.#isIntact(file, digest)) {
        await this.#use(file, digest)
        return file
      }
    } catch (cause) {
      await file.close()
      throw diskFailure(path, cause)
    }
    await file.close()
    this.#known.delete(digest)
    this.#warn(`${path} is dropped: it differs from its digest`)
    await dropDamaged(path)
    return undefined
  }

  async #isIntact(file: FileHandle, digest: Digest): Promise<boolean> {
    const { ino, size, mtimeMs } = await file.stat()
    const known = this.#known.get(digest)
    if (known?.ino === ino && known.size === size && known.mtimeMs === mtimeMs) return true
    try {
      return (await this.#hasher.digestOf(file.fd, size)) === digest
    } catch (error) {
      if (error instanceof Failure && UNREADABLE.has(systemCode(error.cause))) return false
      throw error
    }
  }

  /** Marks a file that is intact as used now. What a write leaves is no whole second, so that it shows. */
  async #use(file: FileHandle, digest: Digest): Promise<void> {
    const seconds = Math.floor(Date.now() / 1000)
    await file.utimes(seconds, seconds).catch(() => {}) // on a disk that is read-only it is hashed again
    const { ino, size, mtimeMs } = await file.stat()
    this.#known.set(digest, mtimeMs === seconds * 1000 ? { ino, size, mtimeMs } : undefined)
  }

  /** The digest of a file that is being written. */
  hash(file: FileHandle): Hashing {
    return this.#hasher.begin(file.fd)
  }

  /** Ends what hashes. */
  close(): Promise<void> {
    return this.#hasher.close()
  }

  /** Whether there is a file of that digest, as far as this process knows; another one may have thrown it out. */
  has(digest: Digest): boolean {
    return this.#known.has(digest)
  }

  /** Tells the same of several, for who asks often: whether all of them are there. */
  areThere(digests: readonly Digest[]): () => boolean {
    return () => digests.every((digest) => this.#known.has(digest))
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
      const file = await fs.open(path, 'r')
      await this.#use(file, digest).finally(() => file.close())
      await fs.rename(path, this.#path(digest)).catch(async (error) => {
        if (systemCode(error) !== 'EISDIR') throw error
        await dropDamaged(this.#path(digest))
        await fs.rename(path, this.#path(digest))
      })
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
        this.#known.delete(digestOfName(name))
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

function digestOfName(name: string): Digest {
  return `sha256:${name}`
}
