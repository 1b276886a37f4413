// What is queued in one turn of the event loop becomes few requests; what lies behind a miss is fetched ahead of its reader (plan.ts), and
// what lies near it may come along (nearby.ts).
import type { Priority, Range } from '../image/blob.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { FillerCounters } from './counters.ts'
import type { Flight, Flights, Waiter } from './flights.ts'
import type { Nearby } from './nearby.ts'
import type { Plan, Run } from './plan.ts'
import type { Requests } from './requests.ts'

/** What is read ahead in the request of a miss, which is in memory until all of it has come: 1 MiB takes 84 ms at 100 Mbit/s. */
const ALONG_MAX_BYTES = 1 << 20

/** Stands for somebody who may come: nobody is told, neither that it is here nor that it failed. */
const READER: Waiter = { pending: new Set(), settled: () => {}, done: () => {} }

export interface BatchesParts {
  chunks: ChunkTable
  flights: Flights
  requests: Pick<Requests, 'runs' | 'launch' | 'decodeHere' | 'readAlong'>
  plan: Plan
  nearby: Nearby
  counters: FillerCounters
  /** Is given what runs on; it never rejects. */
  track: (work: Promise<void>) => void
}

export class Batches {
  readonly #parts: BatchesParts
  readonly #queued: Readonly<Record<Priority, Set<Flight>>> = {
    demand: new Set(),
    prefetch: new Set(),
    background: new Set(),
  }
  readonly #absentOf = (chunks: readonly number[]) => this.#parts.flights.absentOf(chunks)
  /** What came along with others, or is about to, is not asked for again. */
  readonly #toFetchOf = (chunks: readonly number[]) =>
    this.#absentOf(chunks).filter((chunk) => !this.#parts.nearby.has(chunk))
  #flushing = false
  #closed = false

  constructor(parts: BatchesParts) {
    this.#parts = parts
  }

  add(flight: Flight): void {
    flight.stage = 'queued'
    flight.request = undefined
    this.#queued[flight.priority].add(flight)
    if (this.#flushing) return
    this.#flushing = true
    // all that this turn of the event loop asks for is joined
    setImmediate(() => {
      this.#flushing = false
      if (!this.#closed) this.#flush()
    })
  }

  delete(flight: Flight): void {
    for (const queued of Object.values(this.#queued)) queued.delete(flight)
  }

  close(): void {
    this.#closed = true
    for (const queued of Object.values(this.#queued)) queued.clear()
  }

  #flush(): void {
    const { requests } = this.#parts
    for (const priority of ['demand', 'prefetch', 'background'] as const) {
      const flights = [...this.#queued[priority]].filter((each) => !this.#isNearby(each))
      this.#queued[priority].clear()
      const together = flights.filter((each) => !each.alone)
      const joined = this.#wishes(together, priority).flatMap((each) => requests.runs(each, priority))
      // prefetch in the order in which it was asked for
      if (priority === 'prefetch') sortByFirst(joined, flights)
      const single = flights.filter((each) => each.alone).flatMap((each) => requests.runs([each], priority))
      for (const run of single) requests.launch(run, priority)
      for (const run of joined) {
        if (priority === 'demand') this.#launchMissed(run)
        else requests.launch(run, priority)
      }
    }
  }

  /**
   * Those that one request may have. In the background each range is one for itself, also where one begins at another's end: of a request a
   * window comes in a round trip, however much it asks for (fetch/wire.ts).
   */
  #wishes(flights: readonly Flight[], priority: Priority): (readonly Flight[])[] {
    if (priority !== 'background') return [flights]
    return [...Map.groupBy(flights, ({ waiters }) => waiters.values().next().value).values()]
  }

  /** Whether a chunk came along with another's, or is about to: then it needs no request. */
  #isNearby(flight: Flight): boolean {
    if (flight.alone) return false // what was here is wrong
    const { chunks, nearby, requests, counters, track } = this.#parts
    const { chunk } = flight
    const blob = chunks.blobOf(chunk)
    const range = chunks.storedRange(chunk)
    const isWaitedFor = flight.priority === 'demand'
    const coming = nearby.coming(chunk)
    if (coming !== undefined) {
      track(coming.then(() => this.#again(flight)))
      if (isWaitedFor) this.#bring(nearby.besideHit(blob, range, this.#absentOf))
      return true
    }
    const stored = nearby.take(chunk, range)
    if (stored === undefined) return false
    counters.nearbyHits++
    requests.decodeHere(flight, { blob, range, chunks: [chunk] }, stored)
    if (isWaitedFor) this.#bringBehind(blob, range)
    return true
  }

  /** Of a chunk that was here: whoever reads one after the other is read ahead of, as if he had missed them; else more may come along. */
  #bringBehind(blob: number, range: Range): void {
    const { nearby, plan } = this.#parts
    const ahead = plan.missed(blob, range, this.#toFetchOf)
    if (ahead.length > 0) this.#fetchAhead(ahead)
    else this.#bring(nearby.besideHit(blob, range, this.#absentOf))
  }

  /** It waited for what came along with another: now it is here, or failed to come. */
  #again(flight: Flight): void {
    // somebody else may have begun it, or nobody wants it any more
    if (this.#parts.flights.has(flight) && flight.stage === 'queued' && flight.request === undefined) this.add(flight)
  }

  /** Fetches what nobody waits for. */
  #bring(beside: readonly Run[]): void {
    const { nearby, requests, counters, track } = this.#parts
    for (const run of beside) {
      const reading = requests.readAlong(run)
      if (reading === undefined) return
      counters.nearbyBytes += run.range.end - run.range.start
      track(nearby.keep(run, reading))
    }
  }

  /** What is read ahead of it and fits goes into the same request; the rest has requests of its own, behind it. */
  #launchMissed(run: Run): void {
    const { chunks, flights, nearby, plan, requests } = this.#parts
    const ahead = plan.missed(run.blob, run.range, this.#toFetchOf)
    const limit = run.range.start + ALONG_MAX_BYTES
    const along = ahead.filter((chunk) => chunks.storedRange(chunk).end <= limit)
    for (const chunk of along) {
      flights.begin(chunk, 'prefetch') // nobody waits for it: it comes along, and if it fails nobody is told
      run.chunks.push(chunk)
      run.range.end = Math.max(run.range.end, chunks.storedRange(chunk).end)
    }
    requests.launch(run, 'demand')
    this.#fetchAhead(ahead.slice(along.length))
    if (ahead.length === 0) this.#bring(nearby.besideMiss(run.blob, run.range, this.#absentOf))
  }

  /** Somebody waits for a chunk that is under way: whoever reads on from there is read ahead of. */
  reached(chunk: number): void {
    const { chunks, plan } = this.#parts
    this.#fetchAhead(plan.reached(chunks.blobOf(chunk), chunks.storedRange(chunk), this.#toFetchOf))
  }

  #fetchAhead(ahead: readonly number[]): void {
    const { flights, requests } = this.#parts
    const begun = ahead.map((chunk) => flights.begin(chunk, 'prefetch', READER))
    for (const run of requests.runs(begun, 'prefetch')) requests.launch(run, 'prefetch')
  }
}

/** The run first that has the first of these. */
function sortByFirst(runs: Run[], flights: readonly Flight[]): void {
  const order = new Map(flights.map(({ chunk }, i) => [chunk, i]))
  const first = new Map(
    runs.map((run) => [run, run.chunks.reduce((least, each) => Math.min(least, order.get(each) ?? least), order.size)]),
  )
  runs.sort((a, b) => (first.get(a) as number) - (first.get(b) as number)) // each has one
}
