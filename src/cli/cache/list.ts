// The trees in the cache, each with what is there of it.
import { type Digest, hex } from '../../image/digest.ts'
import { isInUse, keptTrees, taggedImages } from '../../store/contents.ts'
import type { Locks } from '../../store/locks.ts'
import type { Store } from '../../store/store.ts'
import { devicesIn } from '../../store/usage.ts'
import { layersOf } from './image.ts'

export interface CachedTree {
  tree: Digest
  /** Bytes on disk. */
  cached: number
  /** Bytes of all of its contents. */
  size: number
  /** Milliseconds since 1970; 0: never. */
  usedAt: number
  inUse: boolean
  pinned: boolean
  images: string[]
}

/** The one that was used last first. @throws Failure system */
export async function listTrees(store: Store, locks: Locks): Promise<CachedTree[]> {
  const images = await imagesOfBlobs(store)
  const pinned = await store.pins.trees()
  const devices = new Map((await devicesIn(store.dir, new Set(), locks)).map((each) => [each.name, each]))
  const trees: CachedTree[] = []
  for await (const { tree, chunks } of keptTrees(store)) {
    const device = devices.get(hex(tree))
    let size = 0
    for (let chunk = 0; chunk < chunks.length; chunk++) {
      chunks.places(chunk, (_, length) => {
        size += length
      })
    }
    trees.push({
      tree,
      cached: device?.bytes ?? 0,
      size,
      usedAt: device?.at ?? 0,
      inUse: await isInUse(store.dir, tree, locks),
      pinned: pinned.has(hex(tree)),
      images: [...new Set(chunks.blobs.flatMap(({ digest }) => images.get(digest) ?? []))].sort(),
    })
  }
  return trees.sort((a, b) => b.usedAt - a.usedAt)
}

async function imagesOfBlobs(store: Store): Promise<Map<Digest, string[]>> {
  const images = new Map<Digest, string[]>()
  for (const { reference, manifest } of await taggedImages(store.dir)) {
    for (const layer of (await layersOf(store, manifest)) ?? []) {
      images.set(layer, [...(images.get(layer) ?? []), reference])
    }
  }
  return images
}
