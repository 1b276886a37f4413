// The files of a cache that are whole or absent: manifests, images, chunk tables, records. What the disk does not take is in memory until it
// does, as far as there is room, and is read there as if it were on disk; whoever uses it need not know.
//
//   keep ──▶ disk ── takes nothing ──▶ room is made ── still nothing ──▶ memory ── every 5 s ──▶ disk
import fs, { type FileHandle } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Disk } from './disk.ts'
import {
  claimFile,
  diskFailure,
  dropDamaged,
  isRefusal,
  makeFolder,
  makeFolderIfTaken,
  readWhole,
  replaceFile,
  setAside,
  systemCode,
} from './durable.ts'
import { openHashed } from './hash.ts'
import type { Locks } from './locks.ts'
import { MemoryFiles } from './memory-files.ts'
import { decodeRecord, encodeRecord, RECORD_MAX_BYTES } from './record.ts'
import type { Room } from './room.ts'
import { TWINS } from './twins.ts'
import { markUsed } from './unused-metadata.ts'
import { enterCache, TEMPORARY } from './version.ts'

const FOLDERS = [
  'objects',
  'layers',
  'trees',
  'merged',
  'references',
  'accepted',
  'slots',
  'pins',
  'profiles',
  'listed',
  'proofs',
  'wholes',
  TWINS,
  join(TWINS, 'listed'),
  join(TWINS, 'references'),
]
/** How often it is tried to put on disk what is in memory for want of room there. */
const TRY_AGAIN_MS = 5_000

export interface CacheFilesParts {
  dir: string
  locks: Locks
  /** Without it nothing stands in for the disk. */
  disk: Disk | undefined
  room: Pick<Room, 'refused' | 'took' | 'relieve' | 'isRefused'>
  /** On the cache; undefined: nothing could be made of it yet, which is tried again before all that writes to it. */
  lock: FileHandle | undefined
  warn(message: string): void
}

export class CacheFiles {
  readonly #parts: CacheFilesParts
  #lock: FileHandle | undefined
  #entering: Promise<void> | undefined
  readonly #memory: MemoryFiles | undefined
  #writingOut: NodeJS.Timeout | undefined

  constructor(parts: CacheFilesParts) {
    this.#parts = parts
    this.#lock = parts.lock
    this.#memory = parts.disk && new MemoryFiles(parts.disk)
  }

  /**
   * The file holds exactly `bytes` from now on; its folder is made if need be.
   * @param after it is put there after this, and not at all where this fails
   * @throws Failure system; what `after` throws
   */
  async keep(path: string, bytes: Uint8Array, after?: Promise<unknown>): Promise<void> {
    try {
      await this.withRoom(() => this.#write(path, (temporary) => replaceFile(temporary, path, bytes, after)))
      this.#memory?.forget(path)
    } catch (error) {
      if (!isRefusal(error) || !this.#memory?.keep(path, bytes)) throw error
      this.#parts.room.refused(error)
      this.#writingOut ??= setInterval(() => void this.#writeOut(), TRY_AGAIN_MS).unref() // warns of its own errors
    }
  }

  /** Its name is part of it: a record in another's place says nothing. @param after, @throws as `keep` */
  async keepRecord(path: string, record: object, after?: Promise<unknown>): Promise<void> {
    await this.keep(path, encodeRecord({ ...record, name: relative(this.#parts.dir, path) }), after)
  }

  /** Keeps a file of this digest. One that is there and intact may be mounted, and is never replaced. @throws Failure system */
  async keepHashed(path: string, digest: Digest, bytes: Uint8Array): Promise<void> {
    const there = await openHashed(path, digest)
    if (there === undefined || 'found' in there) {
      await this.keep(path, bytes) // of one that is damaged the kernel would read other bytes than ours
      return
    }
    await markUsed(there)
    await there.close()
  }

  /** As readWhole. @throws Failure system */
  async read(path: string, maxBytes: number): Promise<Uint8Array | 'damaged' | undefined> {
    return this.#memory?.get(path) ?? (await readWhole(path, maxBytes))
  }

  /** What keepRecord was given. @throws Failure system */
  async record(path: string): Promise<object | 'damaged' | undefined> {
    const bytes = await this.read(path, RECORD_MAX_BYTES)
    if (bytes === undefined || bytes === 'damaged') return bytes
    const record = decodeRecord(bytes)
    // one that was kept before records had names has none
    const { name = relative(this.#parts.dir, path), ...rest } = (record ?? {}) as { name?: string }
    return record !== undefined && name === relative(this.#parts.dir, path) ? rest : 'damaged'
  }

  /** As openHashed. @throws Failure system */
  async openHashed(path: string, digest: Digest): ReturnType<typeof openHashed> {
    return (await this.#memory?.open(path)) ?? (await openHashed(path, digest))
  }

  /** Undefined: it is not there. @throws Failure system */
  async sizeOf(path: string): Promise<number | undefined> {
    const inMemory = this.#memory?.sizeOf(path)
    if (inMemory !== undefined) return inMemory
    try {
      return (await fs.stat(path)).size
    } catch (cause) {
      if (systemCode(cause) === 'ENOENT') return undefined
      throw diskFailure(path, cause)
    }
  }

  /** Removes a file that is damaged, or renames it to `*.corrupt`; where the disk takes nothing, it stays. @throws Failure system */
  async drop(path: string, how: 'remove' | 'set aside'): Promise<void> {
    try {
      await (how === 'remove' ? dropDamaged(path) : setAside(path))
    } catch (cause) {
      if (!isRefusal(cause)) throw diskFailure(path, cause)
    }
  }

  /** Does it again on a full disk, when contents that can be fetched again have made room for what says what they are. */
  async withRoom<T>(work: () => Promise<T>): Promise<T> {
    const { disk, room } = this.#parts
    try {
      await this.#enter()
      return await work()
    } catch (error) {
      const code = error instanceof Failure ? systemCode(error.cause) : undefined
      if (disk === undefined || room.isRefused || (code !== 'ENOSPC' && code !== 'EDQUOT')) throw error
      await room.relieve()
      await this.#enter()
      return await work()
    }
  }

  /** Keeps what the next start would like to find, and can do without. @throws what `keep` throws */
  async unlessRefused(keep: () => Promise<void>): Promise<void> {
    try {
      await this.#enter()
      await keep()
    } catch (error) {
      if (this.#parts.disk === undefined || !isRefusal(error)) throw error
      this.#parts.room.refused(error)
    }
  }

  /** Lets go of the cache. What is in memory is gone. */
  async close(): Promise<void> {
    clearInterval(this.#writingOut)
    this.#memory?.close()
    await this.#entering?.catch(() => {}) // whoever wanted it heard of that
    await this.#lock?.close()
  }

  async #write(path: string, put: (temporary: string) => Promise<unknown>): Promise<void> {
    await makeFolder(dirname(path))
    await put(join(this.#parts.dir, TEMPORARY))
  }

  /** Puts on disk what is in memory, in the order in which it came, as far as the disk takes it. */
  async #writeOut(): Promise<void> {
    const { room, warn } = this.#parts
    try {
      for (const path of this.#memory?.paths ?? []) {
        const bytes = this.#memory?.get(path)
        if (bytes === undefined) continue // meanwhile it was written
        await this.#enter()
        // an image that is there may be mounted
        const put = path.startsWith(join(this.#parts.dir, 'trees')) ? claimFile : replaceFile
        await this.#write(path, (temporary) => put(temporary, path, bytes))
        this.#memory?.forget(path)
        room.took()
      }
      clearInterval(this.#writingOut)
      this.#writingOut = undefined
    } catch (error) {
      if (!isRefusal(error)) warn(`what is in memory cannot be put on disk: ${describe(error)}`)
    }
  }

  /** @throws what enterCache throws */
  async #enter(): Promise<void> {
    if (this.#lock !== undefined) return
    const { dir, locks, warn } = this.#parts
    this.#entering ??= enterCache(dir, locks, warn)
      .then(async ({ lock }) => {
        this.#lock = lock
        await makeFolders(dir)
      })
      .finally(() => {
        this.#entering = undefined
      })
    await this.#entering
  }
}

/** Makes those of a cache that are not there, as far as the disk takes them. @throws Failure system */
export async function makeFolders(cache: string): Promise<void> {
  for (const folder of FOLDERS) await makeFolderIfTaken(join(cache, folder))
}
