// A file's bytes, a chunk at a time.
import { type FileHandle, open } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { SourceEntry } from './source-entry.ts'

export function sizeOf({ content }: SourceEntry): number {
  if (content === undefined) return 0
  return content instanceof Uint8Array ? content.length : content.size
}

/**
 * Pieces of `chunkBytes`, the last one shorter; each a buffer of its own.
 * @throws Failure system: also when the file is not as long as it was
 */
export async function* chunksOf({ content }: SourceEntry, chunkBytes: number): AsyncGenerator<Uint8Array> {
  if (content === undefined) return
  if (content instanceof Uint8Array) {
    for (let at = 0; at < content.length; at += chunkBytes) yield content.slice(at, at + chunkBytes)
    return
  }
  let handle: FileHandle
  try {
    handle = await open(content.file)
  } catch (cause) {
    throw Failure.system(`cannot open ${content.file}`, { cause })
  }
  try {
    for (let at = 0; at < content.size; at += chunkBytes) {
      const piece = new Uint8Array(Math.min(chunkBytes, content.size - at))
      for (let done = 0; done < piece.length; ) {
        const { bytesRead } = await handle.read(piece, done, piece.length - done, at + done)
        if (bytesRead === 0) throw Failure.system(`${content.file} became shorter while it was read`)
        done += bytesRead
      }
      yield piece
    }
  } finally {
    await handle.close()
  }
}
