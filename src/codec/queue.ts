// What waits for a codec worker. Somebody who waits goes first; then what is fetched ahead; and what an earlier life left is read
// back when nothing else is to do, by one worker at a time, so that another one is free whenever somebody comes, and with rests
// while somebody does.
//
//   demand      decode, verify      somebody waits
//   ahead       decode, copy        stored bytes that are in memory until they are decoded; pieces on other devices
//   background  verify              whole caches after a restart: minutes of it
import { Failure } from '../errors.ts'
import type { Priority } from '../image/blob.ts'
import type { Job } from './job.ts'

/** Whom a chunk is for. */
export interface Turn {
  priority: Priority
  /** Ends the wait for a worker; what a worker has begun it ends. */
  signal?: AbortSignal
  /** Is given what to call when somebody begins to wait for the chunk. */
  onUrgent?(call: () => void): void
}

export interface Waiting {
  readonly job: Job
  resolve(bytes: number): void
  reject(failure: Failure): void
}

// A hop to a worker costs as much as decoding 64 KiB, so small chunks travel together; but not so many that whoever comes meanwhile waits
// long. Only those who wait themselves may take more of a worker's time.
const BATCH_MAX_CHUNKS: Readonly<Record<Priority, number>> = { demand: 32, prefetch: 8, background: 8 }
const BATCH_MAX_BYTES = 2 ** 20
// While other threads are idle, chunks of this size go to them one by one.
const BATCH_MIN_BYTES = 128 * 1024
// Whoever comes while the only thread reads back waits for no more than a chunk.
const BACKGROUND_MAX_BYTES = 128 * 1024
// Of each kind, so that what waits of one keeps nobody of another out. All who ask have bounds of their own: 64 chunks a request or
// device for demand (32 and 8 for the others), 512 requests under way, a thousand devices.
const WAITING_MAX_CHUNKS = 65_536
const BACKGROUND_BATCHES_MAX = 1
// A thread of its own is not enough where threads are as many as processors: whoever waits would wait for the system's turns. So the
// background rests three times as long as it works while somebody reads, who is taken to go on for a while.
const DEMAND_LASTS_MS = 100
const REST_TIMES = 3
const REST_MAX_MS = 50

const KINDS = ['demand', 'ahead', 'background'] as const
export type Kind = (typeof KINDS)[number]

export interface Batch {
  readonly kind: Kind
  readonly all: readonly Waiting[]
}

/** One that waits, and how to let it go. */
interface Entry {
  readonly waiting: Waiting
  /** Ends its interest in the signal. */
  leave(): void
}

export class Queue {
  readonly #waiting: Readonly<Record<Kind, Set<Entry>>> = { demand: new Set(), ahead: new Set(), background: new Set() }
  readonly #running: Record<Kind, number> = { demand: 0, ahead: 0, background: 0 }
  readonly #now: () => number
  /** When somebody last began to wait. */
  #demandAt = Number.NEGATIVE_INFINITY

  /** @param now a clock, in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Rejects it at once when there are too many, or the signal has aborted. */
  add(waiting: Waiting, turn: Turn): void {
    const { signal } = turn
    if (signal?.aborted) {
      waiting.reject(gaveUp(signal))
      return
    }
    let kind: Kind = turn.priority === 'demand' ? 'demand' : waiting.job.from === 'kept' ? 'background' : 'ahead'
    if (this.#waiting[kind].size >= WAITING_MAX_CHUNKS) {
      waiting.reject(Failure.limit(`${WAITING_MAX_CHUNKS} chunks wait for a codec worker already`))
      return
    }
    const abort = () => {
      if (this.#waiting[kind].delete(entry)) waiting.reject(gaveUp(signal as AbortSignal)) // whose listener this is
    }
    const entry: Entry = { waiting, leave: () => signal?.removeEventListener('abort', abort) }
    this.#waiting[kind].add(entry)
    if (kind === 'demand') this.#demandAt = this.#now()
    signal?.addEventListener('abort', abort, { once: true })
    turn.onUrgent?.(() => {
      if (!this.#waiting[kind].delete(entry)) return
      kind = 'demand'
      this.#demandAt = this.#now()
      this.#waiting.demand.add(entry)
    })
  }

  /** Whether another worker would have something to do. */
  get hasNext(): boolean {
    return this.#nextKind() !== undefined
  }

  /** Whether somebody waits. */
  get hasUrgent(): boolean {
    return this.#waiting.demand.size > 0
  }

  /**
   * What a worker does next, if anything; the caller says when it has ended.
   * @param idle how many workers have nothing to do, that one included
   */
  take(idle: number): Batch | undefined {
    const kind = this.#nextKind()
    if (kind === undefined) return undefined
    this.#running[kind]++
    const all: Waiting[] = []
    const [sharing, bytes] = kind === 'background' ? [1, BACKGROUND_MAX_BYTES] : [idle, BATCH_MAX_BYTES]
    const chunks = BATCH_MAX_CHUNKS[kind === 'demand' ? 'demand' : 'prefetch']
    for (const entry of nextOf(this.#waiting[kind], sharing, { chunks, bytes })) {
      this.#waiting[kind].delete(entry)
      entry.leave()
      all.push(entry.waiting)
    }
    return { kind, all }
  }

  ended({ kind }: Batch): void {
    this.#running[kind]--
  }

  /** How long to wait with `ended` after a batch, whose worker is free, so that no other of its kind begins meanwhile. */
  restMs({ kind }: Batch, tookMs: number): number {
    if (kind !== 'background' || this.#now() - this.#demandAt > DEMAND_LASTS_MS) return 0
    return Math.min(REST_TIMES * tookMs, REST_MAX_MS)
  }

  /** Rejects all that waits. */
  fail(failure: Failure): void {
    for (const waiting of Object.values(this.#waiting)) {
      for (const entry of waiting) {
        waiting.delete(entry)
        entry.leave()
        entry.waiting.reject(failure)
      }
    }
  }

  #nextKind(): Kind | undefined {
    const mayBegin = (kind: Kind) => kind !== 'background' || this.#running.background < BACKGROUND_BATCHES_MAX
    return KINDS.find((kind) => this.#waiting[kind].size > 0 && mayBegin(kind))
  }
}

/** The first of them, as many as travel together while so many workers are idle. */
function nextOf(waiting: ReadonlySet<Entry>, idle: number, max: { chunks: number; bytes: number }): Entry[] {
  const candidates = [...waiting.values().take(max.chunks * idle)]
  const share = candidates.reduce((sum, each) => sum + weight(each), 0) / idle
  const most = Math.min(max.bytes, Math.max(BATCH_MIN_BYTES, share))
  let bytes = 0
  const beyond = candidates.findIndex((each, i) => {
    bytes += weight(each)
    return i === max.chunks || (i > 0 && bytes > most)
  })
  return beyond < 0 ? candidates : candidates.slice(0, beyond)
}

/** Bytes a worker has to go through, roughly; decoded ones for a chunk that is read back. */
function weight({ waiting: { job } }: Entry): number {
  return job.from instanceof Uint8Array ? job.from.length : job.chunk.size
}

function gaveUp({ reason }: AbortSignal): Failure {
  return Failure.aborted('a chunk is not wanted any more', { cause: reason })
}
