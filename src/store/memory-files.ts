// Files that the disk does not take: they are kept in memory, a few, until it does. They are whole, are never changed in place, and are
// this process's alone.
import { closeSync, fstatSync, readSync, writeSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import type { Disk } from './disk.ts'

/** Names, modes and places of some dozen layers; what is larger, or comes then, fails as the disk does. */
const ALL_MAX_BYTES = 64 << 20
/** Each is a descriptor. */
const FILES_MAX = 512

export class MemoryFiles {
  readonly #disk: Disk
  /** Their descriptors by path, the first first. */
  readonly #files = new Map<string, number>()
  readonly #maxBytes: number
  #bytes = 0

  constructor(disk: Disk, maxBytes = ALL_MAX_BYTES) {
    this.#disk = disk
    this.#maxBytes = maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  get paths(): string[] {
    return [...this.#files.keys()]
  }

  /** @returns false: there is no room for it. @throws what the system throws */
  keep(path: string, bytes: Uint8Array): boolean {
    this.forget(path)
    if (this.#bytes + bytes.length > this.#maxBytes || this.#files.size >= FILES_MAX) return false
    const fd = this.#disk.memoryFile('lazylayer-file')
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, done)
    } catch (error) {
      closeSync(fd)
      throw error
    }
    this.#files.set(path, fd)
    this.#bytes += bytes.length
    return true
  }

  /** All of it, on memory of its own; undefined when it is not here. */
  get(path: string): Uint8Array | undefined {
    const fd = this.#files.get(path)
    if (fd === undefined) return undefined
    const bytes = new Uint8Array(fstatSync(fd).size)
    for (let done = 0; done < bytes.length; ) done += readSync(fd, bytes, done, bytes.length - done, done)
    return bytes
  }

  sizeOf(path: string): number | undefined {
    const fd = this.#files.get(path)
    return fd === undefined ? undefined : fstatSync(fd).size
  }

  /** The caller closes it; it outlives what is kept here. */
  async open(path: string): Promise<FileHandle | undefined> {
    const fd = this.#files.get(path)
    return fd === undefined ? undefined : await reopened(fd, 'r')
  }

  forget(path: string): void {
    const fd = this.#files.get(path)
    if (fd === undefined) return
    this.#bytes -= fstatSync(fd).size
    this.#files.delete(path)
    closeSync(fd)
  }

  close(): void {
    for (const path of this.paths) this.forget(path)
  }
}

/** An empty file in memory, which the caller closes; it is gone then. @throws what the system throws */
export async function memoryFile(disk: Disk, name: string): Promise<FileHandle> {
  const fd = disk.memoryFile(name)
  try {
    return await reopened(fd, 'r+')
  } finally {
    closeSync(fd)
  }
}

/** The file of a descriptor, opened anew: what Node closes is its own. */
async function reopened(fd: number, flags: 'r' | 'r+'): Promise<FileHandle> {
  return await fs.open(`/proc/self/fd/${fd}`, flags)
}
