// What earlier starts put out of the way: caches of other versions, and files that were damaged. They are kept until the next start, for
// whoever wants to go back or to look at them.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { CORRUPT, systemCode } from './durable.ts'
import type { Locks } from './locks.ts'
import { ASIDE } from './version.ts'

/**
 * Removes caches that were set aside, but for those that somebody uses, and damaged files of before `startedAt` (milliseconds since
 * 1970). For whoever entered the cache alone.
 * @throws what the system throws
 */
export async function removeAside(
  dir: string,
  caches: readonly string[],
  startedAt: number,
  locks: Locks,
): Promise<void> {
  for (const each of caches) await removeCache(each, locks)
  await removeDamaged(dir, startedAt)
  for (const name of await namesIn(dir)) {
    if (!ASIDE.test(name)) await removeDamaged(join(dir, name), startedAt)
  }
  const trees = join(dir, 'trees')
  for (const name of await namesIn(trees)) await removeDamaged(join(trees, name), startedAt)
}

async function removeCache(aside: string, locks: Locks): Promise<void> {
  const version = await fs.open(join(aside, 'version'), 'r').catch(() => undefined) // damaged, or half removed: nobody's
  try {
    if (version !== undefined && !locks.tryLock(version.fd, true)) return // another version was started on it
    // the version last: who comes in between sees that it is locked
    for (const name of await namesIn(aside)) {
      if (name !== 'version') await fs.rm(join(aside, name), { recursive: true, force: true })
    }
    await fs.rm(aside, { recursive: true, force: true })
  } finally {
    await version?.close()
  }
}

async function removeDamaged(folder: string, before: number): Promise<void> {
  for (const name of await namesIn(folder)) {
    if (!name.endsWith(CORRUPT)) continue
    const path = join(folder, name)
    const found = await fs.lstat(path).catch(() => undefined) // gone, by another process
    if (found !== undefined && found.ctimeMs < before) await fs.rm(path, { recursive: true, force: true })
  }
}

export interface CacheSize {
  /** On disk, of all that the cache's folder holds. */
  bytes: number
  /** Of that, what is set aside. */
  aside: number
}

/** Files that are there for a moment only may be left out. @throws what the system throws */
export async function sizeOf(dir: string): Promise<CacheSize> {
  const size = { bytes: 0, aside: 0 }
  const add = async (folder: string, isAside: boolean): Promise<void> => {
    for (const entry of await fs.readdir(folder, { withFileTypes: true }).catch(() => [])) {
      const path = join(folder, entry.name)
      const aside = isAside || ASIDE.test(entry.name) || entry.name.endsWith(CORRUPT)
      const found = await fs.lstat(path).catch(() => undefined)
      if (found === undefined) continue
      const bytes = found.blocks * BLOCK_BYTES
      size.bytes += bytes
      if (aside) size.aside += bytes
      if (entry.isDirectory()) await add(path, aside)
    }
  }
  await add(dir, false)
  return size
}

/** stat(2): of st_blocks. */
const BLOCK_BYTES = 512

async function namesIn(folder: string): Promise<string[]> {
  return await fs.readdir(folder).catch((error) => {
    if (systemCode(error) === 'ENOENT' || systemCode(error) === 'ENOTDIR') return []
    throw error
  })
}
