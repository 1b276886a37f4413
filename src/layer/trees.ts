// Trees that are open: one device each, however many layers build it; each of those can fill it.
import type { CodecPool } from '../codec/pool.ts'
import { Failure } from '../errors.ts'
import type { Budget } from '../fetch/budget.ts'
import { Filler, type FillerOptions } from '../fetch/filler.ts'
import { BackgroundPace } from '../fetch/nearby.ts'
import type { Blob, Giver, Range, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Device } from '../store/device.ts'
import type { Provenance } from '../store/provenance.ts'
import type { Reuse } from '../store/reuse.ts'
import type { Store } from '../store/store.ts'
import type { ChunkBlob, ChunkTable } from '../tree/chunk-table.ts'
import { Elsewhere } from './elsewhere.ts'
import { type Lease, Leases, type Shared } from './leases.ts'
import { Reverification } from './reverification.ts'
import { TreeFiller } from './tree-filler.ts'

export interface TreeParts {
  store: Store
  reuse: Reuse
  codecs: CodecPool
  /** For what registries are asked for. */
  budget: Budget
  /** Whether the rest of a layer that is read comes by itself (background.ts). */
  isFilled: boolean
  /** Whether an origin gives what it is asked for, as far as is known. */
  answers(origin: string): boolean
  /** Aborts when the agent stops. */
  signal: AbortSignal
  log(message: string): void
}

/** Where chunks are read from. */
export type BlobOf = (blob: ChunkBlob) => Blob

export interface OpenTree {
  digest: Digest
  chunks: ChunkTable
  /** Which a layer of it is kept under. */
  layer: Digest
  slots: Device
  filler: TreeFiller
  provenance: Provenance
  /** As OpenLayer.reverify. */
  reverify(): Promise<void>
}

/** A tree that is open or being opened. */
interface SharedTree extends Shared {
  readonly ready: Promise<OpenTree>
}

/** Layers are kept open for a while when nobody uses them, and trees with them. */
const IDLE_MAX = 0

const NOT_INTACT = Failure.corrupt('the image is not on disk, or damaged there')

export class Trees {
  readonly #parts: TreeParts
  readonly #open: Leases<Digest, SharedTree>
  /** For what is read from files: it waits for no registry. */
  readonly #fileBudget: Budget
  readonly #reverification = new Reverification()

  constructor(parts: TreeParts) {
    this.#parts = parts
    this.#fileBudget = parts.budget.ofFiles()
    this.#open = new Leases(IDLE_MAX, parts.log)
  }

  /**
   * Undefined when the image is not (or not intact) on disk.
   * @param layer which `chunks` is kept under
   * @throws what opening the device throws
   */
  async take(
    digest: Digest,
    chunks: ChunkTable,
    layer: Digest,
  ): Promise<(OpenTree & Pick<Lease<unknown>, 'close'>) | undefined> {
    try {
      const { of, close } = await this.#open.take(digest, () => this.#begin(digest, chunks, layer))
      return { ...(await of.ready), close }
    } catch (error) {
      if (error === NOT_INTACT) return undefined
      throw error
    }
  }

  /**
   * One that asks a registry, for what is on no device that the repository's images may have bytes of.
   * @param chunks of a layer that makes the tree: where they are stored is its own
   * @param origin those of one wait for one another
   */
  filler(tree: OpenTree, chunks: ChunkTable, blobOf: BlobOf, origin: string, repository: string): Filler {
    const elsewhere = this.#elsewhere(tree, repository)
    return this.#filler(tree, chunks, blobOf, origin, repository, { budget: this.#parts.budget, elsewhere })
  }

  /** One that asks nobody. @param kind of file: those of one wait for one another @param repository whose image's the file is */
  fileFiller(tree: OpenTree, chunks: ChunkTable, blobOf: BlobOf, kind: string, repository: string): Filler {
    return this.#filler(tree, chunks, blobOf, kind, repository, { budget: this.#fileBudget })
  }

  /** Ends all that are open, whoever has them. */
  async close(): Promise<void> {
    await this.#open.close()
  }

  #begin(digest: Digest, chunks: ChunkTable, layer: Digest): SharedTree {
    const ending = new AbortController()
    const ready = this.#openTree(digest, chunks, layer, AbortSignal.any([this.#parts.signal, ending.signal]))
    return {
      ready,
      async end() {
        ending.abort(Failure.aborted('nobody uses the layer any more'))
        const { filler, slots } = await ready
        await filler.close()
        await slots.close()
      },
    }
  }

  async #openTree(digest: Digest, chunks: ChunkTable, layer: Digest, signal: AbortSignal): Promise<OpenTree> {
    const image = await this.#parts.store.openImage(digest)
    if (image === undefined) throw NOT_INTACT
    await image.close()
    const filler = new TreeFiller()
    const refetchable = () => filler.origins.some((origin) => this.#parts.answers(origin))
    const slots = await this.#parts.store.openSlots(digest, chunks, refetchable)
    let verifying: Promise<void> | undefined
    const reverify = () => {
      verifying ??= this.#reverification.of({ slots, filler }, signal)
      return verifying
    }
    const provenance = this.#parts.reuse.provenance(digest, layer, slots)
    return { digest, chunks, layer, slots, filler, provenance, reverify }
  }

  #elsewhere({ digest, chunks, layer, slots, provenance }: OpenTree, repository: string): Elsewhere {
    const { codecs, log, reuse, signal } = this.#parts
    return new Elsewhere({
      chunks,
      find: () => reuse.find({ tree: digest, layer, repository }, slots),
      open: (holder) => reuse.open(holder),
      mark: ({ anonymous }) => provenance.add({ repository, anonymous }),
      copy: (chunk, pieces, index, turn) => slots.fill(index, (slot) => codecs.copy(chunk, pieces, slot, turn)),
      log: (message) => {
        if (!signal.aborted) log(message)
      },
    })
  }

  #filler(
    { slots, provenance }: OpenTree,
    chunks: ChunkTable,
    blobOf: BlobOf,
    origin: string,
    repository: string,
    rest: Pick<FillerOptions, 'budget' | 'elsewhere'>,
  ): Filler {
    const { codecs } = this.#parts
    const own = { repository, anonymous: false }
    const mark = (giver: Giver) => provenance.add(giver)
    const blobs: Blob[] = [] // each made when it is read for the first time: an image may have many
    return new Filler({
      chunks,
      blobs: (number) => {
        // the table lists those that its chunks name
        blobs[number] ??= new MarkedBlob(blobOf(chunks.blobs[number] as ChunkBlob), own, mark)
        return blobs[number]
      },
      slots,
      origin,
      ...rest,
      ...(this.#parts.isFilled ? { pace: new BackgroundPace() } : {}),
      decode: (chunk, stored, index, turn) => slots.fill(index, (slot) => codecs.decode(chunk, stored, slot, turn)),
      reverify: (chunk, index, turn) => slots.check(index, (slot) => codecs.verify(chunk, slot, turn)),
    })
  }
}

/**
 * A blob whose givers are written down before any byte of them is used. One that does not tell who it is is taken for `own`, and hands over
 * no parts.
 */
class MarkedBlob implements Blob {
  readonly digest: Digest
  readonly size: number
  readonly #blob: Blob
  readonly #own: Giver
  readonly #mark: (giver: Giver) => Promise<void>
  /** Who is written down: for as long as the tree is open it stays so. */
  #marked: Giver | undefined

  /** @param mark resolves when it is written down */
  constructor(blob: Blob, own: Giver, mark: (giver: Giver) => Promise<void>) {
    this.digest = blob.digest
    this.size = blob.size
    this.#blob = blob
    this.#own = own
    this.#mark = mark
  }

  async read(range: Range, options: ReadOptions = {}): Promise<Uint8Array> {
    let told = false
    const bytes = await this.#blob.read(range, {
      ...options,
      onPart: (part, at) => (told ? options.onPart?.(part, at) : undefined),
      onGiver: async (giver) => {
        await this.#add(giver)
        told = true
      },
    })
    if (!told) await this.#add(this.#own)
    return bytes
  }

  async #add(giver: Giver): Promise<void> {
    const marked = this.#marked
    if (marked?.repository === giver.repository && marked.anonymous === giver.anonymous) return
    await this.#mark(giver)
    this.#marked = giver
  }
}
