// Fills a layer's chunks: checks what is there, joins what is under way, asks for the rest in few requests, decodes.
// It does no I/O of its own: reading, decoding and checking are given to it. One per device of a process.
//
//   wish ─┬─ there, from an earlier life ── checks.ts ─┬─ right
//         │                                            └─ damaged ─┐
//         ├─ elsewhere ────────────────────── checks.ts ─┬─ copied │
//         │                                              └─ gone ──┤
//         └─ missing ──────────────────────────────────────────────┴─ batches.ts ── requests.ts ── decoded
//   flights.ts knows who waits for each chunk meanwhile
import type { Blob, Priority } from '../image/blob.ts'
import type { Chunk } from '../tree/chunk.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_STORED, READY_VERIFIED } from '../tree/ready.ts'
import { Batches } from './batches.ts'
import type { Budget } from './budget.ts'
import { CHECKS_MAX, Checks, COPIES_MAX, type Verdict } from './checks.ts'
import { type FillerCounters, noCounters } from './counters.ts'
import { fillAll } from './fill-all.ts'
import {
  type Flight,
  Flights,
  type Request,
  type Settled,
  type Slots,
  type Turn,
  turnOf,
  unwanted,
  type Waiter,
} from './flights.ts'
import { type LinkPace, Nearby, Pace } from './nearby.ts'
import { StoredOrder } from './order.ts'
import { Plan } from './plan.ts'
import { LIMITS, type Limits, Requests } from './requests.ts'

/** Where chunks may be, decoded, that need not be fetched then. */
export interface Elsewhere {
  /** False: no chunk is there, nor will be. Never rejects. */
  readonly found: Promise<boolean>
  has(chunk: number): boolean
  /** Verifies, writes, and sets the chunk's state to READY_VERIFIED. @throws why it was not copied */
  copy(chunk: number, turn: Turn): Promise<void>
}

export interface FillerOptions {
  chunks: ChunkTable
  blobs: (blob: number) => Blob
  slots: Slots
  /** Decodes, verifies, writes, and sets the chunk's state to READY_VERIFIED. `stored` is the chunk's stored range. */
  decode: (chunk: Chunk, stored: Uint8Array, index: number, turn: Turn) => Promise<void>
  /** Reads a READY_STORED chunk back; right: its state is READY_VERIFIED now. @throws what keeps it from being told */
  reverify: (chunk: Chunk, index: number, turn: Turn) => Promise<Verdict>
  /** Default: nowhere. */
  elsewhere?: Elsewhere
  /** Shared by all fillers of the process. */
  budget: Budget
  /** Who is asked: within the budget, fillers wait only for those of the same origin. */
  origin: string
  limits?: Limits
  /** Default: one that measures. */
  pace?: LinkPace
}

export class Filler {
  readonly #flights: Flights
  readonly #checks: Checks
  readonly #copies: Checks
  #elsewhere: Elsewhere | undefined
  readonly #batches: Batches
  readonly #requests: Requests
  readonly #nearby: Nearby
  readonly #closing = new AbortController()
  readonly #work = new Set<Promise<void>>()
  readonly #counters = noCounters()

  constructor(options: FillerOptions) {
    const { chunks, slots, reverify, elsewhere, limits = LIMITS, pace = new Pace(), budget } = options
    const order = new StoredOrder(chunks)
    this.#flights = new Flights(slots)
    const track = (work: Promise<void>) => this.#track(work)
    const shared = { chunks, flights: this.#flights, counters: this.#counters, track }
    this.#nearby = new Nearby(order, pace, budget.shelf)
    this.#requests = new Requests({ ...options, ...shared, limits, pace, again: (flight) => this.#batches.add(flight) })
    const plan = new Plan(order, limits.demand)
    this.#batches = new Batches({ ...shared, requests: this.#requests, plan, nearby: this.#nearby })
    const turn = (flight: Flight) => turnOf(flight, this.#closing.signal)
    this.#checks = new Checks({
      max: CHECKS_MAX,
      verify: (flight) => reverify(chunks.get(flight.chunk), flight.chunk, turn(flight)),
      track,
      checked: (flight, verdict) => this.#checked(flight, verdict),
      failed: (flight, error) => this.#flights.fail(flight, error),
    })
    this.#elsewhere = elsewhere
    void elsewhere?.found.then((isThere) => {
      if (!isThere) this.#elsewhere = undefined
    })
    this.#copies = new Checks({
      max: COPIES_MAX,
      verify: async (flight) => {
        await elsewhere?.copy(flight.chunk, turn(flight))
        return 'right'
      },
      track,
      checked: (flight) => this.#copied(flight),
      failed: (flight) => this.#fetch(flight), // a registry has it as well, and tells what is wrong
    })
  }

  get counters(): Readonly<FillerCounters> {
    return this.#counters
  }

  /**
   * Resolves when all of them are READY_VERIFIED. When some fail it waits for the others and throws the first error.
   * @throws Failure what reading or decoding throws; aborted when `signal` or close ended it
   */
  fill(wanted: Iterable<number>, priority: Priority, signal?: AbortSignal): Promise<void> {
    return fillAll(this, wanted, priority, signal)
  }

  /**
   * Calls `settled` once for each distinct chunk: without error when it is READY_VERIFIED, perhaps before this returns. A failure is
   * not remembered: the next fill tries again. After `signal` nobody waits for what is left; what nobody waits for is not fetched.
   */
  fillEach(wanted: Iterable<number>, priority: Priority, settled: Settled, signal?: AbortSignal): void {
    const abort = () => this.#withdraw(waiter)
    const waiter: Waiter = { pending: new Set(), settled, done: () => signal?.removeEventListener('abort', abort) }
    const chunks = [...new Set(wanted)]
    const states = this.#isClosed ? [] : this.#flights.statesOf(chunks)
    for (const [i, chunk] of chunks.entries()) {
      const state = states[i]
      if (this.#isClosed || signal?.aborted) settled(chunk, unwanted(chunk))
      else if (state instanceof Error) settled(chunk, state)
      else if (state === READY_VERIFIED) settled(chunk)
      else this.#want(chunk, state === READY_STORED, priority, waiter)
    }
    if (waiter.pending.size > 0) signal?.addEventListener('abort', abort, { once: true })
  }

  /**
   * Fails all that is wanted, stops all requests, and resolves when nothing is being decoded or checked any more, so that the
   * device may be closed.
   */
  async close(): Promise<void> {
    this.#closing.abort()
    this.#requests.close()
    this.#nearby.close()
    this.#flights.failAll()
    this.#checks.close()
    this.#copies.close()
    this.#batches.close()
    await Promise.all(this.#work)
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted
  }

  #want(chunk: number, stored: boolean, priority: Priority, waiter: Waiter): void {
    waiter.pending.add(chunk)
    const known = this.#flights.get(chunk)
    if (known !== undefined) {
      this.#counters.joined++
      known.waiters.add(waiter)
      if (priority === 'demand') {
        this.#promote(known)
        this.#batches.reached(chunk)
      }
      return
    }
    const flight = this.#flights.begin(chunk, priority, waiter)
    if (stored) this.#checks.add(flight)
    else if (this.#elsewhere?.has(chunk)) this.#copies.add(flight)
    else this.#batches.add(flight)
  }

  /** Somebody waits now: what has not begun goes in front, what is under way is decoded first. */
  #promote(flight: Flight): void {
    if (flight.priority === 'demand') return
    flight.priority = 'demand'
    if (flight.stage === 'unchecked') {
      for (const each of [this.#checks, this.#copies]) if (each.delete(flight)) each.add(flight)
    } else if (flight.stage === 'queued' && flight.request?.priority !== 'demand') {
      this.#leave(flight)
      this.#batches.add(flight)
    } else if (flight.stage === 'fetching') {
      if (this.#requests.comesSoon(flight)) {
        flight.request?.urgent.push(flight)
        flight.request?.hurry()
      } else {
        this.#requests.takeOut(flight)
        this.#batches.add(flight)
      }
    } else {
      flight.urgent?.()
    }
  }

  #checked(flight: Flight, verdict: Verdict): void {
    if (verdict === 'right') {
      this.#counters.reverified++
      this.#flights.settle(flight)
      return
    }
    if (verdict === 'damaged') {
      this.#counters.damaged++
      flight.damaged = true
    }
    this.#fetch(flight)
  }

  #copied(flight: Flight): void {
    this.#counters.copied++
    this.#flights.settle(flight)
  }

  /** Unless nobody wants it any more. */
  #fetch(flight: Flight): void {
    if (flight.waiters.size === 0) this.#drop(flight)
    else this.#batches.add(flight)
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
      waiter.settled(chunk, unwanted(chunk))
    }
    for (const request of touched) this.#requests.abandon(request)
  }

  #drop(flight: Flight): void {
    this.#leave(flight)
    this.#flights.drop(flight)
  }

  /** Takes a flight out of whatever it waits in. */
  #leave(flight: Flight): void {
    this.#checks.delete(flight)
    this.#copies.delete(flight)
    this.#batches.delete(flight)
    this.#requests.leave(flight)
  }

  /** Runs to the end whatever happens; close waits for it. `work` handles its own errors: one that escapes is a bug, and shows. */
  #track(work: Promise<void>): void {
    this.#work.add(work)
    void work.finally(() => this.#work.delete(work))
  }
}
