// Which program's cache a folder is. A cache of another version is moved aside as a whole; a folder that is no cache is refused,
// because what somebody keeps there is not ours to move.
import fs, { type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import { diskFailure, lockedFolder, makeFolder, readWhole, replaceFile, syncFolder } from './durable.ts'
import { type Locks, lock } from './locks.ts'

export const CACHE_VERSION = 'lazylayer cache 2\n'
const ANY_VERSION = /^lazylayer cache /
const VERSION_MAX_BYTES = 256
/** Where files are written before they get their names. */
export const TEMPORARY = 'tmp'
const ASIDE = /^\.aside-[0-9]+$/

/**
 * Makes `dir` a cache of this version, empty or as it was left, and holds a shared lock on its version file.
 * @returns the lock: close it to let go of the cache
 * @throws Failure usage (a folder with other things in it), unsupported (another version uses it now), timeout, system
 */
export async function enterCache(dir: string, locks: Locks, warn: (message: string) => void): Promise<FileHandle> {
  try {
    await fs.mkdir(dirname(dir), { recursive: true })
    await makeFolder(dir)
    return await lockedFolder(locks, dir, () => enterLocked(dir, locks, warn))
  } catch (cause) {
    throw diskFailure(dir, cause)
  }
}

async function enterLocked(dir: string, locks: Locks, warn: (message: string) => void): Promise<FileHandle> {
  const path = join(dir, 'version')
  const found = await readWhole(path, VERSION_MAX_BYTES)
  const text = found === undefined || found === 'damaged' ? found : new TextDecoder().decode(found)
  if (text === undefined) await refuseForeign(dir)
  if (text !== undefined && text !== CACHE_VERSION) await moveAside(dir, path, text, locks, warn)
  await makeFolder(join(dir, TEMPORARY))
  if (text !== CACHE_VERSION) await replaceFile(join(dir, TEMPORARY), path, new TextEncoder().encode(CACHE_VERSION))
  const version = await fs.open(path, 'r')
  try {
    if (locks.tryLock(version.fd, true)) {
      // nobody else is here, so whatever is half written has no writer any more
      await fs.rm(join(dir, TEMPORARY), { recursive: true })
      await makeFolder(join(dir, TEMPORARY))
    }
    await lock(locks, version.fd, false, path)
    return version
  } catch (error) {
    await version.close()
    throw error
  }
}

async function refuseForeign(dir: string): Promise<void> {
  const others = (await fs.readdir(dir)).filter((name) => name !== TEMPORARY && !ASIDE.test(name))
  if (others.length === 0) return
  throw Failure.usage(`${dir} is no cache`, {
    why: `it holds ${JSON.stringify(others[0])} and no file "version"`,
    fix: 'Name an empty or new folder with --cache DIR.',
  })
}

async function moveAside(
  dir: string,
  path: string,
  text: string,
  locks: Locks,
  warn: (message: string) => void,
): Promise<void> {
  const version = await fs.open(path, 'r')
  try {
    if (!locks.tryLock(version.fd, true)) {
      throw Failure.unsupported(`${dir} is used by another version of lazylayer`, {
        fix: 'Stop that one first, or name another cache with --cache DIR.',
      })
    }
    const names = await fs.readdir(dir)
    const numbers = names.filter((name) => ASIDE.test(name)).map((name) => Number(name.slice('.aside-'.length)))
    const aside = join(dir, `.aside-${Math.max(0, ...numbers) + 1}`)
    await makeFolder(aside)
    // the version last: a crash in between leaves a cache of that other version, and the rest is moved the next time
    for (const name of names.filter((each) => !ASIDE.test(each) && each !== 'version')) {
      await fs.rename(join(dir, name), join(aside, name))
    }
    await syncFolder(dir)
    await fs.rename(path, join(aside, 'version'))
    await syncFolder(dir)
    const whose = ANY_VERSION.test(text) ? `of another version (${text.trim()})` : 'damaged, or none of ours'
    warn(`the cache in ${dir} is ${whose}: it was moved to ${aside} and an empty one begun; remove that if unwanted`)
  } finally {
    await version.close()
  }
}
