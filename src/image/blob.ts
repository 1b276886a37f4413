// Random access to stored bytes, whoever keeps them (a registry, an OCI layout).
import type { Digest } from './digest.ts'

/** Bytes `start` up to, not including, `end`. */
export interface Range {
  start: number
  end: number
}

/** Demand (somebody is waiting for these bytes) passes prefetch (somebody will be soon), and both pass the background (nobody may ever be). */
export type Priority = 'demand' | 'prefetch' | 'background'

/** Of one read in the background so much at most is on its way and not taken yet, where its source can hold it back. */
export const BACKGROUND_WINDOW_BYTES = 256 << 10

/** Who gives bytes. */
export interface Giver {
  /** A repository, as references name it (`registry.example.com/team/app`), or a layout (`oci:/dir`). */
  readonly repository: string
  /** Whether it gives them to anybody who asks, without credentials. */
  readonly anonymous: boolean
}

export interface ReadOptions {
  signal?: AbortSignal
  /** Default: demand. */
  priority?: Priority
  /** What came of these bytes before was wrong: where several have them, whoever gave them is asked last. */
  doubted?: boolean
  /**
   * Is handed each part of the range as it arrives, with its offset in the range, so that work on it can begin before the range is
   * complete. They are pieces of what `read` resolves with, in order and without gaps; where another source has to begin anew, they
   * are pieces of a new array, from offset 0 again. Unverified, as all that is read. A source that has no parts hands over none: what
   * was not handed over is in what `read` resolves with. A registry's waits for what it returns, and lets nothing more come meanwhile.
   */
  onPart?: (part: Uint8Array, at: number) => Promise<void> | void
  /** Is told who gives the bytes, and awaited, before any of them is handed over. A source that does not know never calls it. */
  onGiver?: (giver: Giver) => Promise<void>
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
