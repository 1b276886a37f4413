// Who waits for which chunk: one flight a chunk, from the first wish for it to its end. Whatever works on a flight ends it here.
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import { type Flight, newFlight } from './flight.ts'

export class Flights {
  readonly #flights = new Map<number, Flight>()

  get(chunk: number): Flight | undefined {
    return this.#flights.get(chunk)
  }

  /** A chunk that has no flight. Nobody waits for it yet. */
  begin(chunk: number, priority: Priority): Flight {
    const flight = newFlight(chunk, priority)
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
