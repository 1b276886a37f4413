// Fills a layer's chunks: checks what is there, joins what is under way, asks for the rest in few requests, decodes.
// It does no I/O of its own: reading, decoding and checking are given to it. One per device of a process.

import { Failure } from '../errors.ts'
import type { Blob, Priority, Range } from '../image/blob.ts'
import type { Chunk } from '../tree/chunk.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { Budget } from './budget.ts'
import { Checks, type Verdict } from './checks.ts'
import { type FillerCounters, noCounters } from './counters.ts'
import { fillAll } from './fill-all.ts'
import { type Flight, newFlight, type Request, type Settled, type Waiter } from './flight.ts'
import { inLanes } from './lanes.ts'
import { LIMITS, type Limits } from './limits.ts'
import { Nearby } from './nearby.ts'
import { StoredOrder } from './order.ts'
import { type LinkPace, Pace } from './pace.ts'
import { Plan } from './plan.ts'
import { type Run, runs } from './runs.ts'

/** States of a chunk, as the ready file has them; any other value: nothing is there. */
export const VERIFIED = 1
export const STORED = 2

/** Chunks of one request decoded at once: what keeps the workers busy. Those that wait cost nothing. */
const DECODES_MAX: Readonly<Record<Priority, number>> = { demand: 64, prefetch: 32 }
/** Chunks of one request fetched again: a bit flips here and there; a blob that is wrong altogether does not heal by asking. */
const RETRIES_MAX = 8

/** Whom work on a chunk is for. */
export interface Turn {
  priority: Priority
  /** Whoever has not begun it need not do so any more. */
  signal: AbortSignal
  /** Takes what is to be called when somebody begins to wait for it. */
  onUrgent(call: () => void): void
}

export interface FillerOptions {
  chunks: ChunkTable
  blobs: (blob: number) => Blob
  slots: {
    state(chunk: number): number
    /** The same of each, in one read. */
    statesOf(chunks: readonly number[]): readonly number[]
  }
  /** Decodes, verifies, writes, and sets the chunk's state to VERIFIED. `stored` is the chunk's stored range. */
  decode: (chunk: Chunk, stored: Uint8Array, index: number, turn: Turn) => Promise<void>
  /** Reads a STORED chunk back; right: its state is VERIFIED now. @throws what keeps it from being told */
  reverify: (chunk: Chunk, index: number, turn: Turn) => Promise<Verdict>
  /** Shared by all fillers of the process. */
  budget: Budget
  /** Who is asked: within the budget, fillers wait only for those of the same origin. */
  origin: string
  limits?: Limits
  /** Default: one that measures. */
  pace?: LinkPace
}

export class Filler {
  readonly #options: FillerOptions
  readonly #limits: Limits
  readonly #plan: Plan
  readonly #pace: LinkPace
  readonly #nearby: Nearby
  /** Ends what comes along, which nobody waits for. */
  readonly #closing = new AbortController()
  /** One a chunk: whoever wants it joins it. */
  readonly #flights = new Map<number, Flight>()
  /** What was queued since the last turn of the event loop, to be joined into requests. */
  readonly #batch: Readonly<Record<Priority, Set<Flight>>> = { demand: new Set(), prefetch: new Set() }
  #flushing = false
  readonly #checks: Checks
  readonly #requests = new Set<Request>()
  readonly #work = new Set<Promise<void>>()
  #closed = false
  readonly #counters = noCounters()

  constructor(options: FillerOptions) {
    this.#options = options
    this.#limits = options.limits ?? LIMITS
    this.#pace = options.pace ?? new Pace()
    const order = new StoredOrder(options.chunks)
    this.#plan = new Plan(order, this.#limits.demand)
    this.#nearby = new Nearby(order, this.#pace, options.budget.shelf)
    this.#checks = new Checks({
      verify: (flight) => {
        const { chunk } = flight
        return options.reverify(options.chunks.get(chunk), chunk, this.#turn(flight, this.#closing.signal))
      },
      track: (check) => this.#track(check),
      checked: (flight, verdict) => this.#checked(flight, verdict),
      failed: (flight, error) => this.#fail(flight, error),
    })
  }

  get counters(): Readonly<FillerCounters> {
    return this.#counters
  }

  /**
   * Resolves when all of them are VERIFIED. When some fail it waits for the others and throws the first error.
   * @throws Failure what reading or decoding throws; aborted when `signal` or close ended it
   */
  fill(wanted: Iterable<number>, priority: Priority, signal?: AbortSignal): Promise<void> {
    return fillAll(this, wanted, priority, signal)
  }

  /**
   * Calls `settled` once for each distinct chunk: without error when it is VERIFIED, perhaps before this returns. A failure is
   * not remembered: the next fill tries again. After `signal` nobody waits for what is left; what nobody waits for is not fetched.
   */
  fillEach(wanted: Iterable<number>, priority: Priority, settled: Settled, signal?: AbortSignal): void {
    const abort = () => this.#withdraw(waiter)
    const waiter: Waiter = { pending: new Set(), settled, done: () => signal?.removeEventListener('abort', abort) }
    const chunks = [...new Set(wanted)]
    const states = this.#statesOf(chunks)
    for (const [i, chunk] of chunks.entries()) {
      if (this.#closed || signal?.aborted) settled(chunk, aborted(chunk))
      else this.#want(chunk, states?.[i], priority, waiter)
    }
    if (waiter.pending.size > 0) signal?.addEventListener('abort', abort, { once: true })
  }

  /**
   * Fails all that is wanted, stops all requests, and resolves when nothing is being decoded or checked any more, so that the
   * device may be closed.
   */
  async close(): Promise<void> {
    this.#closed = true
    for (const request of this.#requests) request.controller.abort()
    this.#closing.abort()
    this.#nearby.close()
    for (const flight of [...this.#flights.values()]) this.#fail(flight, aborted(flight.chunk))
    this.#checks.close()
    this.#batch.demand.clear()
    this.#batch.prefetch.clear()
    await Promise.all(this.#work)
  }

  /** Of each of them; undefined: of one at least the disk does not tell. */
  #statesOf(chunks: readonly number[]): readonly number[] | undefined {
    try {
      return this.#options.slots.statesOf(chunks)
    } catch {
      return undefined
    }
  }

  /** @param known its state, if it was read just now */
  #want(chunk: number, known: number | undefined, priority: Priority, waiter: Waiter): void {
    let state: number
    try {
      state = known ?? this.#options.slots.state(chunk)
    } catch (error) {
      waiter.settled(chunk, reasonOf(error)) // the disk does not tell: whoever reads this one fails, nobody else
      return
    }
    if (state === VERIFIED) {
      waiter.settled(chunk)
      return
    }
    waiter.pending.add(chunk)
    const under = this.#flights.get(chunk)
    if (under !== undefined) {
      this.#counters.joined++
      under.waiters.add(waiter)
      if (priority === 'demand') this.#promote(under)
      return
    }
    const flight = this.#begin(chunk, priority)
    flight.waiters.add(waiter)
    if (state === STORED) this.#checks.add(flight)
    else this.#enqueue(flight)
  }

  #begin(chunk: number, priority: Priority): Flight {
    const flight = newFlight(chunk, priority)
    this.#flights.set(chunk, flight)
    return flight
  }

  /** Whom work on a flight is for. */
  #turn(flight: Flight, signal: AbortSignal): Turn {
    flight.urgent = undefined
    const onUrgent = (call: () => void) => {
      flight.urgent = call
    }
    return { priority: flight.priority, signal, onUrgent }
  }

  /** Somebody waits now: what has not begun goes in front, what is under way is decoded first. */
  #promote(flight: Flight): void {
    if (flight.priority === 'demand') return
    flight.priority = 'demand'
    if (flight.stage === 'unchecked') {
      this.#checks.delete(flight)
      this.#checks.add(flight)
    } else if (flight.stage === 'queued' && flight.request?.priority !== 'demand') {
      this.#leave(flight)
      this.#enqueue(flight)
    } else if (flight.stage === 'fetching') {
      flight.request?.urgent.push(flight)
    } else {
      flight.urgent?.()
    }
  }

  /** Takes a flight out of whatever it waits in. */
  #leave(flight: Flight): void {
    this.#checks.delete(flight)
    this.#batch.demand.delete(flight)
    this.#batch.prefetch.delete(flight)
    flight.request?.flights.delete(flight)
    if (flight.request?.flights.size === 0) flight.request.controller.abort()
    flight.request = undefined
  }

  #withdraw(waiter: Waiter): void {
    const touched = new Set<Request>()
    for (const chunk of [...waiter.pending]) {
      const flight = this.#flights.get(chunk)
      flight?.waiters.delete(waiter)
      if (flight?.waiters.size === 0) {
        if (flight.stage === 'unchecked' || flight.stage === 'queued') this.#drop(flight)
        else if (flight.request !== undefined) touched.add(flight.request)
      }
      waiter.pending.delete(chunk)
      waiter.settled(chunk, aborted(chunk))
    }
    for (const request of touched) {
      const flights = [...request.flights]
      if (flights.some((each) => each.waiters.size > 0)) continue
      request.controller.abort()
      // what a worker decodes cannot be stopped, and must not be begun twice: it ends by itself
      for (const each of flights) if (each.stage === 'fetching') this.#drop(each)
    }
  }

  #drop(flight: Flight): void {
    this.#leave(flight)
    this.#flights.delete(flight.chunk)
  }

  /** False once it was settled or dropped: those whom it told may have done so to others of the same request. */
  #flies(flight: Flight): boolean {
    return this.#flights.get(flight.chunk) === flight
  }

  /** It is verified: it was here, or somebody else brought it. */
  #settle(flight: Flight): void {
    this.#end(flight, undefined, false)
  }

  #fail(flight: Flight, error: unknown): void {
    this.#end(flight, reasonOf(error), false)
  }

  #end(flight: Flight, error: Error | undefined, brought: boolean): void {
    if (!this.#flies(flight)) return
    flight.request?.flights.delete(flight)
    this.#flights.delete(flight.chunk)
    for (const waiter of flight.waiters) {
      waiter.pending.delete(flight.chunk)
      if (waiter.pending.size === 0) waiter.done()
      waiter.settled(flight.chunk, error, brought)
    }
    flight.waiters.clear()
  }

  /** Runs to the end whatever happens; close waits for it. `work` handles its own errors: one that escapes is a bug, and shows. */
  #track(work: Promise<void>): void {
    this.#work.add(work)
    void work.finally(() => this.#work.delete(work))
  }

  #checked(flight: Flight, verdict: Verdict): void {
    if (verdict === 'right') {
      this.#counters.reverified++
      this.#settle(flight)
      return
    }
    if (verdict === 'damaged') {
      this.#counters.damaged++
      flight.damaged = true
    }
    if (flight.waiters.size === 0) this.#drop(flight)
    else this.#enqueue(flight)
  }

  #enqueue(flight: Flight): void {
    flight.stage = 'queued'
    flight.request = undefined
    this.#batch[flight.priority].add(flight)
    if (this.#flushing) return
    this.#flushing = true
    // all that this turn of the event loop asks for is joined
    setImmediate(() => {
      this.#flushing = false
      if (!this.#closed) this.#flush()
    })
  }

  #flush(): void {
    for (const priority of ['demand', 'prefetch'] as const) {
      const flights = [...this.#batch[priority]].filter((each) => !this.#isNearby(each))
      this.#batch[priority].clear()
      const joined = this.#runs(
        flights.filter((each) => !each.alone),
        priority,
      )
      // prefetch in the order in which the image wants its files
      if (priority === 'prefetch') joined.sort((a, b) => lowest(a) - lowest(b))
      const single = flights.filter((each) => each.alone).flatMap((each) => this.#runs([each], priority))
      for (const run of single) this.#launch(run, priority)
      for (const run of joined) {
        const alone = priority === 'demand' && !this.#widen(run)
        this.#launch(run, priority)
        if (alone) this.#bring(this.#nearby.besideMiss(run.blob, run.range, (chunk) => this.#isAbsent(chunk)))
      }
    }
  }

  /** Whether a chunk came along with another's, or is about to: then it needs no request. */
  #isNearby(flight: Flight): boolean {
    if (flight.alone) return false // what was here is wrong
    const { chunk } = flight
    const coming = this.#nearby.coming(chunk)
    const blob = this.#options.chunks.blobOf(chunk)
    const range = this.#options.chunks.storedRange(chunk)
    const bringBeside = () => {
      if (flight.priority === 'demand') this.#bring(this.#nearby.besideHit(blob, range, (each) => this.#isAbsent(each)))
    }
    if (coming !== undefined) {
      bringBeside()
      this.#track(
        coming.then(() => {
          // somebody else may have begun it, or nobody wants it any more
          if (this.#flies(flight) && flight.stage === 'queued' && flight.request === undefined) this.#enqueue(flight)
        }),
      )
      return true
    }
    const stored = this.#nearby.take(chunk, range)
    if (stored === undefined) return false
    this.#counters.nearbyHits++
    const request = this.#request({ blob, range, chunks: [chunk] }, flight.priority)
    this.#track(this.#decode(flight, request, stored).finally(() => this.#requests.delete(request)))
    bringBeside()
    return true
  }

  /** Fetches what nobody waits for. */
  #bring(beside: readonly Run[]): void {
    for (const run of beside) {
      this.#counters.nearbyBytes += run.range.end - run.range.start
      this.#track(this.#nearby.keep(run, this.#readBlob(run.blob, run.range, 'prefetch', this.#closing.signal)))
    }
  }

  #runs(flights: Iterable<Flight>, priority: Priority): Run[] {
    const { chunks } = this.#options
    const wanted = Array.from(flights, ({ chunk }) => ({
      index: chunk,
      blob: chunks.blobOf(chunk),
      stored: chunks.storedRange(chunk),
    }))
    return runs(wanted, this.#limits[priority])
  }

  /** @returns whether anything comes along */
  #widen(run: Run): boolean {
    const { chunks } = this.#options
    const missed = run.chunks.length
    for (const chunk of this.#plan.ahead(run.blob, run.range, (chunk) => this.#isAbsent(chunk))) {
      this.#begin(chunk, 'prefetch') // nobody waits for it: it comes along, and if it fails nobody is told
      run.chunks.push(chunk)
      run.range.end = Math.max(run.range.end, chunks.storedRange(chunk).end)
    }
    return run.chunks.length > missed
  }

  /** Neither here nor under way to somebody who waits. */
  #isAbsent(chunk: number): boolean {
    if (this.#flights.has(chunk)) return false
    try {
      const state = this.#options.slots.state(chunk)
      return state !== VERIFIED && state !== STORED
    } catch {
      return false // the disk does not tell: whoever reads it is told
    }
  }

  #launch(run: Run, priority: Priority): void {
    const request = this.#request(run, priority)
    this.#track(this.#carry(request).finally(() => this.#requests.delete(request)))
  }

  #request(run: Run, priority: Priority): Request {
    const flights = run.chunks.map((chunk) => this.#flights.get(chunk)).filter((each) => each !== undefined)
    const request: Request = {
      blob: run.blob,
      range: run.range,
      priority,
      flights: new Set(flights),
      urgent: [],
      controller: new AbortController(),
      retries: 0,
    }
    for (const flight of flights) flight.request = request
    this.#requests.add(request)
    return request
  }

  async #carry(request: Request): Promise<void> {
    const { signal } = request.controller
    const { budget, origin } = this.#options
    let release: () => void
    try {
      release = await budget.acquire(origin, length(request), request.priority, signal)
    } catch (error) {
      // only whoever took all flights out of it aborts a request that waits
      for (const flight of [...request.flights]) this.#fail(flight, error)
      return
    }
    try {
      if (!signal.aborted) this.#regroup(request)
      if (request.flights.size === 0 || signal.aborted) return
      const stored = await this.#read(request)
      if (stored === undefined) return
      const width = DECODES_MAX[request.priority]
      await inLanes(request.flights, request.urgent, width, signal, (flight) => this.#decode(flight, request, stored))
    } finally {
      release()
    }
  }

  /** While it waited, chunks were filled by another process or taken out by demand; what is left may be several runs now. */
  #regroup(request: Request): void {
    const waited = [...request.flights]
    const states = this.#statesOf(waited.map(({ chunk }) => chunk))
    for (const [i, flight] of waited.entries()) {
      let state: number
      try {
        state = states?.[i] ?? this.#options.slots.state(flight.chunk)
      } catch (error) {
        this.#fail(flight, error)
        continue
      }
      if (state === VERIFIED) this.#settle(flight)
    }
    const flights = [...request.flights]
    if (flights.every((each) => each.waiters.size === 0)) {
      for (const flight of flights) this.#drop(flight) // they came along with one that is not wanted any more
      return
    }
    const [first, ...others] = this.#runs(flights, request.priority)
    if (first === undefined) return
    request.range = first.range
    for (const run of others) {
      for (const chunk of run.chunks) {
        const flight = this.#flights.get(chunk)
        if (flight !== undefined) request.flights.delete(flight)
      }
      this.#launch(run, request.priority)
    }
    for (const flight of request.flights) flight.stage = 'fetching'
  }

  async #read(request: Request): Promise<Uint8Array | undefined> {
    const { signal } = request.controller
    try {
      const stored = await this.#readBlob(request.blob, request.range, request.priority, signal)
      return signal.aborted ? undefined : stored
    } catch (error) {
      for (const flight of [...request.flights]) {
        // whoever joined a prefetch does not fail with it: a smaller and more urgent request may succeed
        if (request.priority === 'prefetch' && flight.priority === 'demand' && this.#flies(flight)) {
          request.flights.delete(flight)
          this.#enqueue(flight)
        } else {
          this.#fail(flight, error)
        }
      }
      return undefined
    }
  }

  async #readBlob(blob: number, range: Range, priority: Priority, signal: AbortSignal): Promise<Uint8Array> {
    this.#counters.requests++
    this.#counters.fetchedBytes += range.end - range.start
    const ended = this.#pace.begin()
    const stored = await this.#options.blobs(blob).read(range, { signal, priority })
    ended(stored.length)
    return stored
  }

  async #decode(flight: Flight, request: Request, stored: Uint8Array): Promise<void> {
    const chunk = this.#options.chunks.get(flight.chunk)
    const { start } = request.range
    flight.stage = 'decoding'
    try {
      await this.#options.decode(
        chunk,
        stored.subarray(chunk.stored.start - start, chunk.stored.end - start),
        flight.chunk,
        this.#turn(flight, request.controller.signal),
      )
    } catch (error) {
      if (!this.#closed) this.#decodeFailed(flight, request, error)
      return
    }
    this.#counters.filled++
    this.#counters.filledBytes += chunk.size
    if (flight.alone || flight.damaged) this.#counters.healed++
    this.#end(flight, undefined, true)
  }

  #decodeFailed(flight: Flight, request: Request, error: unknown): void {
    if (request.controller.signal.aborted && flight.waiters.size > 0 && isAborted(error)) {
      // nobody wanted it any more; since then somebody does
      request.flights.delete(flight)
      this.#enqueue(flight)
      return
    }
    const corrupt = error instanceof Failure && error.code === 'corrupt'
    if (corrupt) this.#counters.corrupt++
    if (corrupt && !flight.alone && flight.waiters.size > 0 && request.retries < RETRIES_MAX) {
      // a registry, a proxy or a memory may have flipped a bit
      request.retries++
      request.flights.delete(flight)
      flight.alone = true
      this.#enqueue(flight)
    } else {
      this.#fail(flight, error)
    }
  }
}

function length({ range }: Request): number {
  return range.end - range.start
}

function lowest(run: Run): number {
  return run.chunks.reduce((least, each) => Math.min(least, each))
}

/** Whoever is told of no error takes it for a success: what fails has one. */
function reasonOf(error: unknown): Error {
  return error instanceof Error ? error : Failure.system('a chunk cannot be filled', { why: String(error) })
}

function isAborted(error: unknown): boolean {
  return error instanceof Failure && error.code === 'aborted'
}

function aborted(chunk: number): Failure {
  return Failure.aborted(`chunk ${chunk} is not wanted any more`)
}
