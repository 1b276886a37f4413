// Files that are whole or absent, whatever dies in between:
//
//   write tmp/<random>  ->  fsync it  ->  rename (or link) it to its name  ->  fsync the folder
//
// Folders are 0700 and files 0600 whatever the umask says.
import { randomUUID } from 'node:crypto'
import { constants } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import { joined } from '../limit.ts'
import { type Locks, lock } from './locks.ts'

export const FOLDER_MODE = 0o700
export const FILE_MODE = 0o600
/** What the names of damaged files end in, which are kept for whoever wants to look at them until the next start. */
export const CORRUPT = '.corrupt'

/** The system's code of an error (`ENOENT`), if it has one. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** What `path` could not be used for, as a Failure that says what to do. */
export function diskFailure(path: string, cause: unknown): Failure {
  if (cause instanceof Failure) return cause
  const code = systemCode(cause)
  const full = code === 'ENOSPC' || code === 'EDQUOT'
  return Failure.system(full ? `no space is left for ${path}` : `${path} cannot be used by the cache`, {
    cause,
    fix: full
      ? 'Free space on that filesystem, or name a cache on another one with --cache DIR.'
      : 'Check that the folder belongs to this user and its filesystem is writable, or name another with --cache DIR.',
  })
}

/** What a disk says that takes no more, for now or for ever. */
const REFUSALS: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT', 'EROFS', 'EIO', 'EFBIG'])

/** Whether the disk took nothing, whatever it was given. */
export function isRefusal(error: unknown): boolean {
  return REFUSALS.has(systemCode(error instanceof Failure ? error.cause : error))
}

/**
 * As makeFolder, but on a disk that takes nothing none is made, nor where it did not take the folder above: whoever writes into it hears of
 * that.
 * @throws Failure system
 */
export async function makeFolderIfTaken(path: string): Promise<void> {
  await makeFolder(path).catch((error) => {
    if (!isRefusal(error) && systemCode(error instanceof Failure ? error.cause : error) !== 'ENOENT') throw error
  })
}

/**
 * Makes one folder (its parent exists) durable; one that is there gets its mode corrected. What has its name and is none is damage:
 * it is renamed to `*.corrupt`.
 * @throws Failure system
 */
export function makeFolder(path: string): Promise<void> {
  return joined(making, path, () => makeOneFolder(path))
}

/** Of two that find the same damage, the later one would set aside what the other has made. */
const making = new Map<string, Promise<void>>()

async function makeOneFolder(path: string): Promise<void> {
  try {
    let made = await madeNow(path)
    let found = await fs.stat(path)
    if (!found.isDirectory()) {
      await setAside(path)
      made = await madeNow(path)
      found = await fs.stat(path)
    }
    const corrected = (found.mode & 0o7777) === FOLDER_MODE ? undefined : fs.chmod(path, FOLDER_MODE)
    await allOf([corrected, made ? syncFolder(dirname(path)) : undefined])
  } catch (cause) {
    throw diskFailure(path, cause)
  }
}

async function madeNow(path: string): Promise<boolean> {
  try {
    await fs.mkdir(path, { mode: FOLDER_MODE })
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
}

export async function syncFolder(path: string): Promise<void> {
  const handle = await fs.open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Runs `work` while nobody else runs any on the same folder, in any process. @throws Failure timeout */
export async function lockedFolder<T>(locks: Locks, path: string, work: () => Promise<T>): Promise<T> {
  const handle = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await lock(locks, handle.fd, true, path)
    return await work()
  } finally {
    await handle.close()
  }
}

/** A new file of its own in the folder `temporary`, to be written and read. The caller closes it. @throws Failure system */
export async function openTemporary(temporary: string): Promise<{ file: FileHandle; path: string }> {
  const path = join(temporary, randomUUID())
  try {
    return { file: await fs.open(path, 'wx+', FILE_MODE), path }
  } catch (cause) {
    throw diskFailure(path, cause)
  }
}

/** Names a file that is written and synced. */
type Give = (temporary: string) => Promise<void>

/**
 * Writes a file and has it named; resolves when both are durable. Whatever can be done at the same time is: on a machine that is busy,
 * each call of the system is a turn of the loop that waits behind others.
 */
async function putFile(temporary: string, path: string, bytes: Uint8Array, give: Give): Promise<void> {
  const name = join(temporary, randomUUID())
  const opening = [fs.open(name, 'wx', FILE_MODE), fs.open(dirname(path), 'r')] as const
  try {
    const [file, folder] = await allOf(opening)
    await allOf([file.chmod(FILE_MODE), file.writeFile(bytes)])
    await file.sync()
    await give(name)
    await folder.sync()
  } catch (cause) {
    await fs.rm(name, { force: true })
    throw diskFailure(path, cause)
  } finally {
    const opened = await Promise.allSettled(opening)
    await allOf(opened.map((each) => (each.status === 'fulfilled' ? each.value.close() : undefined)))
  }
}

/** As Promise.all, but what one fails for is told only when none is under way any more. */
async function allOf<const T extends readonly unknown[]>(
  work: T,
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work)
  return await Promise.all(work)
}

/**
 * `path` holds exactly `bytes` from now on.
 * @param temporary a folder on the same filesystem
 * @param after it is put there after this, and not at all where this fails
 * @throws Failure system; what `after` throws
 */
export async function replaceFile(
  temporary: string,
  path: string,
  bytes: Uint8Array,
  after: Promise<unknown> = Promise.resolve(),
): Promise<void> {
  await putFile(temporary, path, bytes, async (name) => {
    await after
    await fs.rename(name, path).catch(async (error) => {
      if (systemCode(error) !== 'EISDIR') throw error
      await dropDamaged(path)
      await fs.rename(name, path)
    })
  })
}

/** The same, but a `path` that exists is kept. @returns whether it was made. @throws Failure system */
export async function claimFile(temporary: string, path: string, bytes: Uint8Array): Promise<boolean> {
  let isTaken = false
  await putFile(temporary, path, bytes, async (name) => {
    await fs.link(name, path).catch((error) => {
      if (systemCode(error) !== 'EEXIST') throw error
      isTaken = true
    })
    await fs.rm(name, { force: true })
  })
  return !isTaken
}

/** Renames what is damaged to `*.corrupt`, in place of an earlier one; one that is gone is what was wanted. @throws what the system throws */
export async function setAside(path: string): Promise<void> {
  await fs.rm(`${path}${CORRUPT}`, { recursive: true, force: true })
  await fs.rename(path, `${path}${CORRUPT}`).catch((error) => {
    if (systemCode(error) !== 'ENOENT') throw error // another process saw the same damage and was faster
  })
}

/** Also where a file lies in the place of a folder above it. */
export const ABSENT: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ENOTDIR'])
/** A sector that cannot be read any more; a folder in the place of the file. */
export const UNREADABLE: ReadonlySet<string | undefined> = new Set(['EIO', 'EISDIR'])

/** Removes a file that is damaged, or whatever is in its place; one that is gone is what was wanted. @throws Failure system */
export async function dropDamaged(path: string): Promise<void> {
  try {
    await fs.rm(path, { recursive: true, force: true })
  } catch (cause) {
    if (!ABSENT.has(systemCode(cause))) throw diskFailure(path, cause)
  }
}

/** Resolves when it is durable that there is no such file. @throws Failure system */
export async function removeFile(path: string): Promise<void> {
  try {
    await fs.rm(path, { force: true })
    await syncFolder(dirname(path))
  } catch (cause) {
    if (!ABSENT.has(systemCode(cause))) throw diskFailure(path, cause)
  }
}

/**
 * All of a file, on memory of its own; undefined when there is none, or when it is longer than `maxBytes` (which nothing that we
 * wrote is: the caller treats it as damaged).
 * @throws Failure system
 */
export async function readWhole(path: string, maxBytes: number): Promise<Uint8Array | 'damaged' | undefined> {
  let handle: FileHandle
  try {
    handle = await fs.open(path, 'r')
  } catch (cause) {
    if (ABSENT.has(systemCode(cause))) return undefined
    throw diskFailure(path, cause)
  }
  try {
    if ((await handle.stat()).size > maxBytes) return 'damaged'
    return await handle.readFile()
  } catch (cause) {
    if (UNREADABLE.has(systemCode(cause))) return 'damaged'
    throw diskFailure(path, cause)
  } finally {
    await handle.close()
  }
}
