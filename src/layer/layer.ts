// A layer that is open: its tree, its device and what fills it; or why it is not lazy.
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Prefetched } from '../fetch/prefetch.ts'
import type { Unit } from '../format/format.ts'
import type { Blob } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Device } from '../store/device.ts'
import type { TreeNumbers } from '../store/numbers.ts'
import type { Proof, Refutation } from '../store/proofs.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import type { Copies } from './candidates.ts'
import type { LayerFiller, TreeFiller } from './tree-filler.ts'
import type { BlobOf } from './trees.ts'

/** A layer that can be served lazily, for as long as somebody has it open. */
export interface OpenLayer {
  readonly descriptor: Descriptor
  /** The format's name. */
  readonly format: string
  /** The identity engines know the index by; proven. Undefined: they know none. */
  readonly indexDigest: Digest | undefined
  /** Where one tree is shown for several layers: none of them unpacks to what it shows. Undefined: it has a tree of its own. */
  readonly together: Together | undefined
  /** Bytes of its tar as its manifest claims them, if it does. */
  readonly claimedTarSize: number | undefined
  /** Digest of the EROFS image. */
  readonly tree: Digest
  readonly chunks: ChunkTable
  readonly slots: Device
  readonly filler: TreeFiller
  /** One that reads this layer's blobs from files; for TreeFiller.withFile. @param kind of file: those of one wait for one another */
  fileFiller(blobOf: BlobOf, kind: string): LayerFiller
  /**
   * The numbers of the tree where it is shown as `name`, the same for ever. Each name has its own, because the kernel knows
   * a directory by one name only: looked up by another, it moves there, with what is mounted on it.
   */
  numbersAs(name: string): Promise<TreeNumbers>
  /**
   * The image, all of it hashed just now; the caller closes it.
   * @throws Failure corrupt: it was damaged since the layer was opened; system
   */
  openImage(): Promise<FileHandle>
  /** Fetches what the image wants ready first; the first call does it, later ones join. */
  prefetch(): Promise<Prefetched>
  /** What the whole layer's bytes said of this tree, if they were ever read. @throws Failure system */
  verdict(): Promise<Verdict | undefined>
  /**
   * Verifies what an earlier life stored, all of it, within the budget of prefetch; the first call does it, later ones join.
   * Never rejects: whoever reads what failed is told.
   */
  reverify(): Promise<void>
}

/** What a layer is in a unit of several. */
export interface Together {
  readonly unit: Unit
  /** Whether it shows the unit's tree. The others show nothing. */
  readonly shows: boolean
  /** Whether chunks of the tree are read from it. What shows nothing and has no chunks was read for the index. */
  readonly hasChunks: boolean
  /** Those that show nothing, as the index names them. Undefined: it does not, and no layer of the unit can be proven to bear a name. */
  readonly parts: readonly Part[] | undefined
}

/** The same, held by who opened it: it is open until they close it. */
export interface LayerLease extends OpenLayer, AsyncDisposable {
  /** One more, closed by itself; from one that is not closed. */
  again(): LayerLease
  /** Once is enough, and more do nothing. What was lent of it (descriptors, the filler) must not be used afterwards. */
  close(): Promise<void>
}

/** What a whole layer's bytes said of the tree that is served for it. */
export type Verdict = Proof | Refutation

/** What a layer is called that is served from its whole tar. */
export const WHOLE = 'whole tar'

/** Why the digest of such a layer's tar is no name for what it shows. */
export const TOGETHER = 'its image shows one tree for several layers together, which none of them unpacks to'

/** Why a layer that was found to lie is not served, by anybody, under any name. */
export function refusal(layer: Pick<OpenLayer, 'descriptor' | 'together'>, { why }: Refutation): Failure {
  const what =
    layer.together === undefined
      ? 'its index shows another tree than its tar has'
      : 'its image shows it together with others as what it is not'
  return Failure.corrupt(`layer ${layer.descriptor.digest} is quarantined: ${what}: ${why}`, {
    fix: 'Do not use the image it is part of, and tell its publisher; if the index was made by a faulty tool, make it again.',
  })
}

/** Reads layers whole, and tells what their bytes say of their trees. All but `known` throw what reading and examining a blob throw. */
export interface Examiner {
  /** The exact blob in a file, which the caller closes. */
  blob(blob: StoredBlob): Promise<FileHandle>
  /** The verdict of a layer that was examined before. @throws Failure system */
  known(layer: OpenLayer): Promise<Verdict | undefined>
  /** Examines a layer that never was. */
  verdict(layer: OpenLayer, blob: StoredBlob): Promise<Verdict>
  /** Begins to read a layer's tar for what it is called, before a verdict asks for that. Never rejects. @param file is closed here */
  readAhead(descriptor: Descriptor, file: FileHandle): Promise<void>
  /** As `verdict`, with the blob in `file`, which stays the caller's. */
  judge(layer: OpenLayer, file: FileHandle): Promise<Verdict>
  /** The tree of a layer's tar, whose chunks are pieces of that tar. */
  tree(descriptor: Descriptor, copies: Copies<StoredBlob>): Promise<Tree>
  /** A layer's tar as a blob: `of` is what it was proven to be. */
  tarBlob(of: { digest: Digest; size: number }, descriptor: Descriptor, copies: Copies<StoredBlob>): Blob
  /** When all that is under way has ended. */
  close(): Promise<void>
}

/** Why a layer cannot be served lazily; `why` is a sentence for the user. */
export interface EagerLayer {
  readonly descriptor: Descriptor
  readonly why: string
  /** A format refuses it: unpacked, it would show something else than its image. */
  readonly refused?: true
}

/** Of one that is not lazy there is nothing to close. */
export async function closeLayer(layer: LayerLease | EagerLayer): Promise<void> {
  if (!('why' in layer)) await layer.close()
}
