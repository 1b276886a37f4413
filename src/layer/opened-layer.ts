// One layer, open: from disk where it is known, else built from its index or its tar.
import { describe, Failure } from '../errors.ts'
import { type Prefetched, prefetch } from '../fetch/prefetch.ts'
import type { Blob } from '../image/blob.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Store } from '../store/store.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import { KeptBlob } from './file-blob.ts'
import { type OpenLayer, refusal } from './layer.ts'
import type { LayerFiller } from './tree-filler.ts'
import type { Trees } from './trees.ts'

const RESTART = 'Stop and start the agent: it is built again then.'

/** How a layer is opened that is not on disk yet. */
export interface Opening {
  descriptor: Descriptor
  /** The format's name. */
  format: string
  indexDigest: Digest | undefined
  /** What it is known by. */
  name: string
  /** Those of one origin may wait for one another. */
  origin: string
  /** Where its chunks are read from. */
  blobOf(chunks: ChunkTable): Blob
  build(signal: AbortSignal): Promise<Tree>
}

export interface OpeningParts {
  store: Store
  trees: Trees
  /** Aborts when the agent stops. */
  signal: AbortSignal
  log(message: string): void
}

export interface Opened {
  layer: OpenLayer
  /** Has it fill its tree, if others have pushed it out, or if it never did. */
  fill(): void
  /** Lets go of the tree: it may be others', too. */
  end(): Promise<void>
}

/** What a layer of that name is kept under. */
export function keyOf(name: string): Digest {
  return digestOf(new TextEncoder().encode(name))
}

/** @throws Failure corrupt: quarantined, or it cannot be read back; what building it throws; system */
export async function openFromDiskOrBuild(opening: Opening, parts: OpeningParts): Promise<Opened> {
  const { descriptor, format, indexDigest, name, build } = opening
  const { store, signal } = parts
  const known = await find(opening, parts)
  if (known !== undefined) return open(opening, parts, known)
  const built = await build(signal)
  await store.keepLayer(keyOf(name), { format, ...(indexDigest === undefined ? {} : { indexDigest }) }, built)
  const again = await find(opening, parts)
  if (again !== undefined) return open(opening, parts, again)
  throw Failure.corrupt(`layer ${descriptor.digest}: its tree cannot be read back from the cache`, {
    fix: 'Check the disk below the cache directory.',
  })
}

interface Found {
  digest: Digest
  chunks: ChunkTable
  /** Taken. */
  tree: NonNullable<Awaited<ReturnType<Trees['take']>>>
}

/** Undefined when it is not on disk, or damaged there. */
async function find({ descriptor, name }: Opening, { store, trees }: OpeningParts): Promise<Found | undefined> {
  const known = await store.layer(keyOf(name))
  if (known === undefined) return undefined
  const { tree: digest, chunks } = known
  const verdict = await store.proofs.of({ blob: descriptor.digest, tree: digest })
  if (verdict?.verdict === 'refuted') throw refusal(descriptor, verdict)
  const tree = await trees.take(digest, chunks)
  return tree && { digest, chunks, tree }
}

function open(opening: Opening, { store, trees, signal, log }: OpeningParts, { digest, chunks, tree }: Found): Opened {
  const { descriptor, format, indexDigest, origin, blobOf } = opening
  const { slots, filler, reverify, close } = tree
  const blob = blobOf(chunks)
  let own: LayerFiller | undefined
  const fill = () => {
    if (indexDigest !== undefined && !filler.hasKept(descriptor.digest)) {
      const kept = new KeptBlob(descriptor, store.wholes)
      filler.addKept(descriptor.digest, {
        isThere: () => store.wholes.has(descriptor.digest),
        filler: () => trees.fileFiller(chunks, kept, slots, 'kept'),
      })
    }
    if (own !== undefined && filler.has(own)) return
    own = trees.filler(chunks, blob, slots, origin)
    filler.add(own, origin)
  }
  fill()
  let prefetching: Promise<Prefetched> | undefined
  const layer: OpenLayer = {
    descriptor,
    format,
    indexDigest,
    tree: digest,
    chunks,
    slots,
    filler,
    reverify,
    verdict: () => store.proofs.of({ blob: descriptor.digest, tree: digest }),
    numbersAs: (name) => store.numbersOf(digest, name),
    async openImage() {
      const image = await store.openImage(digest)
      if (image === undefined) throw Failure.corrupt('its image on disk is damaged', { fix: RESTART })
      return image
    },
    prefetch() {
      prefetching ??= prefetch(filler, chunks, signal).then((result) => {
        const { ready, failed, error } = result
        if (error !== undefined) {
          const what = `${failed} of ${ready + failed} chunks wanted first could not be fetched`
          log(`layer ${descriptor.digest}: ${what}: ${describe(error)}`)
        }
        return result
      })
      return prefetching
    },
  }
  const end = async () => {
    if (own !== undefined) await filler.remove(own)
    await close()
  }
  return { layer, fill, end }
}
