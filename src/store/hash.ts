// The digest of a file on disk.
import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { type Digest, finish } from '../image/digest.ts'
import { systemCode } from './durable.ts'

const HASHED_AT_ONCE_BYTES = 1 << 20

/** Of all of it, from its beginning. Undefined when a sector cannot be read. */
export async function hashFile(file: FileHandle): Promise<Digest | undefined> {
  const hash = createHash('sha256')
  const buffer = new Uint8Array(HASHED_AT_ONCE_BYTES)
  try {
    for (let at = 0; ; ) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, at)
      if (bytesRead === 0) return finish(hash)
      hash.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
  } catch (error) {
    if (systemCode(error) === 'EIO') return undefined
    throw error
  }
}
