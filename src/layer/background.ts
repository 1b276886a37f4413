// The rest of an image, fetched when a program has begun to read it: first of the layer that a program missed something of last, then of
// the others in the order in which their images were read, and of an image the lowest first. A lane an origin (lane.ts).
//
//   missed ──▶ wanted, with all layers of its image ──▶ filled, a range at a time ──▶ complete
import { describe, Failure } from '../errors.ts'
import type { Wires } from '../fetch/wire.ts'
import type { Digest } from '../image/digest.ts'
import { Lane, type LaneParts } from './lane.ts'
import type { LayerLease } from './layer.ts'
import { LayerRest, type RestLayer } from './layer-rest.ts'

/** A layer of an image that is shown. */
export interface BackgroundLayer {
  /** Open until it is let go of. */
  readonly layer: Pick<LayerLease, 'tree'> & RestLayer & { again(): RestLayer }
  /** What its image is known by: when one of its layers is read, all of them are wanted. */
  readonly image: string
  readonly origin: string
  /** Is told when all of it is here and verified. */
  complete(): void
}

export interface BackgroundParts extends Pick<LaneParts, 'hasRoom' | 'pause' | 'log'> {
  /** The registries' ways. */
  wires: Pick<Wires, 'of'>
}

/** The layers of an image that are shown. */
interface ShownImage {
  readonly layers: Set<ShownLayer>
  isRead: boolean
}

interface ShownLayer {
  readonly of: BackgroundLayer
  /** Whether it is to be filled, is being, or was. */
  isWanted: boolean
  /** The chunk that a program missed last. */
  missed: number | undefined
}

/** A tree that is being filled, for whoever shows it. */
interface Filling {
  readonly tree: Digest
  readonly lane: Lane
  readonly for: Set<ShownLayer>
}

export class Background {
  readonly #parts: BackgroundParts
  readonly #images = new Map<string, ShownImage>()
  readonly #lanes = new Map<string, Lane>()
  readonly #fillings = new Map<LayerRest, Filling>()
  readonly #beginning = new Set<Promise<void>>()
  readonly #closing = new AbortController()
  #came = 0

  constructor(parts: BackgroundParts) {
    this.#parts = parts
  }

  /** Layers that are being filled, their stored bytes that are to come, and those that came since the start. */
  get progress(): { layers: number; left: number; came: number } {
    const left = [...this.#fillings.keys()].reduce((sum, rest) => sum + rest.left, 0)
    return { layers: this.#fillings.size, left, came: this.#came }
  }

  /** Fills a layer when a program misses something of it, or of another one of its image. @returns what lets go of it */
  add(of: BackgroundLayer): () => void {
    const image = this.#images.get(of.image) ?? { layers: new Set(), isRead: false }
    this.#images.set(of.image, image)
    const shown: ShownLayer = { of, isWanted: false, missed: undefined }
    image.layers.add(shown)
    const unwatch = of.layer.filler.watch((chunk) => this.#missed(image, shown, chunk))
    if (image.isRead) this.#want(shown)
    return () => {
      unwatch()
      image.layers.delete(shown)
      if (image.layers.size === 0) this.#images.delete(of.image)
      const [rest, filling] = this.#fillingOf(shown) ?? []
      filling?.for.delete(shown)
      if (rest !== undefined && filling?.for.size === 0) filling.lane.stop(rest)
    }
  }

  /** Fills what was added of an image, and what will be. */
  want(image: string): void {
    const found = this.#images.get(image)
    if (found === undefined) return
    found.isRead = true
    for (const each of found.layers) this.#want(each)
  }

  /** Ends it; resolves when nothing of it is under way. */
  async close(): Promise<void> {
    this.#closing.abort(Failure.aborted('the agent is stopping'))
    await Promise.all(this.#beginning)
    await Promise.all([...this.#lanes.values()].map((each) => each.close()))
  }

  #missed(image: ShownImage, shown: ShownLayer, chunk: number): void {
    shown.missed = chunk
    this.#want(shown)
    if (!image.isRead) this.want(shown.of.image)
    const [rest, filling] = this.#fillingOf(shown) ?? []
    rest?.near(chunk)
    if (rest !== undefined) filling?.lane.first(rest)
  }

  #fillingOf(shown: ShownLayer): [LayerRest, Filling] | undefined {
    return [...this.#fillings].find(([, each]) => each.for.has(shown))
  }

  #want(shown: ShownLayer): void {
    if (shown.isWanted || this.#closing.signal.aborted) return
    shown.isWanted = true
    const beginning: Promise<void> = this.#begin(shown)
      .catch((error) => this.#parts.log(`a layer is not fetched in the background: ${describe(error)}`))
      .finally(() => this.#beginning.delete(beginning))
    this.#beginning.add(beginning)
  }

  async #begin(shown: ShownLayer): Promise<void> {
    const { layer, image, origin } = shown.of
    const same = [...this.#fillings.values()].find(({ tree }) => tree === layer.tree)
    if (same !== undefined) return void same.for.add(shown)
    const lease = layer.again()
    try {
      const rest = await LayerRest.of(lease)
      if (shown.missed !== undefined) rest.near(shown.missed)
      const lane = this.#laneOf(origin)
      this.#fillings.set(rest, { tree: layer.tree, lane, for: new Set([shown]) })
      if (!this.#images.get(image)?.layers.has(shown)) rest.stop() // it was let go of meanwhile
      lane.add(rest)
      if (shown.missed !== undefined) lane.first(rest)
    } catch (error) {
      await lease.close()
      throw error
    }
  }

  #laneOf(origin: string): Lane {
    const found = this.#lanes.get(origin)
    if (found !== undefined) return found
    const { wires, ...parts } = this.#parts
    const lane = new Lane({
      ...parts,
      wire: () => wires.of(origin),
      ended: (rest) => this.#ended(rest),
      came: (bytes) => {
        this.#came += bytes
      },
      signal: this.#closing.signal,
    })
    this.#lanes.set(origin, lane)
    return lane
  }

  async #ended(rest: LayerRest): Promise<void> {
    const filling = this.#fillings.get(rest)
    const isComplete = await rest.isComplete(this.#closing.signal)
    this.#fillings.delete(rest)
    for (const shown of filling?.for ?? []) {
      if (isComplete) shown.of.complete()
      else shown.isWanted = false // whoever misses something of it has it tried again
    }
    await rest.close()
  }
}
