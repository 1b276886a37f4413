// The deadlines and bounds of talking to registries, in one place.

/** Each has its reason at its default, `LIMITS`, or here. */
export interface Limits {
  /** TCP and TLS. */
  connectMs: number
  /** From sending a request to the first byte of its answer. */
  headersMs: number
  /** In each such span of time … */
  windowMs: number
  /** … a body brings at least so many bytes, or its rest. Stalls and trickles end here. */
  windowBytes: number
  /** A request with its body, from its turn in the queue; more for long bodies (TOTAL_BYTES_PER_MS). */
  totalMs: number
  /** Tries of one idempotent request, the first included. */
  attempts: number
  /** The first pause between tries; doubled each time, jittered, at most `pauseMaxMs`. */
  pauseMs: number
  pauseMaxMs: number
  /** A Retry-After beyond it is an answer: unavailable. */
  retryAfterMaxMs: number
  /** Streams of one HTTP/2 session. */
  streams: number
  /** Connections to a host that speaks only HTTP/1.1. */
  connections: number
}

/** What holds unless a test says otherwise. */
export const LIMITS: Readonly<Limits> = {
  connectMs: 10_000,
  headersMs: 15_000,
  windowMs: 10_000,
  // 6.4 KiB/s: below it a reader waits longer than for another try
  windowBytes: 64 << 10,
  totalMs: 60_000,
  attempts: 4,
  pauseMs: 200,
  pauseMaxMs: 5_000,
  retryAfterMaxMs: 20_000,
  // enough to fill a long fat link with 256 KiB windows, few enough that demand is not queued behind it at the server
  streams: 16,
  // what browsers use for a host
  connections: 6,
}
