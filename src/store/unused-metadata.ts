// Names, modes and places of layers that nobody has opened for long: a tree's image, and what is kept of the layers that it was built from.
// They are about a thousandth of the contents, and what a layer is opened by when its registry is away: so they go only where their
// contents went before, and long after that. What is opened again is built again; numbers stay (numbers.ts).
import fs, { type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, hex } from '../image/digest.ts'
import { mapLimited } from '../limit.ts'
import { readWhole } from './durable.ts'
import type { Locks } from './locks.ts'
import { decodeRecord, RECORD_MAX_BYTES } from './record.ts'
import type { Goes } from './usage.ts'

const DAY_MS = 24 * 60 * 60 * 1000
/** What runs once a month is opened as fast as what runs every day. */
const UNUSED_MS = 31 * DAY_MS
/** An image that is opened all the time is not marked all the time. */
const MARKED_EVERY_MS = DAY_MS
/** stat(2): of st_blocks. */
const BLOCK_BYTES = 512
/** Each is some hundred bytes. */
const RECORDS_AT_ONCE = 64

/** Tells that a tree is used now, which its image's time says. */
export async function markUsed(image: FileHandle): Promise<void> {
  const now = Date.now()
  if (now - (await image.stat()).mtimeMs < MARKED_EVERY_MS) return
  await image.utimes(now / 1000, now / 1000).catch(() => {}) // on a disk that is read-only nothing goes
}

/**
 * What may go, as if it had been used so long after it was; of these trees nothing.
 * @param except names of their folders
 * @throws what the system throws
 */
export async function unusedMetadata(dir: string, except: ReadonlySet<string>, locks: Locks): Promise<Goes[]> {
  const before = Date.now() - UNUSED_MS
  let layers: Promise<ReadonlyMap<string, readonly string[]>> | undefined
  const found: Goes[] = []
  for (const name of await fs.readdir(join(dir, 'trees'))) {
    if (except.has(name)) continue
    const folder = join(dir, 'trees', name)
    const image = await unusedImage(folder, before)
    if (image === undefined) continue
    const go = async () => {
      layers ??= layersByTree(dir)
      return await drop(folder, (await layers).get(name) ?? [], before, locks)
    }
    found.push({ bytes: image.blocks * BLOCK_BYTES, at: image.mtimeMs + UNUSED_MS, go })
  }
  return found
}

/** Undefined: it was used since, or its contents are there, which go first. */
async function unusedImage(folder: string, before: number) {
  const image = await fs.lstat(join(folder, 'image')).catch(() => undefined) // gone meanwhile
  if (image === undefined || image.mtimeMs > before) return undefined
  const device = await fs.lstat(join(folder, 'device')).catch(() => undefined) // there is none
  return device === undefined ? image : undefined
}

/** Folders of layers by the name of their tree's. @throws what the system throws */
async function layersByTree(dir: string): Promise<Map<string, string[]>> {
  const folder = join(dir, 'layers')
  const found = new Map<string, string[]>()
  await mapLimited(await fs.readdir(folder), RECORDS_AT_ONCE, async (name) => {
    const bytes = await readWhole(join(folder, name, 'record.json'), RECORD_MAX_BYTES)
    const record = bytes instanceof Uint8Array ? decodeRecord(bytes) : undefined
    if (record === undefined) return
    const { tree } = record as { tree: Digest } // as Store.keepLayer wrote it
    found.set(hex(tree), [...(found.get(hex(tree)) ?? []), join(folder, name)])
  })
  return found
}

/** @returns how many bytes went; 0: somebody opens it now, or did meanwhile */
async function drop(folder: string, layers: readonly string[], before: number, locks: Locks): Promise<number> {
  const entered = await fs.open(folder, 'r').catch(() => undefined) // gone
  try {
    if (entered === undefined || !locks.tryLock(entered.fd, true)) return 0
    const image = await unusedImage(folder, before)
    if (image === undefined) return 0
    let bytes = image.blocks * BLOCK_BYTES
    for (const layer of layers) {
      const chunks = await fs.lstat(join(layer, 'chunks')).catch(() => undefined) // gone meanwhile
      bytes += (chunks?.blocks ?? 0) * BLOCK_BYTES
      // what says that the rest is there goes first
      await fs.rm(join(layer, 'record.json'), { force: true })
      await fs.rm(layer, { recursive: true, force: true })
    }
    await fs.rm(folder, { recursive: true, force: true })
    return bytes
  } finally {
    await entered?.close()
  }
}
