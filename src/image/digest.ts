// Content digests as the OCI image specification writes them: `sha256:` and 64 hex digits.
import { createHash, type Hash } from 'node:crypto'
import { Failure } from '../errors.ts'

export type Digest = `sha256:${string}`

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
export function hex(digest: Digest): string {
  return digest.slice('sha256:'.length)
}

export function digestOf(bytes: Uint8Array): Digest {
  return finish(createHash('sha256').update(bytes))
}

export function finish(hash: Hash): Digest {
  return `sha256:${hash.digest('hex')}`
}
