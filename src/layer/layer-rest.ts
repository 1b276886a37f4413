// The rest of one layer, while it is fetched in the background: what is missing of it, and who wants to know when nothing is.
import { once } from 'node:events'
import { StoredOrder } from '../fetch/order.ts'
import { Rest, type RestLimits, type RestRange } from '../fetch/rest.ts'
import type { Wire } from '../fetch/wire.ts'
import { BACKGROUND_WINDOW_BYTES } from '../image/blob.ts'
import { READY_MISSING, READY_VERIFIED } from '../tree/ready.ts'
import type { LayerLease } from './layer.ts'

/**
 * A request is a share of what is not asked for yet, so that small layers take a few and large ones no thousands; and so that of several
 * that are under way at a time, each of which brings a window in a round trip, none is left to come alone for long in the end …
 */
const RANGE_SHARE = 1 / 8
const RANGE_SHARES = 2
/** … but a round trip is to be little beside it, and it is in memory as far as it has come. */
const RANGE_MIN_BYTES = 1 << 20
const RANGE_MAX_BYTES = 4 << 20
/** What lies between files is in no chunk (headers, and what another file has as well), and comes with them: a pull has it, too. */
const GAP_MAX_BYTES = 64 << 10
/** What is here already comes once more only where it is as little as a request. */
const AGAIN_MAX_BYTES = 1 << 10

/** What fills a layer that is open. */
export type RestLayer = Pick<LayerLease, 'chunks' | 'close' | 'filler' | 'reverify' | 'slots'>

export class LayerRest {
  readonly #layer: RestLayer
  readonly #rest: Rest
  readonly #stop = new AbortController()
  #underWay = 0
  #left: number
  /** Of ranges that were given out, and neither came nor were given back. */
  #askedBytes = 0
  /** Ranges that failed, since the last one that came. */
  failures = 0

  private constructor(layer: RestLayer, open: Uint8Array) {
    const { chunks, slots } = layer
    this.#layer = layer
    this.#left = open.reduce((sum, each, chunk) => sum + each * storedBytes(chunks, chunk), 0)
    this.#rest = new Rest(open, {
      order: new StoredOrder(chunks),
      blobs: chunks.blobs.length,
      missing: (some) => {
        const states = slots.statesOf(some)
        return some.filter((_, i) => states[i] === READY_MISSING)
      },
    })
  }

  /** @param layer is closed when it ends @throws what the disk does */
  static async of(layer: RestLayer): Promise<LayerRest> {
    const states = await layer.slots.states()
    return new LayerRest(
      layer,
      states.map((state) => Number(state === READY_MISSING)),
    )
  }

  /** Stored bytes that are to come. */
  get left(): number {
    return this.#left
  }

  /** Whether nothing is under way; and, after `next` gave nothing, nothing is left. */
  get isQuiet(): boolean {
    return this.#underWay === 0
  }

  get isStopped(): boolean {
    return this.#stop.signal.aborted
  }

  /** Ends what is under way. */
  stop(): void {
    this.#stop.abort()
  }

  /** Somebody misses a chunk: what lies behind it comes next. */
  near(chunk: number): void {
    const { chunks } = this.#layer
    this.#rest.near(chunks.blobOf(chunk), chunks.storedRange(chunk).start)
  }

  /**
   * What is to be asked for next; undefined: nothing is left to ask for.
   * @throws what the disk does
   */
  next(wire: Pick<Wire, 'limit' | 'readMaxBytes'>): RestRange | undefined {
    const range = this.#rest.next(this.#limits(wire))
    this.#askedBytes += range?.bytes ?? 0
    return range
  }

  #limits({ limit, readMaxBytes }: Pick<Wire, 'limit' | 'readMaxBytes'>): RestLimits {
    const reads = limit / BACKGROUND_WINDOW_BYTES
    const share = (this.#left - this.#askedBytes) * Math.min(RANGE_SHARE, 1 / (RANGE_SHARES * reads))
    const runMinBytes = Math.max(BACKGROUND_WINDOW_BYTES, Math.min(RANGE_MIN_BYTES, RANGE_MAX_BYTES / reads))
    const runMaxBytes = Math.min(RANGE_MAX_BYTES, readMaxBytes, Math.max(runMinBytes, share))
    return { gapMaxBytes: GAP_MAX_BYTES, runMaxBytes, againMaxBytes: AGAIN_MAX_BYTES }
  }

  /** It is not asked for now, but first of all when something is. */
  giveBack({ chunks, bytes }: RestRange): void {
    this.#askedBytes -= bytes
    this.#rest.giveBack(chunks)
    const [first] = chunks
    if (first !== undefined) this.near(first)
  }

  /** Bytes that a range takes on the device. */
  sizeOf({ chunks }: RestRange): number {
    return chunks.reduce((sum, chunk) => sum + this.#layer.chunks.sizeOf(chunk), 0)
  }

  /** Fetches a range; what fails is left. @returns what it failed with first; undefined: all of it is here. Never rejects. */
  async fill({ chunks, bytes }: RestRange, signal: AbortSignal): Promise<unknown> {
    this.#underWay++
    const failed: number[] = []
    let first: unknown
    let left = chunks.length
    await new Promise<void>((resolve) => {
      const settled = (chunk: number, error?: unknown) => {
        first ??= error
        if (error === undefined) this.#left -= storedBytes(this.#layer.chunks, chunk)
        else failed.push(chunk)
        if (--left === 0) resolve()
      }
      this.#layer.filler.fillEach(chunks, 'background', settled, AbortSignal.any([signal, this.#stop.signal]))
    })
    this.#underWay--
    this.#askedBytes -= bytes
    this.failures = first === undefined ? 0 : this.failures + 1
    this.#rest.giveBack(failed)
    return first
  }

  /**
   * Verifies what an earlier life left, which may be gigabytes: whoever stops it, or aborts `signal`, does not wait for that.
   * @returns whether nothing is missing now, and all is verified. Never rejects.
   */
  async isComplete(signal: AbortSignal): Promise<boolean> {
    const over = AbortSignal.any([signal, this.#stop.signal])
    if (over.aborted) return false
    await Promise.race([this.#layer.reverify(), once(over, 'abort')]) // neither rejects
    if (over.aborted) return false
    const states = await this.#layer.slots.states().catch(() => new Uint8Array(1)) // a disk that does not give it back has nothing
    return states.every((state) => state === READY_VERIFIED)
  }

  close(): Promise<void> {
    return this.#layer.close()
  }
}

function storedBytes(chunks: Pick<LayerLease['chunks'], 'storedRange'>, chunk: number): number {
  const { start, end } = chunks.storedRange(chunk)
  return end - start
}
