// What is fetched of one origin in the background: one range after the other, as the wire takes them, of whichever layer is first.
import { describe } from '../errors.ts'
import type { RestRange } from '../fetch/rest.ts'
import type { Wire } from '../fetch/wire.ts'
import type { LayerRest } from './layer-rest.ts'

/** What failed is tried again after that long, then after twice as long each time. */
const AGAIN_MIN_MS = 5_000
const AGAIN_MAX_MS = 600_000
/** In a row, of one layer: then it is left as it is. */
const FAILURES_MAX = 8

export interface LaneParts {
  /** To the origin. */
  wire(): Pick<Wire, 'place' | 'limit' | 'readMaxBytes'>
  /** Whether the cache takes so many more bytes without letting go of any. */
  hasRoom(bytes: number): boolean
  /** Waits. @throws when `signal` aborts */
  pause(ms: number, signal: AbortSignal): Promise<unknown>
  /** Of a layer nothing is left to do: all of it was asked for, it failed too often, or it was stopped. Must not reject. */
  ended(rest: LayerRest): Promise<void>
  /** Of so many bytes what was asked for is here. */
  came(bytes: number): void
  log(message: string): void
  signal: AbortSignal
}

export class Lane {
  readonly #parts: LaneParts
  /** The one that goes first comes first. */
  #rests: readonly LayerRest[] = []
  readonly #underWay = new Set<Promise<void>>()
  #running: Promise<void> | undefined
  #againMs = AGAIN_MIN_MS
  #hasFailed = false
  /** Ends the pause after a failure. */
  #goOn = new AbortController()

  constructor(parts: LaneParts) {
    this.#parts = parts
  }

  get rests(): readonly LayerRest[] {
    return this.#rests
  }

  /** Fills one, behind those that are there. */
  add(rest: LayerRest): void {
    this.#rests = [...this.#rests, rest]
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined
    })
  }

  /** One of them goes before the others; nothing, where it has ended. */
  first(rest: LayerRest): void {
    if (this.#rests[0] !== rest && this.#rests.includes(rest))
      this.#rests = [rest, ...this.#rests.filter((each) => each !== rest)]
  }

  /** Lets go of one: what holds it waits neither for the others nor for a pause. */
  stop(rest: LayerRest): void {
    rest.stop()
    this.#goOn.abort()
  }

  /** When nothing is under way. */
  async close(): Promise<void> {
    await this.#running
  }

  /** Until there is nothing left to fill. Never rejects. */
  async #run(): Promise<void> {
    const { signal, log } = this.#parts
    while (this.#rests.length > 0 && !signal.aborted) {
      try {
        await this.#step()
      } catch (error) {
        if (signal.aborted) break
        log(`nothing is fetched in the background for a while: ${describe(error)}`)
        this.#hasFailed = true
      }
      if (this.#hasFailed) await this.#rest()
    }
    await Promise.all(this.#underWay)
    const left = this.#rests
    this.#rests = []
    for (const each of left) await this.#parts.ended(each)
  }

  /** Ends what was stopped, or begins the next request, or waits for one to end. @throws what the disk does; the signal's reason */
  async #step(): Promise<void> {
    const { wire, signal } = this.#parts
    const stopped = this.#rests.find((each) => each.isStopped && each.isQuiet)
    if (stopped !== undefined) return await this.#end(stopped)
    const place = await wire().place(signal)
    const begun = this.#hasFailed ? undefined : this.#begin()
    const ended = begun === undefined ? this.#rests.find((each) => each.isQuiet) : undefined
    if (begun === undefined) {
      place.leave()
      if (this.#hasFailed) return
      if (ended === undefined) await Promise.race(this.#underWay)
      else await this.#end(ended)
      return
    }
    const filling: Promise<void> = begun.finally(() => {
      place.leave()
      this.#underWay.delete(filling)
    })
    this.#underWay.add(filling)
  }

  /** Begins the next request; undefined: there is none to begin now. @throws what the disk does */
  #begin(): Promise<void> | undefined {
    for (const rest of this.#rests) {
      const range = rest.isStopped || rest.failures >= FAILURES_MAX ? undefined : rest.next(this.#parts.wire())
      if (range === undefined) continue
      if (this.#parts.hasRoom(rest.sizeOf(range))) return this.#fill(rest, range)
      rest.giveBack(range)
      this.#hasFailed = true
      return undefined
    }
    return undefined
  }

  async #fill(rest: LayerRest, range: RestRange): Promise<void> {
    const error = await rest.fill(range, this.#parts.signal)
    if (error !== undefined) {
      this.#hasFailed ||= !rest.isStopped
      return
    }
    this.#againMs = AGAIN_MIN_MS
    this.#parts.came(range.bytes)
  }

  async #end(rest: LayerRest): Promise<void> {
    this.#rests = this.#rests.filter((each) => each !== rest)
    await this.#parts.ended(rest)
  }

  async #rest(): Promise<void> {
    const { pause, signal } = this.#parts
    this.#goOn = new AbortController()
    await pause(this.#againMs, AbortSignal.any([signal, this.#goOn.signal])).catch(() => {}) // then it is over
    this.#againMs = Math.min(this.#againMs * 2, AGAIN_MAX_MS)
    this.#hasFailed = false
  }
}
