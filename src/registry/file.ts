// Settings files: small, bounded, absent more often than not.
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { Failure } from '../errors.ts'

/** No auth file, registries.conf or certificate comes near it. */
export const FILE_MAX_BYTES = 1 << 20

/** The text of a file, undefined where there is none. @throws Failure system, limit */
export async function readText(path: string, maxBytes: number = FILE_MAX_BYTES): Promise<string | undefined> {
  try {
    // neither a FIFO nor a device may keep us waiting
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      if (!(await file.stat()).isFile()) throw Failure.usage(`${path} is no regular file`)
      const buffer = new Uint8Array(maxBytes + 1)
      let size = 0
      for (;;) {
        const { bytesRead } = await file.read(buffer, size, buffer.length - size)
        if (bytesRead === 0) break
        size += bytesRead
        if (size > maxBytes) throw Failure.limit(`${path} is larger than ${maxBytes} bytes`)
      }
      return new TextDecoder().decode(buffer.subarray(0, size))
    } finally {
      await file.close()
    }
  } catch (cause) {
    if (isAbsent(cause)) return undefined
    if (cause instanceof Failure) throw cause
    throw Failure.system(`cannot read ${path}`, { cause })
  }
}

/** Whether an error says that there is no such file or folder. */
export function isAbsent(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return code === 'ENOENT' || code === 'ENOTDIR'
}
