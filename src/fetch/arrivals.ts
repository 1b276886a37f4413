// What of a request arrives is decoded while the rest of it comes.
import type { Priority } from '../image/blob.ts'
import type { Flight, Request } from './flights.ts'

/** Chunks of one request decoded at once: what keeps the workers busy. Those that wait cost nothing. */
const DECODES_MAX: Readonly<Record<Priority, number>> = { demand: 64, prefetch: 32, background: 32 }

/**
 * Decodes a request's chunks as their bytes arrive, in stored order, but for those that became urgent, which go first. None is begun once
 * the request is stopped.
 */
export class Arrivals {
  readonly #request: Request
  readonly #end: (flight: Flight) => number
  readonly #decode: (flight: Flight, stored: Uint8Array) => Promise<void>
  /** Those that are not begun, in stored order. */
  readonly #left: Set<Flight>
  readonly #decoding = new Set<Promise<void>>()
  #stored: Uint8Array = new Uint8Array()

  /** @param end where a flight's chunk ends in the request's range */
  constructor(
    request: Request,
    end: (flight: Flight) => number,
    decode: (flight: Flight, stored: Uint8Array) => Promise<void>,
  ) {
    this.#request = request
    this.#end = end
    this.#decode = decode
    this.#left = new Set(request.flights)
  }

  /** @param stored memory of the whole range, of which the first `came` bytes are there; another one, when it is read anew */
  add(stored: Uint8Array, came: number): void {
    this.#stored = stored
    this.#request.came = came
    this.#begin()
  }

  /** Resolves when all that was begun has ended. */
  async settled(): Promise<void> {
    while (this.#decoding.size > 0) await Promise.all(this.#decoding)
  }

  #begin(): void {
    const { controller, priority } = this.#request
    while (this.#decoding.size < DECODES_MAX[priority] && !controller.signal.aborted) {
      const flight = this.#next()
      if (flight === undefined) return
      const decoding: Promise<void> = this.#decode(flight, this.#stored).then(() => {
        this.#decoding.delete(decoding)
        this.#begin()
      })
      this.#decoding.add(decoding)
    }
  }

  #next(): Flight | undefined {
    const { urgent, flights } = this.#request
    const isHere = (each: Flight) => this.#end(each) <= this.#request.came
    for (let at = urgent.findIndex(isHere); at >= 0; at = urgent.findIndex(isHere)) {
      const [flight] = urgent.splice(at, 1) as [Flight] // just found
      if (this.#left.delete(flight) && flights.has(flight)) return flight
    }
    for (const flight of this.#left) {
      if (!isHere(flight)) return undefined // nor are those behind it
      this.#left.delete(flight)
      // else nobody wants it any more, or another request brings it
      if (flights.has(flight)) return flight
    }
    return undefined
  }
}
