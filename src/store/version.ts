// Which program's cache a folder is. A cache of another version is moved aside as a whole; a folder that is no cache is refused,
// because what somebody keeps there is not ours to move. A version file that is damaged says nothing: the other files of the cache
// each tell for themselves what they are, and go on being used.
//
//   "lazylayer cache 2\n"      the version
//   "sha256:<hex>\n"           of the line above, so that a flipped bit is not taken for another version
import fs, { type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Failure } from '../errors.ts'
import { digestOf } from '../image/digest.ts'
import {
  ABSENT,
  diskFailure,
  dropDamaged,
  isRefusal,
  lockedFolder,
  makeFolder,
  makeFolderIfTaken,
  readWhole,
  replaceFile,
  syncFolder,
  systemCode,
} from './durable.ts'
import { type Locks, lock } from './locks.ts'

const VERSION_LINE = 'lazylayer cache 2\n'
/** All of the version file. */
export const CACHE_VERSION = `${VERSION_LINE}${digestOf(new TextEncoder().encode(VERSION_LINE))}\n`
/** One line: as programs wrote it that had no second one. */
const ANY_VERSION = /^(lazylayer cache [0-9]+\n)(?:(sha256:[0-9a-f]{64})\n)?$/
export const VERSION_MAX_BYTES = 256
/** Where files are written before they get their names. */
export const TEMPORARY = 'tmp'
/** What a cache holds beside its version file; at least half of these are there, or the version file, or it is none. */
const FOLDERS = ['objects', 'layers', 'trees', 'merged', 'references', 'slots', 'listed', 'proofs']
const OTHER_NAMES = [
  'accepted',
  'contested',
  'pins',
  'profiles',
  'crowded',
  'wholes',
  'credentials',
  'twins',
  TEMPORARY,
  'lost+found',
]
const ASIDE_PREFIX = '.aside-'
export const ASIDE = /^\.aside-[0-9]+$/

/** Whose cache a version file says it is; 'damaged': it does not say. */
export function versionOf(file: Uint8Array | 'damaged'): 'ours' | 'other' | 'damaged' {
  const parts = file === 'damaged' ? null : ANY_VERSION.exec(new TextDecoder().decode(file))
  if (parts === null) return 'damaged'
  const [, line = '', check] = parts
  if (check !== undefined && check !== digestOf(new TextEncoder().encode(line))) return 'damaged'
  return line === VERSION_LINE ? 'ours' : 'other'
}

export interface Entered {
  /** Close it to let go of the cache. */
  lock: FileHandle
  /** Nobody else used the cache when it was entered. */
  alone: boolean
  /** Caches that earlier starts set aside, and that are kept no longer. */
  aside: readonly string[]
}

/**
 * Makes `dir` a cache of this version, empty or as it was left, and holds a shared lock on its version file.
 * @throws Failure usage (a folder with other things in it), unsupported (another version uses it now), timeout, system
 */
export async function enterCache(dir: string, locks: Locks, warn: (message: string) => void): Promise<Entered> {
  try {
    await fs.mkdir(dirname(dir), { recursive: true })
    await makeFolder(dir)
    return await lockedFolder(locks, dir, () => enterLocked(dir, locks, warn))
  } catch (cause) {
    throw diskFailure(dir, cause)
  }
}

/** Whether nothing is there yet, so that whoever can make no cache of it loses none. @throws Failure system */
export async function isUnbegun(dir: string): Promise<boolean> {
  try {
    return (await heldIn(dir)).length === 0
  } catch (cause) {
    if (ABSENT.has(systemCode(cause))) return true
    throw diskFailure(dir, cause)
  }
}

async function enterLocked(dir: string, locks: Locks, warn: (message: string) => void): Promise<Entered> {
  const path = join(dir, 'version')
  const found = await readWhole(path, VERSION_MAX_BYTES)
  const whose = found === undefined ? await whoseUnnamed(dir) : versionOf(found)
  const aside = (await fs.readdir(dir)).filter((name) => ASIDE.test(name)).sort(byNumber)
  if (whose === 'other') await moveAside(dir, path, locks, warn)
  if (whose === undefined) await makeFolder(join(dir, TEMPORARY))
  else await makeFolderIfTaken(join(dir, TEMPORARY))
  if (whose === 'damaged') {
    warn(`${path} is damaged or gone: the cache is used on, for each of its files is checked for itself`)
    await mendIfTaken(path)
  } else if (whose === 'ours') {
    if (!isWhole(found)) await mendIfTaken(path) // it has no second line yet
  } else {
    await replaceFile(join(dir, TEMPORARY), path, new TextEncoder().encode(CACHE_VERSION))
  }
  const version = await fs.open(path, 'r')
  try {
    const alone = locks.tryLock(version.fd, true)
    // nobody else is here, so whatever is half written has no writer any more
    if (alone) await empty(join(dir, TEMPORARY))
    await lock(locks, version.fd, false, path)
    // what the last start set aside is kept until one finds its own cache; two versions that take turns keep only the last
    const over = whose === 'ours' ? aside : whose === 'other' ? aside.slice(0, -1) : []
    return { lock: version, alone, aside: alone ? over.map((name) => join(dir, name)) : [] }
  } catch (error) {
    await version.close()
    throw error
  }
}

function isWhole(file: Uint8Array | 'damaged' | undefined): boolean {
  return file instanceof Uint8Array && new TextDecoder().decode(file) === CACHE_VERSION
}

function byNumber(one: string, other: string): number {
  return Number(one.slice(ASIDE_PREFIX.length)) - Number(other.slice(ASIDE_PREFIX.length))
}

/** In its place, not by another file with its name: whoever uses the cache holds a lock on this one. @throws what the system throws */
async function mend(path: string): Promise<void> {
  const stat = await fs.lstat(path).catch(() => undefined) // it is gone
  if (stat?.isFile() === false) await dropDamaged(path)
  const file = await fs.open(path, stat?.isFile() ? 'r+' : 'wx', 0o600)
  try {
    await file.chmod(0o600)
    await file.truncate(0)
    await file.writeFile(CACHE_VERSION)
    await file.sync()
  } finally {
    await file.close()
  }
  await syncFolder(dirname(path))
}

/** A disk that takes nothing leaves it as it is, until the next start. @throws what the system throws */
async function mendIfTaken(path: string): Promise<void> {
  await mend(path).catch((error) => {
    if (!isRefusal(error)) throw error
  })
}

/** The folder itself stays: a disk that is full would not take another. @throws what the system throws */
async function empty(folder: string): Promise<void> {
  try {
    for (const name of await fs.readdir(folder)) await fs.rm(join(folder, name), { recursive: true, force: true })
  } catch (error) {
    if (!isRefusal(error) && systemCode(error) !== 'ENOENT') throw error // it could not be made, either
  }
}

/** @returns undefined: it is empty. @throws Failure usage: it is no cache */
async function whoseUnnamed(dir: string): Promise<'damaged' | undefined> {
  const names = await heldIn(dir)
  if (names.length === 0) return undefined
  const foreign = names.find((name) => ![...FOLDERS, ...OTHER_NAMES].includes(name.replace(/\.corrupt$/, '')))
  const all = await fs.readdir(dir) // also those that hold nothing yet
  const known = FOLDERS.filter((name) => all.includes(name)).length
  if (foreign === undefined && known >= FOLDERS.length / 2) return 'damaged'
  throw Failure.usage(`${dir} is no cache`, {
    why: `it holds ${JSON.stringify(foreign ?? names[0])} and no file "version"`,
    fix: 'Name an empty or new folder with --cache DIR.',
  })
}

/** What is in a folder, but for what counts for nothing in a cache: caches set aside, and folders that a disk took before it was full. */
async function heldIn(dir: string): Promise<string[]> {
  const held: string[] = []
  for (const name of await fs.readdir(dir)) {
    if (name === TEMPORARY || ASIDE.test(name)) continue
    const isOurs = [...FOLDERS, ...OTHER_NAMES].includes(name)
    if (!isOurs || (await holdsFile(join(dir, name)))) held.push(name)
  }
  return held
}

/** Whether it is a file, or there is one below it. */
async function holdsFile(path: string): Promise<boolean> {
  if (!(await fs.lstat(path)).isDirectory()) return true
  for (const name of await fs.readdir(path)) if (await holdsFile(join(path, name))) return true
  return false
}

async function moveAside(dir: string, path: string, locks: Locks, warn: (message: string) => void): Promise<void> {
  const version = await fs.open(path, 'r')
  try {
    if (!locks.tryLock(version.fd, true)) {
      throw Failure.unsupported(`${dir} is used by another version of lazylayer`, {
        fix: 'Stop that one first, or name another cache with --cache DIR.',
      })
    }
    const text = (await version.readFile('utf8')).split('\n')[0]
    const names = await fs.readdir(dir)
    const numbers = names.filter((name) => ASIDE.test(name)).map((name) => Number(name.slice(ASIDE_PREFIX.length)))
    const aside = join(dir, `${ASIDE_PREFIX}${Math.max(0, ...numbers) + 1}`)
    await makeFolder(aside)
    // the version last: a crash in between leaves a cache of that other version, and the rest is moved the next time
    for (const name of names.filter((each) => !ASIDE.test(each) && each !== 'version')) {
      await fs.rename(join(dir, name), join(aside, name))
    }
    await syncFolder(dir)
    await fs.rename(path, join(aside, 'version'))
    await syncFolder(dir)
    warn(
      `the cache in ${dir} is of another version (${text}): it was moved to ${aside} and an empty one begun; the next start removes it`,
    )
  } finally {
    await version.close()
  }
}
