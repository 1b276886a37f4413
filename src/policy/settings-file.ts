// Policies, keys and lookaside files: small, bounded, regular.
import { constants } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { Failure } from '../errors.ts'

/** No policy, keyring or drop-in comes near it. */
export const SETTINGS_MAX_BYTES = 1 << 20

/** The bytes of a file, undefined where there is none. @throws Failure system, limit, usage (no regular file) */
export async function readBytes(path: string, maxBytes = SETTINGS_MAX_BYTES): Promise<Uint8Array | undefined> {
  try {
    // neither a FIFO nor a device may keep us waiting
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      if (!(await file.stat()).isFile()) throw Failure.usage(`${path} is no regular file`)
      const buffer = new Uint8Array(maxBytes + 1)
      let size = 0
      for (;;) {
        const { bytesRead } = await file.read(buffer, size, buffer.length - size)
        if (bytesRead === 0) return buffer.slice(0, size)
        size += bytesRead
        if (size > maxBytes) throw Failure.limit(`${path} is larger than ${maxBytes} bytes`)
      }
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (isAbsent(cause)) return undefined
    throw cause instanceof Failure ? cause : Failure.system(`cannot read ${path}`, { cause })
  }
}

/** Whether there is something at `path`. @throws Failure system */
export async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (cause) {
    if (isAbsent(cause)) return false
    throw Failure.system(`cannot look at ${path}`, { cause })
  }
}

/** Whether an error says that there is no such file or folder. */
export function isAbsent(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ENOENT' || code === 'ENOTDIR'
}
