// What the rest of the agent knows of registries and layouts: where an image comes from.

import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Blob, ReadOptions } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest, Platform } from '../image/manifest.ts'
import type { Image, ResolveOptions } from './manifests.ts'

/** One reference, made by `Registries.source`. */
export interface ImageSource {
  /** @throws Failure missing, denied, corrupt, limit, unsupported, unavailable, timeout, aborted */
  resolve(platform: Platform, options?: ResolveOptions): Promise<Image>
  /** The manifest alone. @throws Failure as resolve */
  manifest(platform: Platform, options?: { signal?: AbortSignal }): Promise<Manifest>
  /** No I/O happens before it is read. */
  blob(descriptor: Descriptor): StoredBlob
  /** Bytes that a blob has of which no descriptor says it; undefined: it is not there. @throws Failure as resolve */
  sizeOf(digest: Digest, options?: { signal?: AbortSignal }): Promise<number | undefined>
}

/** A blob that can also be read from its first byte to its last. */
export interface StoredBlob extends Blob {
  /** The registry's host, as references name it, or the layout: those of one origin share what it bears. */
  readonly origin: string
  /**
   * Hands all bytes in order to `take`, waiting for it; unverified, exactly `size` of them.
   * @throws Failure as `read`, or what `take` throws
   */
  stream(take: (bytes: Uint8Array) => Promise<void>, options?: StreamOptions): Promise<void>
}

/** Hashes a file while it is written, in another thread. */
export interface Hashing {
  /** All of it up to `end` may be read. Waits where hashing falls far behind. */
  written(end: number): Promise<void>
  /** Of all that was written. */
  digest(): Promise<Digest>
}
/** How a stream is wanted; its parts go to `take`. */
export type StreamOptions = Omit<ReadOptions, 'onPart'>

/** Parts are gathered up to that size, so that a write is worth its system call. */
const WRITE_BYTES = 1 << 20

/**
 * Writes a whole blob to `file` from its beginning, in bounded memory, and checks its digest. What a failed call has
 * written is unverified: the caller throws it away. `came` is told of each part's bytes.
 * @throws Failure corrupt (another digest), system, or what reading and hashing throw
 */
export async function fetchWhole(
  blob: StoredBlob,
  file: FileHandle,
  hashing: Hashing,
  options?: StreamOptions,
  came: (bytes: number) => void = () => {},
): Promise<void> {
  const gathered = new Uint8Array(WRITE_BYTES)
  let filled = 0
  let at = 0
  const flush = async () => {
    for (let from = 0; from < filled; ) {
      const { bytesWritten } = await file.write(gathered, from, filled - from, at).catch((cause) => {
        throw Failure.system(`cannot write blob ${blob.digest}`, { cause })
      })
      from += bytesWritten
      at += bytesWritten
    }
    filled = 0
    await hashing.written(at)
  }
  await blob.stream(async (bytes) => {
    came(bytes.length)
    for (let from = 0; from < bytes.length; ) {
      const part = bytes.subarray(from, from + gathered.length - filled)
      gathered.set(part, filled)
      filled += part.length
      from += part.length
      if (filled === gathered.length) await flush()
    }
  }, options)
  await flush()
  const digest = await hashing.digest()
  if (digest !== blob.digest) throw Failure.corrupt(`blob: want ${blob.digest}, got ${digest}`)
}
