// What travels between the pool and its workers: plain objects, because an error loses its class on the way.
import { type Code, Failure } from '../errors.ts'
import type { Chunk } from '../tree/chunk.ts'

/** Where a chunk goes. */
export interface Slot {
  /** Descriptors open in this process until the call is settled; threads share them. */
  deviceFd: number
  readyFd: number
  /** Index of the chunk's ready byte. */
  chunk: number
  /** Where checksums of the device's blocks begin in the ready file; absent: none are kept. */
  sumsAt?: number
}

/** Where bytes of a decoded chunk may be, which its checks then tell: on another tree's device. */
export interface Piece {
  /** As a slot's. */
  fd: number
  at: number
  /** In the decoded chunk. */
  start: number
  end: number
}

export interface Job {
  chunk: Chunk
  slot: Slot
  /** What the chunk is made of: its stored bytes, or pieces of it; 'kept': what an earlier process left in its places. */
  from: Uint8Array | readonly Piece[] | 'kept'
}

/** `bytes`: how many verified bytes the places hold. */
export type Outcome = { bytes: number } | { failed: Failed }

export interface Failed {
  code: Code
  what: string
  why: string | undefined
  fix: string | undefined
  /** `ENOSPC` … where the system refused. */
  errno: string | undefined
}

/** What a pool hands to each of its workers. */
export interface WorkerSetup {
  /** null: serve with the fallback. */
  module: WebAssembly.Module | null
}

export function pack(error: unknown): Failed {
  if (error instanceof Failure) {
    const { code, message: what, why, fix, cause } = error
    return { code, what, why, fix, errno: errnoOf(cause) }
  }
  const why = error instanceof Error ? error.message : String(error)
  return { code: 'system', what: 'a codec worker failed', why, fix: undefined, errno: errnoOf(error) }
}

/** The Failure as it was; its cause keeps only message and `code`. */
export function unpack({ code, what, why, fix, errno }: Failed): Failure {
  return new Failure(code, what, {
    ...(why !== undefined && { why }),
    ...(fix !== undefined && { fix }),
    ...(errno !== undefined && { cause: Object.assign(new Error(why), { code: errno }) }),
  })
}

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}
