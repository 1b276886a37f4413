// A folder of this machine as a layer's entries.
import type { Stats } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure } from '../errors.ts'
import type { SourceEntry } from './source-entry.ts'

/** glibc's makedev, taken apart: 12 bits of major at 8, 20 bits of minor around them. */
const major = (dev: number) => Math.floor(dev / 256) % 4096
const minor = (dev: number) => (dev % 256) + 256 * (Math.floor(dev / 2 ** 20) % 4096)

/**
 * Everything below `folder`, in the order of names, parents first; names of one file after the first are hard links. Sockets are
 * left out. Extended attributes are not read: Node cannot.
 * @param at the layer's path of the folder itself; '' is the root
 * @throws Failure system
 */
export async function* folderEntries(folder: string, at = ''): AsyncGenerator<SourceEntry> {
  yield* walk(folder, at, new Map())
}

async function* walk(file: string, path: string, seen: Map<string, string>): AsyncGenerator<SourceEntry> {
  let entry: SourceEntry | undefined
  let children: string[] = []
  try {
    const stats = await lstat(file)
    entry = await entryOf(file, path, stats, seen)
    if (stats.isDirectory()) children = await readdir(file)
  } catch (cause) {
    throw Failure.system(`cannot read ${file}`, { cause })
  }
  if (entry) yield entry
  children.sort()
  for (const name of children) yield* walk(join(file, name), path === '' ? name : `${path}/${name}`, seen)
}

async function entryOf(
  file: string,
  path: string,
  stats: Stats,
  seen: Map<string, string>,
): Promise<SourceEntry | undefined> {
  const common = {
    path,
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    gid: stats.gid,
    mtime: BigInt(Math.floor(stats.mtimeMs / 1000)) * 1_000_000_000n,
  }
  if (stats.isDirectory()) return { ...common, type: 'dir' }
  const key = `${stats.dev}:${stats.ino}`
  const target = stats.nlink > 1 ? seen.get(key) : undefined
  if (target !== undefined) return { ...common, type: 'hardlink', target }
  if (stats.nlink > 1) seen.set(key, path)
  if (stats.isFile()) return { ...common, type: 'file', content: { file, size: stats.size } }
  if (stats.isSymbolicLink()) return { ...common, type: 'symlink', target: await readlink(file) }
  if (stats.isFIFO()) return { ...common, type: 'fifo' }
  const rdev = [major(stats.rdev), minor(stats.rdev)] as const
  if (stats.isCharacterDevice()) return { ...common, type: 'char', rdev }
  if (stats.isBlockDevice()) return { ...common, type: 'block', rdev }
  return undefined
}
