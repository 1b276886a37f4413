// Where each chunk is: on the device, or under way. One flight a chunk, from the first wish for it to its end, knows who waits for it;
// whatever works on a flight ends it here.
//
//   unchecked -> checking -> ready                      bytes of an earlier life that still match, or a copy of what is elsewhere
//                   |
//                   v
//                queued -> fetching -> decoding -> ready
//                   ^                     |
//                   +------ corrupt, once +-> failed
import { Failure } from '../errors.ts'
import type { Priority, Range } from '../image/blob.ts'
import { READY_MISSING } from '../tree/ready.ts'
import type { Transfer } from './wire.ts'

/** What a device says of its chunks: READY_MISSING, READY_VERIFIED or READY_STORED. */
export interface Slots {
  state(chunk: number): number
  /** The same of each, in one read. */
  statesOf(chunks: readonly number[]): readonly number[]
}

/** Tells of a chunk: without error when it is verified; `brought` when its bytes came from the blob, for this wish or another. */
export type Settled = (chunk: number, error?: unknown, brought?: boolean) => void

/** Whatever fills chunks; `settled` is called once for each. */
export interface Fills {
  fillEach(wanted: Iterable<number>, priority: Priority, settled: Settled, signal?: AbortSignal): void
}

/** One call of fill: whom to tell, and of which chunks it has not been told yet. */
export interface Waiter {
  readonly pending: Set<number>
  readonly settled: Settled
  /** Called when nothing is pending. */
  readonly done: () => void
}

export interface Flight {
  readonly chunk: number
  priority: Priority
  stage: 'unchecked' | 'checking' | 'queued' | 'fetching' | 'decoding'
  /** None: nobody needs it (any more). */
  readonly waiters: Set<Waiter>
  /** The request it is part of, from `queued` on. */
  request: Request | undefined
  /** Tells whoever checks or decodes it that somebody waits now. */
  urgent: (() => void) | undefined
  /** It was corrupt once and is fetched on its own now. */
  alone: boolean
  /** Bytes were there and were wrong. */
  damaged: boolean
}

/** Whom work on a chunk is for. */
export interface Turn {
  priority: Priority
  /** Whoever has not begun it need not do so any more. */
  signal: AbortSignal
  /** Takes what is to be called when somebody begins to wait for it. */
  onUrgent(call: () => void): void
}

/** @param signal when nobody wants it any more */
export function turnOf(flight: Flight, signal: AbortSignal): Turn {
  flight.urgent = undefined
  const onUrgent = (call: () => void) => {
    flight.urgent = call
  }
  return { priority: flight.priority, signal, onUrgent }
}

/** A chunk that nobody waits for yet. */
export function newFlight(chunk: number, priority: Priority): Flight {
  return {
    chunk,
    priority,
    stage: 'queued',
    waiters: new Set(),
    request: undefined,
    urgent: undefined,
    alone: false,
    damaged: false,
  }
}

/** One ranged read, from waiting for its turn to the last decoded chunk. */
export interface Request {
  readonly blob: number
  range: Range
  readonly priority: Priority
  /** Those that are not decoded yet, in stored order. */
  readonly flights: Set<Flight>
  /** Those that somebody began to wait for while they were fetched: decoded first. */
  readonly urgent: Flight[]
  readonly controller: AbortController
  /** Bytes of its range that are here, from the first on. */
  came: number
  /** Another request brings some of what it was to bring. */
  isCut: boolean
  /** Ends a pause of what it brings. */
  hurry: () => void
  /** While it is read. */
  transfer: Pick<Transfer, 'turn'> | undefined
  /** Chunks of it that were corrupt and are fetched again. */
  retries: number
}

export class Flights {
  readonly #slots: Slots
  readonly #flights = new Map<number, Flight>()

  constructor(slots: Slots) {
    this.#slots = slots
  }

  /** Of each of these its state, or why the disk does not tell: whoever reads that one fails, nobody else. */
  statesOf(chunks: readonly number[]): readonly (number | Error)[] {
    try {
      return this.#slots.statesOf(chunks)
    } catch {
      return chunks.map((chunk) => this.#stateOf(chunk))
    }
  }

  #stateOf(chunk: number): number | Error {
    try {
      return this.#slots.state(chunk)
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
  }

  /** Those of which nothing is here, which the disk says, and that are not under way. */
  absentOf(chunks: readonly number[]): number[] {
    const idle = chunks.filter((chunk) => !this.#flights.has(chunk))
    const states = this.statesOf(idle)
    return idle.filter((_, i) => states[i] === READY_MISSING)
  }

  get(chunk: number): Flight | undefined {
    return this.#flights.get(chunk)
  }

  /** A chunk that has no flight. */
  begin(chunk: number, priority: Priority, ...waiters: readonly Waiter[]): Flight {
    const flight = newFlight(chunk, priority)
    for (const each of waiters) flight.waiters.add(each)
    this.#flights.set(chunk, flight)
    return flight
  }

  /** False once it has ended: those whom it told may have ended others of the same request. */
  has(flight: Flight): boolean {
    return this.#flights.get(flight.chunk) === flight
  }

  /** It is verified: it was here, or somebody else brought it. */
  settle(flight: Flight): void {
    this.#end(flight, undefined, false)
  }

  /** It is verified, and was brought. */
  land(flight: Flight): void {
    this.#end(flight, undefined, true)
  }

  fail(flight: Flight, error: unknown): void {
    this.#end(flight, reasonOf(error), false)
  }

  /** Nobody waits for it. */
  drop(flight: Flight): void {
    if (this.has(flight)) this.#flights.delete(flight.chunk)
  }

  /** Ends all of them. */
  failAll(): void {
    for (const flight of [...this.#flights.values()]) this.fail(flight, unwanted(flight.chunk))
  }

  #end(flight: Flight, error: Error | undefined, brought: boolean): void {
    if (!this.has(flight)) return
    flight.request?.flights.delete(flight)
    this.#flights.delete(flight.chunk)
    for (const waiter of flight.waiters) {
      waiter.pending.delete(flight.chunk)
      if (waiter.pending.size === 0) waiter.done()
      waiter.settled(flight.chunk, error, brought)
    }
    flight.waiters.clear()
  }
}

/** What somebody is told who gave a chunk up, or when all is over. */
export function unwanted(chunk: number): Failure {
  return Failure.aborted(`chunk ${chunk} is not wanted any more`)
}

/** Whoever is told of no error takes it for a success: what fails has one. */
function reasonOf(error: unknown): Error {
  return error instanceof Error ? error : Failure.system('a chunk cannot be filled', { why: String(error) })
}
