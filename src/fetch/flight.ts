// What the filler knows of a chunk between the first wish for it and its end.
//
//   unchecked -> checking -> ready                      bytes of an earlier life that still match
//                   |
//                   v
//                queued -> fetching -> decoding -> ready
//                   ^                     |
//                   +------ corrupt, once +-> failed
import type { Priority, Range } from '../image/blob.ts'

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
  /** Chunks of it that were corrupt and are fetched again. */
  retries: number
}
