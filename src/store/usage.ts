// What of the cache takes how much of the disk, and what of it can go as a whole.
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { sizeOf } from './aside.ts'
import { CLOCK_FILE } from './clock.ts'
import type { Locks } from './locks.ts'

/** A file, or some, that go together. */
export interface Goes {
  readonly bytes: number
  /** When it was used last: milliseconds since 1970. */
  readonly at: number
  /** @returns how many bytes went; 0: it is in use */
  go(): Promise<number>
}

export interface DeviceUsage extends Goes {
  /** Of the tree's folder. */
  readonly name: string
}

/** stat(2): of st_blocks. */
const BLOCK_BYTES = 512

/** All devices on disk but those of these trees; those in use do not go when they are told to. @throws what the system throws */
export async function devicesIn(dir: string, except: ReadonlySet<string>, locks: Locks): Promise<DeviceUsage[]> {
  const trees = join(dir, 'trees')
  const found: DeviceUsage[] = []
  for (const name of await fs.readdir(trees)) {
    if (except.has(name)) continue
    const folder = join(trees, name)
    const device = await fs.lstat(join(folder, 'device')).catch(() => undefined) // none, or gone meanwhile
    if (device === undefined) continue
    const used = await fs.lstat(join(folder, CLOCK_FILE)).catch(() => undefined) // none yet
    const bytes = device.blocks * BLOCK_BYTES
    found.push({ name, bytes, at: Math.max(device.mtimeMs, used?.mtimeMs ?? 0), go: () => drop(folder, bytes, locks) })
  }
  return found
}

/** Bytes of all but the devices. @throws what the system throws */
export async function restOf(dir: string, locks: Locks): Promise<number> {
  const devices = await devicesIn(dir, new Set(), locks)
  return Math.max(0, (await sizeOf(dir)).bytes - devices.reduce((sum, { bytes }) => sum + bytes, 0))
}

/** Whoever opens it later makes it anew. What somebody has mounted who died since lives on until that ends. */
async function drop(folder: string, bytes: number, locks: Locks): Promise<number> {
  const entered = await fs.open(folder, 'r').catch(() => undefined) // gone
  let ready: FileHandle | undefined
  try {
    if (entered === undefined || !locks.tryLock(entered.fd, true)) return 0 // it is being opened
    ready = await fs.open(join(folder, 'ready'), 'r').catch(() => undefined) // there is none: nobody uses the device
    if (ready !== undefined && !locks.tryLock(ready.fd, true)) return 0
    // a device without a ready file counts for nothing
    for (const name of ['ready', 'device', CLOCK_FILE]) await fs.rm(join(folder, name), { force: true })
    return bytes
  } finally {
    await ready?.close()
    await entered?.close()
  }
}
