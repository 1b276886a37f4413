// What a cache holds, as its files tell: for whoever shows it, checks it or pins it.
import fs from 'node:fs/promises'
import { join } from 'node:path'
import { type Digest, hex, isDigest } from '../image/digest.ts'
import { CORRUPT, diskFailure } from './durable.ts'
import type { Locks } from './locks.ts'
import type { KeptLayer, Store } from './store.ts'
import { namesOfTwins, peekTwins } from './twins.ts'
import { ASIDE } from './version.ts'

/** Each tree once, however many layers build it. @throws Failure system */
export async function* keptTrees(store: Store): AsyncGenerator<KeptLayer> {
  const folder = join(store.dir, 'layers')
  const seen = new Set<Digest>()
  for (const name of await fs.readdir(folder).catch((cause) => Promise.reject(diskFailure(folder, cause)))) {
    const key = `sha256:${name}`
    const layer = isDigest(key) ? await store.layer(key) : undefined
    if (layer === undefined || seen.has(layer.tree)) continue
    seen.add(layer.tree)
    yield layer
  }
}

/** What a tag meant the last time. */
export interface Tagged {
  reference: string
  manifest: Digest
}

/** @throws Failure system */
export async function taggedImages(cache: string): Promise<Tagged[]> {
  const is = (record: unknown): record is Tagged =>
    typeof record === 'object' &&
    record !== null &&
    'reference' in record &&
    'manifest' in record &&
    isDigest(record.manifest)
  const names = await namesOfTwins(cache, 'references')
  const found = await Promise.all(names.map((name) => peekTwins(cache, join('references', name), is)))
  return found.filter((each) => each !== undefined)
}

/** Whether somebody uses a tree's device, this process too. */
export async function isInUse(cache: string, tree: Digest, locks: Locks): Promise<boolean> {
  const folder = join(cache, 'trees', hex(tree))
  const entered = await fs.open(folder, 'r').catch(() => undefined) // it has none
  const ready = await fs.open(join(folder, 'ready'), 'r').catch(() => undefined) // it has no device
  try {
    if (entered === undefined || ready === undefined) return false
    // whoever opens it meanwhile would take the lock of its ready file for a living user's
    return !locks.tryLock(entered.fd, true) || !locks.tryLock(ready.fd, true)
  } finally {
    await ready?.close()
    await entered?.close()
  }
}

/** Bytes on disk by what they are for. */
export interface CacheUsage {
  /** Of files in layers. */
  contents: number
  /** Names, sizes, modes; tables of chunks; manifests. */
  metadata: number
  /** Exact blobs, and what engines keep of tars. */
  blobs: number
  /** What earlier starts set aside, and damaged files. */
  aside: number
  /** Records, credentials. */
  rest: number
}

const BLOCK_BYTES = 512
const METADATA = new Set(['trees', 'layers', 'objects', 'merged'])

/** @throws Failure system */
export async function usageOf(cache: string): Promise<CacheUsage> {
  const usage: CacheUsage = { contents: 0, metadata: 0, blobs: 0, aside: 0, rest: 0 }
  try {
    for (const path of await fs.readdir(cache, { recursive: true })) {
      const found = await fs.lstat(join(cache, path)).catch(() => undefined) // gone meanwhile
      if (found?.isFile()) usage[kindOf(path.split('/'))] += found.blocks * BLOCK_BYTES
    }
    return usage
  } catch (cause) {
    throw diskFailure(cache, cause)
  }
}

function kindOf(names: readonly string[]): keyof CacheUsage {
  const [first = ''] = names
  if (ASIDE.test(first) || names.some((each) => each.endsWith(CORRUPT))) return 'aside'
  if (first === 'trees' && names.at(-1) === 'device') return 'contents'
  if (first === 'wholes') return 'blobs'
  return METADATA.has(first) ? 'metadata' : 'rest'
}
