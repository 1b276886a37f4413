// Ranged reads: each waits for its turn, leaves out what came meanwhile, reads, and has its chunks decoded.
import { Failure } from '../errors.ts'
import type { Blob, Priority, Range } from '../image/blob.ts'
import type { Chunk } from '../tree/chunk.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_VERIFIED } from '../tree/ready.ts'
import type { Budget } from './budget.ts'
import type { FillerCounters } from './counters.ts'
import { type Flight, type Flights, type Request, type Turn, turnOf } from './flights.ts'
import type { LinkPace } from './pace.ts'
import { type Run, type RunLimits, runs } from './plan.ts'

/** How large requests may be. */
export interface Limits extends Readonly<Record<Priority, RunLimits>> {}

// A gap costs its transfer, a request its round trip: at 100 Mbit/s, 64 KiB take 5 ms, which is less than the round trip to any
// registry outside the building. A run is held in memory and nothing of it is decoded before it is complete: 4 MiB are 0.3 s
// at that rate, which somebody who waits for one of its chunks can bear; prefetch has nobody waiting, and wants few requests.
export const LIMITS: Limits = {
  demand: { gapMaxBytes: 64 << 10, runMaxBytes: 4 << 20 },
  prefetch: { gapMaxBytes: 64 << 10, runMaxBytes: 8 << 20 },
}

/** Chunks of one request decoded at once: what keeps the workers busy. Those that wait cost nothing. */
const DECODES_MAX: Readonly<Record<Priority, number>> = { demand: 64, prefetch: 32 }
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

  /** Reads what nobody waits for, without a turn; it ends with all else. */
  readAlong({ blob, range }: Run): Promise<Uint8Array> {
    return this.#readBlob(blob, range, 'prefetch', this.#closing.signal)
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
      const stored = await this.#read(request)
      if (stored === undefined) return
      await this.#decodeAll(request, stored)
      giveBack(stored)
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

  async #read(request: Request): Promise<Uint8Array | undefined> {
    const { flights, again } = this.#parts
    const { signal } = request.controller
    try {
      const stored = await this.#readBlob(request.blob, request.range, request.priority, signal)
      return signal.aborted ? undefined : stored
    } catch (error) {
      for (const flight of [...request.flights]) {
        // whoever joined a prefetch does not fail with it: a smaller and more urgent request may succeed
        if (request.priority === 'prefetch' && flight.priority === 'demand' && flights.has(flight)) {
          request.flights.delete(flight)
          again(flight)
        } else {
          flights.fail(flight, error)
        }
      }
      return undefined
    }
  }

  async #readBlob(blob: number, range: Range, priority: Priority, signal: AbortSignal): Promise<Uint8Array> {
    const { blobs, counters, pace } = this.#parts
    counters.requests++
    counters.fetchedBytes += range.end - range.start
    const ended = pace.begin()
    const stored = await blobs(blob).read(range, { signal, priority })
    ended(stored.length)
    return stored
  }

  /** In stored order, but for those that became urgent, which go first. None is begun once the request is stopped. */
  async #decodeAll(request: Request, stored: Uint8Array): Promise<void> {
    const left = new Set(request.flights)
    const next = (): Flight | undefined => {
      for (let urgent = request.urgent.shift(); urgent !== undefined; urgent = request.urgent.shift()) {
        if (left.delete(urgent)) return urgent
      }
      const [first] = left
      if (first !== undefined) left.delete(first)
      return first
    }
    const lane = async (): Promise<void> => {
      while (!request.controller.signal.aborted) {
        const flight = next()
        if (flight === undefined) return
        await this.#decode(flight, request, stored)
      }
    }
    await Promise.all(Array.from({ length: Math.min(DECODES_MAX[request.priority], left.size) }, lane))
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

/** The memory of what was read, at once: garbage of that size is not collected before there is much of it. */
function giveBack({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}

function length({ range }: Request): number {
  return range.end - range.start
}
