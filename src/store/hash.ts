// Files on disk whose digest is known: it is looked at before they are used.
import { createHash } from 'node:crypto'
import fs, { type FileHandle } from 'node:fs/promises'
import { type Digest, finish } from '../image/digest.ts'
import { ABSENT, diskFailure, systemCode, UNREADABLE } from './durable.ts'

const HASHED_AT_ONCE_BYTES = 1 << 20

/** The digest of all of it, from its beginning. Undefined when a sector cannot be read. */
async function hashFile(file: FileHandle): Promise<Digest | undefined> {
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
    if (UNREADABLE.has(systemCode(error))) return undefined
    throw error
  }
}

/**
 * The file, all of it hashed just now; the caller closes it. Undefined where there is none; `found` where it has another digest than
 * it should have (undefined: it cannot be read).
 * @throws Failure system
 */
export async function openHashed(
  path: string,
  digest: Digest,
): Promise<FileHandle | undefined | { found: Digest | undefined }> {
  let file: FileHandle
  try {
    file = await fs.open(path, 'r')
  } catch (cause) {
    if (ABSENT.has(systemCode(cause))) return undefined
    throw diskFailure(path, cause)
  }
  let found: Digest | undefined
  try {
    found = await hashFile(file)
    if (found === digest) return file
  } catch (cause) {
    await file.close()
    throw diskFailure(path, cause)
  }
  await file.close()
  return { found }
}
