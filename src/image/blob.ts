// Random access to stored bytes, whoever keeps them (a registry, an OCI layout).
import type { Digest } from './digest.ts'

/** Bytes `start` up to, not including, `end`. */
export interface Range {
  start: number
  end: number
}

/** Demand (somebody is waiting for these bytes) passes prefetch. */
export type Priority = 'demand' | 'prefetch'

export interface ReadOptions {
  signal?: AbortSignal
  /** Default: demand. */
  priority?: Priority
}

export interface Blob {
  readonly digest: Digest
  /** Bytes, as the descriptor in the manifest says. */
  readonly size: number
  /**
   * Exactly the bytes of `range`, on memory of their own (an ArrayBuffer), which the caller may give away or back.
   * They are not verified: only their digests, checked after decoding, make them trustworthy.
   * @throws Failure missing, denied, unavailable, timeout, aborted, corrupt (answer contradicts itself)
   */
  read(range: Range, options?: ReadOptions): Promise<Uint8Array>
}
