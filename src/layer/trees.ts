// Trees that are open: one device each, however many layers build it; each of those can fill it.
import type { CodecPool } from '../codec/pool.ts'
import { Failure } from '../errors.ts'
import { Budget } from '../fetch/budget.ts'
import { Filler } from '../fetch/filler.ts'
import { NOTHING_ALONG } from '../fetch/pace.ts'
import type { Blob } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Device } from '../store/device.ts'
import type { Store } from '../store/store.ts'
import type { ChunkBlob, ChunkTable } from '../tree/chunk-table.ts'
import { type Lease, Leases, type Shared } from './leases.ts'
import { Reverification } from './reverification.ts'
import { TreeFiller } from './tree-filler.ts'

export interface TreeParts {
  store: Store
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
  slots: Device
  filler: TreeFiller
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
  readonly #fileBudget = new Budget()
  readonly #reverification = new Reverification()

  constructor(parts: TreeParts) {
    this.#parts = parts
    this.#open = new Leases(IDLE_MAX, parts.log)
  }

  /** Undefined when the image is not (or not intact) on disk. @throws what opening the device throws */
  async take(digest: Digest, chunks: ChunkTable): Promise<(OpenTree & Pick<Lease<unknown>, 'close'>) | undefined> {
    try {
      const { of, close } = await this.#open.take(digest, () => this.#begin(digest, chunks))
      return { ...(await of.ready), close }
    } catch (error) {
      if (error === NOT_INTACT) return undefined
      throw error
    }
  }

  /** One that asks a registry. @param origin those of one wait for one another */
  filler(chunks: ChunkTable, blobOf: BlobOf, slots: Device, origin: string): Filler {
    return this.#filler(chunks, blobOf, slots, this.#parts.budget, origin)
  }

  /** One that asks nobody. @param kind of file: those of one wait for one another */
  fileFiller(chunks: ChunkTable, blobOf: BlobOf, slots: Device, kind: string): Filler {
    return this.#filler(chunks, blobOf, slots, this.#fileBudget, kind)
  }

  /** Ends all that are open, whoever has them. */
  async close(): Promise<void> {
    await this.#open.close()
  }

  #begin(digest: Digest, chunks: ChunkTable): SharedTree {
    const ending = new AbortController()
    const ready = this.#openTree(digest, chunks, AbortSignal.any([this.#parts.signal, ending.signal]))
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

  async #openTree(digest: Digest, chunks: ChunkTable, signal: AbortSignal): Promise<OpenTree> {
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
    return { slots, filler, reverify }
  }

  #filler(chunks: ChunkTable, blobOf: BlobOf, slots: Device, budget: Budget, origin: string): Filler {
    const { codecs } = this.#parts
    const blobs: Blob[] = [] // each made when it is read for the first time: an image may have many
    return new Filler({
      chunks,
      blobs: (number) => {
        blobs[number] ??= blobOf(chunks.blobs[number] as ChunkBlob) // the table lists those that its chunks name
        return blobs[number]
      },
      slots,
      budget,
      origin,
      ...(this.#parts.isFilled ? { pace: NOTHING_ALONG } : {}),
      decode: (chunk, stored, index, turn) => slots.fill(index, (slot) => codecs.decode(chunk, stored, slot, turn)),
      reverify: (chunk, index, turn) => slots.check(index, (slot) => codecs.verify(chunk, slot, turn)),
    })
  }
}
