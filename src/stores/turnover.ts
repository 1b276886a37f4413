// Has the list turn over: when it is nearly full, what no engine refers to goes out of it, the longest ago asked for first.
//
// An engine keeps nothing of a layer but its name, and fails without it. It looks into the list, and writes down what it took a moment
// later, so what went is looked for once more: what is referred to by then comes back. What was asked for lately stays anyway: a pull,
// or a pod that waits for its volumes, may be in no root yet.
import { describe } from '../errors.ts'
import { mapLimited } from '../limit.ts'
import { type Forgettable, hasAny, type ShownImage, unusedImages } from './forget.ts'
import type { Listings } from './image-chain.ts'
import type { ImageIds } from './image-ids.ts'
import type { LayerList } from './layer-list.ts'
import type { LayerOwners } from './layer-owners.ts'

export interface TurnoverParts {
  listings: Pick<Listings, 'forget'>
  /**
   * Those of these layers that engines refer to, with all below them; undefined when that cannot be known, which is logged.
   * @throws Failure aborted
   */
  inUse(
    layers: readonly { id: string; parent: string | undefined }[],
    signal: AbortSignal,
  ): Promise<Set<string> | undefined>
  /** Waits. @throws when `signal` aborts */
  pause(ms: number, signal: AbortSignal): Promise<unknown>
  /** Milliseconds of a clock that only goes forward. */
  now(): number
  log(message: string): void
}

/** What turns over. */
export interface Turning {
  /** By what is kept of them. */
  images: Map<string, ShownImage>
  ids: ImageIds
  owners: LayerOwners
  list: LayerList
  /** Told when owners were dropped. */
  dropped(): void
}

/** Of the layers that may be listed. From here on it is time to forget what nobody uses. */
const MANY = 0.8
/** So many may stay: each version of the list, and each look into all roots of engines, is for many layers at once. */
const KEPT = 0.6
/** From here on also what was asked for today goes: a machine that builds and tests images lists some hundred an hour. */
const PRESSING = 0.95
const RECENT_MS = 24 * 3_600_000
const RECENT_PRESSED_MS = 3_600_000
/** An engine has written down what it took long before; on a busy machine it may be slow. */
const SETTLE_MS = 10_000
/** A look into all roots of engines takes a processor some seconds. */
const AGAIN_MS = 5 * 60_000
/** Also where nothing is listed any more: what is recent today is not tomorrow. */
const SLOW_MS = 3_600_000
/** Each costs the disk two writes that it must finish. */
const RECORDS_AT_ONCE = 8
/** Whoever stops the agent waits for that, systemd for 30 s. */
const END_MS = 10_000

export class Turnover {
  readonly #parts: TurnoverParts
  readonly #turning: Turning
  readonly #closing = new AbortController()
  #running: Promise<void> | undefined
  #told = ''
  #notBefore = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout

  constructor(parts: TurnoverParts, turning: Turning) {
    this.#parts = parts
    this.#turning = turning
    // not at the start, when what engines keep their roots on may not be mounted yet
    this.#timer = setTimeout(() => this.check(), SLOW_MS).unref()
  }

  /** Something was listed, or could not be for want of room: it is time to forget, or not yet. */
  check(): void {
    if (this.#closing.signal.aborted) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.check(), SLOW_MS).unref()
    if (this.#isOver(MANY) && this.#parts.now() >= this.#notBefore) this.#running ??= this.#run()
  }

  /** When many are listed, those that no engine uses are not listed by the next process. For when nothing is shown any more. */
  async end(): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#timer)
    await this.#running
    if (!this.#isOver(MANY)) return
    try {
      const used = await this.#inUse(AbortSignal.timeout(END_MS))
      if (used === undefined) return
      const unused = unusedImages(this.#turning.images.values(), used, {
        askedBefore: Date.now() - RECENT_MS,
        layers: Number.POSITIVE_INFINITY,
      })
      for (const { image } of unused) await this.#parts.listings.forget(image)
      if (unused.length > 0) this.#parts.log(`${unused.length} images that no engine uses will not be listed again`)
    } catch (error) {
      this.#failed(error)
    }
  }

  async #run(): Promise<void> {
    try {
      await this.#turn(this.#closing.signal)
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#failed(error)
    } finally {
      this.#running = undefined
      this.#notBefore = this.#parts.now() + AGAIN_MS
    }
  }

  #failed(error: unknown): undefined {
    this.#parts.log(`images that no engine uses cannot be forgotten: ${describe(error)}`)
  }

  async #turn(signal: AbortSignal): Promise<void> {
    const { images, list } = this.#turning
    const used = await this.#inUse(signal)
    if (used === undefined) return
    const unused = unusedImages(images.values(), used, this.#forgettable())
    const stay = new Set(images.values())
    for (const each of unused) stay.delete(each)
    const gone = this.#without(stay, used)
    await list.remove(gone.keys())
    await this.#parts.pause(SETTLE_MS, signal)
    // whoever saw them before may have taken them into use since
    const usedSince = await this.#inUse(signal).catch((error) => this.#failed(error))
    const taken = usedSince?.difference(used)
    const forgotten = taken === undefined ? [] : unused.filter((each) => !hasAny(each, taken))
    const keys = this.#forget(forgotten)
    await this.#settle(gone, usedSince)
    this.#tell(forgotten.length)
    // last, because a disk may be slow; until then the next process lists them again
    await mapLimited([...keys], RECORDS_AT_ONCE, async ([key, { image }]) => {
      if (images.has(key)) return // it was listed again
      await this.#parts.listings.forget(image).catch((error) => this.#failed(error))
    })
  }

  /** That it is full is said once, as long as nothing changes. */
  #tell(forgotten: number): void {
    const isFull = this.#isOver(PRESSING)
    const full = isFull ? ': until engines use fewer, more are left to them' : ''
    const message = `${forgotten} images that no engine uses are listed no more, ${this.#turning.owners.size} layers are${full}`
    if (forgotten > 0 || (isFull && message !== this.#told)) this.#parts.log(message)
    this.#told = message
  }

  /** What of the list turns over now. */
  #forgettable(): Forgettable {
    const { size, max } = this.#turning.owners
    const recentMs = this.#isOver(PRESSING) ? RECENT_PRESSED_MS : RECENT_MS
    return { askedBefore: Date.now() - recentMs, layers: size - max * KEPT }
  }

  #isOver(share: number): boolean {
    const { size, max } = this.#turning.owners
    return size > max * share
  }

  #inUse(signal: AbortSignal): Promise<Set<string> | undefined> {
    const layers = this.#turning.owners.links().map(({ id, parent }) => ({ id, parent }))
    return this.#parts.inUse(layers, signal)
  }

  /** The listed layers that neither these images have nor an engine uses, nor anybody is about to list. */
  #without(images: Iterable<ShownImage>, used: ReadonlySet<string>): ReturnType<LayerOwners['settled']> {
    const needed = new Set(used)
    for (const { ids, blobIds } of images) for (const id of [...ids, ...blobIds]) needed.add(id)
    return this.#turning.owners.settled((id) => !needed.has(id))
  }

  /** @returns those that were not listed again meanwhile, by their keys */
  #forget(forgotten: readonly ShownImage[]): Map<string, ShownImage> {
    const { images, ids } = this.#turning
    const going = new Set(forgotten)
    const gone = new Map([...images].filter(([, each]) => going.has(each)))
    for (const key of gone.keys()) images.delete(key)
    const idOf = ({ config, known }: ShownImage) => JSON.stringify([config, known])
    const stay = new Set([...images.values()].map(idOf))
    for (const each of gone.values()) if (!stay.has(idOf(each))) ids.release(each.config, each.known)
    return gone
  }

  /** What went and is needed by now is listed again; of the rest nothing is left. */
  async #settle(gone: ReturnType<LayerOwners['settled']>, used: ReadonlySet<string> | undefined): Promise<void> {
    const { images, owners, list } = this.#turning
    const needed = new Set(used ?? gone.keys())
    for (const { ids, blobIds } of images.values()) for (const id of [...ids, ...blobIds]) needed.add(id)
    await list.write([...gone.keys()].filter((id) => needed.has(id)))
    for (const [id, owner] of gone) if (!needed.has(id)) owners.drop(id, owner)
    this.#turning.dropped()
  }
}
