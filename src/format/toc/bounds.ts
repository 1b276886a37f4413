// What bounds a table of contents, and what it must be by the manifest.
import { Failure } from '../../errors.ts'
import type { Digest } from '../../image/digest.ts'
import { digestInTurns } from '../index-bytes.ts'

/** Compressed; the largest images' tables have some megabytes. */
export const TOC_STORED_MAX_BYTES = 64 << 20
/** Inflated, with what is around it. */
export const TOC_MAX_BYTES = 512 << 20

/** @throws Failure limit: a compressed table has too many bytes to be read */
export function checkStored(bytes: number, what: string): void {
  if (bytes <= TOC_STORED_MAX_BYTES) return
  throw Failure.limit(`${what}: its table of contents has ${bytes} bytes compressed`, {
    why: `at most ${TOC_STORED_MAX_BYTES} are accepted`,
  })
}

/** @throws Failure limit: a table says of itself that it inflates to too many bytes */
export function checkInflated(bytes: number, what: string): void {
  if (bytes <= TOC_MAX_BYTES) return
  throw Failure.limit(`${what}: its table of contents is larger than ${TOC_MAX_BYTES} bytes`)
}

/** @throws Failure corrupt: another digest than the manifest promises */
export async function checkTocDigest(bytes: Uint8Array, want: Digest, what: string): Promise<void> {
  const got = await digestInTurns(bytes)
  if (got === want) return
  throw Failure.corrupt(`${what}: its table of contents differs from the manifest: want ${want}, got ${got}`, {
    fix: 'Pull from another registry, or push the image again: what this one sent was altered or mixed up.',
  })
}
