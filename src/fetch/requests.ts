// Ranged reads: each waits for its turn, leaves out what came meanwhile, reads, and has its chunks decoded as they arrive.
import { Failure } from '../errors.ts'
import { BACKGROUND_WINDOW_BYTES, type Blob, type Priority, type Range, type ReadOptions } from '../image/blob.ts'
import { untilAll } from '../limit.ts'
import type { Chunk } from '../tree/chunk.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_VERIFIED } from '../tree/ready.ts'
import { Arrivals } from './arrivals.ts'
import type { Budget } from './budget.ts'
import type { FillerCounters } from './counters.ts'
import { type Flight, type Flights, type Request, type Turn, turnOf } from './flights.ts'
import type { LinkPace } from './nearby.ts'
import { type Run, type RunLimits, runs } from './plan.ts'

/** How large requests may be. */
export interface Limits extends Readonly<Record<Priority, RunLimits>> {}

// A gap costs its transfer, a request its round trip: at 100 Mbit/s, 64 KiB take 5 ms, which is less than the round trip to any
// registry outside the building. A run is held in memory until all of it has come; whoever waits for a chunk waits for what lies before it
// in its run, which prefetch, where nobody waits, bears more of. But prefetch has some 48 requests under way at once, each of which costs a
// 48th of a round trip: at 40 ms and 100 Mbit/s less than 16 KiB.
export const LIMITS: Limits = {
  demand: { gapMaxBytes: 64 << 10, runMaxBytes: 4 << 20 },
  prefetch: { gapMaxBytes: 16 << 10, runMaxBytes: 8 << 20 },
  // its ranges are chosen where it is known what is here already (rest.ts)
  background: { gapMaxBytes: 64 << 10, runMaxBytes: 4 << 20 },
}

/** Chunks of one request fetched again: a bit flips here and there; a blob that is wrong altogether does not heal by asking. */
const RETRIES_MAX = 8

export interface RequestsParts {
  chunks: ChunkTable
  blobs: (blob: number) => Blob
  decode: (chunk: Chunk, stored: Uint8Array, index: number, turn: Turn) => Promise<void>
  budget: Budget
  origin: string
  limits: Limits
  pace: LinkPace
  flights: Flights
  counters: FillerCounters
  /** Is given what runs on; it never rejects. */
  track: (work: Promise<void>) => void
  /** Asks for it once more. */
  again: (flight: Flight) => void
}

export class Requests {
  readonly #parts: RequestsParts
  readonly #requests = new Set<Request>()
  /** Ends what comes along, which nobody waits for. */
  readonly #closing = new AbortController()

  constructor(parts: RequestsParts) {
    this.#parts = parts
  }

  /** Few ranges for these chunks. */
  runs(flights: Iterable<Flight>, priority: Priority): Run[] {
    const { chunks, limits } = this.#parts
    const wanted = Array.from(flights, ({ chunk }) => ({
      index: chunk,
      blob: chunks.blobOf(chunk),
      stored: chunks.storedRange(chunk),
    }))
    return runs(wanted, limits[priority])
  }

  /** Reads a run in its turn, and fills its chunks. */
  launch(run: Run, priority: Priority): void {
    const request = this.#request(run, priority)
    this.#parts.track(this.#carry(request).finally(() => this.#requests.delete(request)))
  }

  /** Fills a chunk whose stored bytes are here; `run` is it alone. */
  decodeHere(flight: Flight, run: Run, stored: Uint8Array): void {
    const request = this.#request(run, flight.priority)
    this.#parts.track(this.#decode(flight, request, stored).finally(() => this.#requests.delete(request)))
  }

  /** Reads what nobody waits for, without a turn; it ends with all else. Undefined: there is no memory for it. */
  readAlong({ blob, range }: Run): Promise<Uint8Array> | undefined {
    const giveBack = this.#parts.budget.tryTake(range.end - range.start, 'prefetch')
    if (giveBack === undefined) return undefined
    return this.#readBlob(blob, range, { priority: 'prefetch', signal: this.#closing.signal }).finally(giveBack)
  }

  /**
   * Whether somebody who begins to wait for a chunk that is being fetched does better to wait for that than to ask for it alone, or does
   * nearly as well: then nothing comes twice.
   */
  comesSoon({ chunk, request }: Flight): boolean {
    if (request?.priority !== 'background') return true
    const { budget, chunks, origin } = this.#parts
    const { start, end } = chunks.storedRange(chunk)
    const here = request.range.start + request.came
    const before = start - here
    // it has to come in any case, as has what others wait for
    let wanted = end - start
    for (const each of request.urgent) {
      const other = chunks.storedRange(each.chunk)
      if (other.end <= start) wanted += Math.max(0, other.end - Math.max(other.start, here))
    }
    const unwanted = before - (wanted - (end - start))
    // in a round trip a stream brings a window, and the way its limit: it takes one more, at most, than asking again would
    const inTime = 2 * BACKGROUND_WINDOW_BYTES * (1 + wanted / budget.wires.of(origin).limit)
    return unwanted <= Math.max(BACKGROUND_WINDOW_BYTES, end - start) && before <= inTime
  }

  /** Takes a flight out of the request that brings it, which goes on as far as it has others. */
  takeOut(flight: Flight): void {
    const { request } = flight
    request?.flights.delete(flight)
    if (request !== undefined) request.isCut = true
  }

  /** Takes a flight out of the request that it is part of; one that nothing is left of is stopped. */
  leave(flight: Flight): void {
    flight.request?.flights.delete(flight)
    if (flight.request?.flights.size === 0) flight.request.controller.abort()
    flight.request = undefined
  }

  /** Stops a request if nobody waits for any chunk of it any more. */
  abandon(request: Request): void {
    const flights = [...request.flights]
    if (flights.some((each) => each.waiters.size > 0)) return
    request.controller.abort()
    // what a worker decodes cannot be stopped, and must not be begun twice: it ends by itself
    for (const each of flights) {
      if (each.stage !== 'fetching') continue
      this.leave(each)
      this.#parts.flights.drop(each)
    }
  }

  close(): void {
    for (const request of this.#requests) request.controller.abort()
    this.#closing.abort()
  }

  #request(run: Run, priority: Priority): Request {
    const flights = run.chunks.map((chunk) => this.#parts.flights.get(chunk)).filter((each) => each !== undefined)
    const request: Request = {
      blob: run.blob,
      range: run.range,
      priority,
      flights: new Set(flights),
      urgent: [],
      controller: new AbortController(),
      came: 0,
      isCut: false,
      hurry: () => {},
      transfer: undefined,
      retries: 0,
    }
    for (const flight of flights) flight.request = request
    this.#requests.add(request)
    return request
  }

  async #carry(request: Request): Promise<void> {
    const { budget, origin, flights } = this.#parts
    const { signal } = request.controller
    let release: () => void
    try {
      release = await budget.acquire(origin, length(request), request.priority, signal)
    } catch (error) {
      // only whoever took all flights out of it aborts a request that waits
      for (const flight of [...request.flights]) flights.fail(flight, error)
      return
    }
    try {
      if (!signal.aborted) this.#regroup(request)
      if (request.flights.size === 0 || signal.aborted) return
      await this.#readAndDecode(request)
    } finally {
      release()
    }
  }

  /** While it waited, chunks were filled by another process or taken out by demand; what is left may be several runs now. */
  #regroup(request: Request): void {
    const { flights } = this.#parts
    const waited = [...request.flights]
    const states = flights.statesOf(waited.map(({ chunk }) => chunk))
    for (const [i, flight] of waited.entries()) {
      const state = states[i]
      if (state instanceof Error) flights.fail(flight, state)
      else if (state === READY_VERIFIED) flights.settle(flight)
    }
    const left = [...request.flights]
    if (left.every((each) => each.waiters.size === 0)) {
      // they came along with one that is not wanted any more
      for (const flight of left) {
        this.leave(flight)
        flights.drop(flight)
      }
      return
    }
    const [first, ...others] = this.runs(left, request.priority)
    if (first === undefined) return
    request.range = first.range
    for (const run of others) {
      for (const chunk of run.chunks) {
        const flight = flights.get(chunk)
        if (flight !== undefined) request.flights.delete(flight)
      }
      this.launch(run, request.priority)
    }
    for (const flight of request.flights) flight.stage = 'fetching'
  }

  async #readAndDecode(request: Request): Promise<void> {
    const { range, controller } = request
    const end = ({ chunk }: Flight) => this.#parts.chunks.storedRange(chunk).end - range.start
    const arrivals = new Arrivals(request, end, (flight, stored) => this.#decode(flight, request, stored))
    const enough = new AbortController()
    const isOver = () => request.isCut && ![...request.flights].some((each) => end(each) > request.came)
    const onPart = (part: Uint8Array, at: number) => {
      arrivals.add(wholeOf(part, at, length(request)), at + part.length)
      if (isOver()) enough.abort() // others bring what is left of it
      return this.#hold(request, part.length)
    }
    const signal = AbortSignal.any([controller.signal, enough.signal])
    const doubted = [...request.flights].some(({ alone }) => alone)
    const options = { signal, priority: request.priority, onPart, doubted }
    // who is stopped waits for nothing
    controller.signal.addEventListener('abort', () => request.hurry(), { once: true })
    let stored: Uint8Array | undefined
    try {
      stored = await this.#readBlob(request.blob, range, options, request)
      arrivals.add(stored, stored.length)
    } catch (error) {
      if (!enough.signal.aborted || controller.signal.aborted) this.#readFailed(request, error)
    }
    await arrivals.settled()
    if (stored !== undefined) giveBack(stored)
  }

  /** What has come of it is being decoded. */
  #readFailed(request: Request, error: unknown): void {
    const { flights, again } = this.#parts
    for (const flight of [...request.flights]) {
      if (flight.stage !== 'fetching') continue
      // whoever joined what nobody waited for does not fail with it: a smaller and more urgent request may succeed
      if (request.priority !== 'demand' && flight.priority === 'demand' && flights.has(flight)) {
        request.flights.delete(flight)
        again(flight)
      } else {
        flights.fail(flight, error)
      }
    }
  }

  async #readBlob(blob: number, range: Range, options: ReadOptions, request?: Request): Promise<Uint8Array> {
    const { blobs, budget, counters, origin, pace } = this.#parts
    const bytes = range.end - range.start
    counters.requests++
    counters.fetchedBytes += bytes
    const ended = pace.begin()
    const transfer = budget.wires.begin(origin, bytes, options.priority ?? 'demand')
    if (request !== undefined) request.transfer = transfer
    const onPart: ReadOptions['onPart'] = (part, at) => {
      transfer.came(at + part.length)
      return options.onPart?.(part, at)
    }
    try {
      const stored = await blobs(blob).read(range, { ...options, onPart })
      ended(stored.length)
      return stored
    } finally {
      transfer.end()
    }
  }

  /** What nobody waits for comes no faster than it may. */
  #hold(request: Request, bytes: number): Promise<void> | undefined {
    if (request.priority !== 'background') return undefined
    const calls: (() => void)[] = []
    request.hurry = () => {
      for (const call of calls) call()
    }
    const hurry = (call: () => void) => void calls.push(call)
    const waits = [this.#parts.budget.wires.hold(bytes, hurry), request.transfer?.turn(hurry)]
    if (request.urgent.length > 0 || request.controller.signal.aborted) request.hurry()
    return untilAll(waits)
  }

  async #decode(flight: Flight, request: Request, stored: Uint8Array): Promise<void> {
    const { chunks, counters, decode, flights } = this.#parts
    const chunk = chunks.get(flight.chunk)
    const { signal } = request.controller
    const own = stored.subarray(chunk.stored.start - request.range.start, chunk.stored.end - request.range.start)
    flight.stage = 'decoding'
    try {
      await decode(chunk, own, flight.chunk, turnOf(flight, signal))
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#decodeFailed(flight, request, error)
      return
    }
    counters.filled++
    counters.filledBytes += chunk.size
    if (flight.alone || flight.damaged) counters.healed++
    flights.land(flight)
  }

  #decodeFailed(flight: Flight, request: Request, error: unknown): void {
    const { counters, flights, again } = this.#parts
    const code = error instanceof Failure ? error.code : undefined
    if (code === 'corrupt') counters.corrupt++
    if (flight.waiters.size === 0) {
      flights.fail(flight, error)
    } else if (code === 'aborted' && request.controller.signal.aborted) {
      // nobody wanted it any more; since then somebody does
      request.flights.delete(flight)
      again(flight)
    } else if (code === 'corrupt' && !flight.alone && request.retries < RETRIES_MAX) {
      // a registry, a proxy or a memory may have flipped a bit
      request.retries++
      request.flights.delete(flight)
      flight.alone = true
      again(flight)
    } else {
      flights.fail(flight, error)
    }
  }
}

/** The memory that a part of a range lies in. @param length of the range */
function wholeOf({ buffer, byteOffset }: Uint8Array, at: number, length: number): Uint8Array {
  return new Uint8Array(buffer, byteOffset - at, length)
}

/** The memory of what was read, at once: garbage of that size is not collected before there is much of it. */
function giveBack({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}

function length({ range }: Request): number {
  return range.end - range.start
}
