// One layer, open: from disk where it is known, else built from its index or its tar.
import { describe, Failure } from '../errors.ts'
import { type Prefetched, prefetch } from '../fetch/prefetch.ts'
import type { Unit } from '../format/format.ts'
import { giveBack } from '../format/memory.ts'
import type { BuiltTree } from '../format/parser.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import type { Provenance } from '../store/provenance.ts'
import { type KeptLayer, RESTART, type Store } from '../store/store.ts'
import type { ChunkBlob, ChunkTable } from '../tree/chunk-table.ts'
import { Progress } from './candidates.ts'
import { claimOf } from './claim.ts'
import { KeptBlob } from './file-blob.ts'
import { type OpenLayer, refusal, type Together } from './layer.ts'
import type { LayerFiller } from './tree-filler.ts'
import type { BlobOf, Trees } from './trees.ts'

/** How a layer is opened that is not on disk yet. */
export interface Opening {
  descriptor: Descriptor
  /** The format's name. */
  format: string
  /** Undefined: it has no index, and is served from the whole tar. */
  unit: Unit | undefined
  /** What it is known by. */
  name: string
  /** Those of one origin may wait for one another. */
  origin: string
  /** Whose image it is, as a Giver has it. */
  repository: string
  /** Where its chunks are read from. */
  blobOf: BlobOf
  build(signal: AbortSignal): Promise<BuiltTree>
  /** What it is in its unit, with what is known of the unit's index. Undefined: its tree is its own. */
  together: ((parts: readonly Part[] | undefined, chunks: ChunkTable) => Together) | undefined
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
  provenance: Provenance
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
  const { descriptor, format, unit, name, build } = opening
  const { store, signal } = parts
  const kept = await store.layer(keyOf(name))
  const known = kept && (await find(opening, parts, kept))
  if (known !== undefined) return open(opening, parts, known)
  const built = await build(signal)
  const index = unit?.shown === descriptor ? { indexDigest: unit.index } : {}
  const others = built.parts === undefined ? {} : { parts: built.parts }
  const record = { format, ...index, ...others }
  await store.keepLayer(keyOf(name), record, built)
  const { digest: tree, chunks } = built
  if (unit !== undefined) giveBack(built.image) // it is a file now, and was made for us alone
  const found = await find(opening, parts, { record, tree, chunks })
  if (found !== undefined) return open(opening, parts, found)
  throw Failure.corrupt(`layer ${descriptor.digest}: its tree cannot be read back from the cache`, {
    fix: 'Check the disk below the cache directory.',
  })
}

interface Found {
  digest: Digest
  chunks: ChunkTable
  together: Together | undefined
  /** Taken. */
  tree: NonNullable<Awaited<ReturnType<Trees['take']>>>
}

/** Undefined when its image is not on disk, or damaged there. */
async function find(
  opening: Opening,
  { store, trees }: OpeningParts,
  { tree: digest, chunks, record }: KeptLayer,
): Promise<Found | undefined> {
  const { descriptor, name } = opening
  const together = opening.together?.(record.parts, chunks)
  const verdict = await store.proofs.of(claimOf({ descriptor, tree: digest, together }))
  if (verdict?.verdict === 'refuted') throw refusal({ descriptor, together }, verdict)
  const tree = await trees.take(digest, chunks, keyOf(name))
  return tree && { digest, chunks, together, tree }
}

function open(opening: Opening, { store, trees, signal, log }: OpeningParts, found: Found): Opened {
  const { digest, chunks, together, tree } = found
  const { descriptor, format, unit, origin, repository, blobOf } = opening
  const { slots, filler, reverify, close } = tree
  const fileFiller: OpenLayer['fileFiller'] = (files, kind) => trees.fileFiller(tree, chunks, files, kind, repository)
  let own: LayerFiller | undefined
  const fill = () => {
    if (unit !== undefined && chunks.length > 0 && !filler.hasKept(descriptor.digest)) {
      const kept = (of: ChunkBlob) => new KeptBlob(of, store.wholes)
      filler.addKept(descriptor.digest, {
        isThere: store.wholes.areThere(chunks.blobs.map(({ digest }) => digest)),
        filler: () => fileFiller(kept, 'kept'),
      })
    }
    if (own !== undefined && filler.has(own)) return
    const progress = new Progress()
    own = trees.filler(tree, chunks, (of) => progress.of(blobOf(of)), origin, repository)
    filler.add(own, origin, progress)
  }
  fill()
  let prefetching: Promise<Prefetched> | undefined
  const layer: OpenLayer = {
    descriptor,
    format,
    indexDigest: unit?.shown === descriptor ? unit.identity : undefined,
    together,
    claimedTarSize: unit?.shown === descriptor ? unit.tarSize : undefined,
    tree: digest,
    chunks,
    slots,
    filler,
    fileFiller,
    reverify,
    verdict: () => store.proofs.of(claimOf({ descriptor, tree: digest, together })),
    numbersAs: (name) => store.numbersOf(digest, name),
    async openImage() {
      const image = await store.openImage(digest)
      if (image === undefined) throw Failure.corrupt('its image on disk is damaged', { fix: RESTART })
      return image
    },
    prefetch() {
      const first = Array.from({ length: chunks.first }, (_, i) => i)
      prefetching ??= prefetch(filler, first, AbortSignal.any([signal, store.room.full])).then((result) => {
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
  return { layer, provenance: tree.provenance, fill, end }
}
