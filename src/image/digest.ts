// Content digests as the OCI image specification writes them: `sha256:` and 64 hex digits.
import { createHash, type Hash } from 'node:crypto'
import { Failure } from '../errors.ts'

export type Digest = `sha256:${string}`

/** What a chunk's bytes are checked by: indexes of other formats than OCI's choose an algorithm of their own. */
export type ChunkDigest = Digest | `blake3:${string}`

const PATTERN = /^sha256:[0-9a-f]{64}$/

export function isDigest(text: unknown): text is Digest {
  return typeof text === 'string' && PATTERN.test(text)
}

/** @throws Failure corrupt when `text` is no SHA-256 digest; `of` names what bears it. */
export function parseDigest(text: unknown, of: string): Digest {
  if (isDigest(text)) return text
  throw Failure.corrupt(`${of}: ${JSON.stringify(text)} is no sha256 digest`)
}

/** The 64 hex digits of a digest. */
export function hex(digest: ChunkDigest): string {
  return digest.slice(digest.indexOf(':') + 1)
}

export function algorithmOf(digest: ChunkDigest): 'sha256' | 'blake3' {
  return digest.startsWith('blake3:') ? 'blake3' : 'sha256'
}

export function digestOf(bytes: Uint8Array): Digest {
  return finish(createHash('sha256').update(bytes))
}

export function finish(hash: Hash): Digest {
  return `sha256:${hash.digest('hex')}`
}
