// The deadlines and bounds of talking to registries, in one place.

/** Each has its reason at its default, `LIMITS`, or here. */
export interface Limits {
  /** A connection must stand after so long, TCP and TLS. */
  connectMs: number
  /**
   * An attempt is given up when its host has given nothing for so long, to it or to others: no answer, or less than a flow. Whoever
   * waits tries again, on a connection of its own.
   */
  stallMs: number
  /** In each such span of time … */
  windowMs: number
  /** … a host's bodies together bring at least so many bytes, or one of them its end: else it gives nothing. */
  windowBytes: number
  /** A stream that others overtake has so long … */
  streamMs: number
  /** … for so many bytes, or its end: else it is tried again. */
  streamBytes: number
  /**
   * Overtaken is one of which so many requests that were made later have come to their end. On a slow link all wait, and some servers send
   * one stream after the other.
   */
  overtakes: number
  /** A read that somebody waits for, and of which nothing comes for so long, is asked for on a second connection as well. */
  hedgeMs: number
  /** A document or token, from its turn in the queue. Bytes of blobs may take as long as their host gives. */
  totalMs: number
  /** A read is given up when its host has given nothing for so long … */
  patienceMs: number
  /** … and when it was refused, or failed, for at least so long. */
  bearMs: number
  /** What was given up is probed after that time, then after twice as long each time, at most `probeMaxMs`. */
  probeMs: number
  probeMaxMs: number
  /** A registry has so long to put away what was sent to it. */
  commitMs: number
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
  // what a registry that fetches a blob from another takes to begin, usually
  stallMs: 15_000,
  windowMs: 10_000,
  // 6.4 KiB/s, over all streams: below it a reader waits longer than for another try
  windowBytes: 64 << 10,
  // a forty-eighth of the host's floor: its share of `streams`
  streamMs: 60_000,
  streamBytes: 8 << 10,
  // all other streams of a connection, once
  overtakes: 48,
  // most answers begin within a second; one request more, to a host that is merely slow, does little harm
  hedgeMs: 5_000,
  totalMs: 60_000,
  // programs are to hear of it within 60 s: three attempts, and some time for what is slow on our side
  patienceMs: 45_000,
  // a registry is restarted in less
  bearMs: 10_000,
  probeMs: 1_000,
  probeMaxMs: 5_000,
  // it hashes a large blob, and may copy it within its storage
  commitMs: 300_000,
  attempts: 4,
  pauseMs: 200,
  pauseMaxMs: 5_000,
  retryAfterMaxMs: 20_000,
  // scattered small reads fill a link as well: 48 of 10 KiB are 100 Mbit/s at 40 ms. Large ones have narrower bounds (fetch/budget.ts), so
  // that demand is not queued behind them at the server; servers allow 100 or more
  streams: 48,
  // what browsers use for a host
  connections: 6,
}
