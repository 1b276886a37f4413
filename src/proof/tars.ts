// Tars of layers that were read whole, each in a file without a name until nobody has read it for a while.
import type { FileHandle } from 'node:fs/promises'
import { describe } from '../errors.ts'
import type { Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import { FileBlob } from '../layer/file-blob.ts'

/** Filling a device reads its tar in a few seconds; whoever comes later has it decompressed again. */
const IDLE_MS = 60_000

interface Tar {
  file: FileHandle
  reading: number
  idle: NodeJS.Timeout | undefined
}

export class Tars {
  readonly #log: (message: string) => void
  readonly #tars = new Map<Digest, Tar>()

  constructor(log: (message: string) => void) {
    this.#log = log
  }

  /** @param file is closed here */
  keep(diffId: Digest, file: FileHandle): void {
    const known = this.#tars.get(diffId)
    if (known !== undefined) this.#drop(file)
    const tar = known ?? { file, reading: 0, idle: undefined }
    this.#tars.set(diffId, tar)
    this.#watch(diffId, tar)
  }

  /** Undefined: it is not kept (any more). @throws Failure corrupt: the tar ends before `range` does */
  read(diffId: Digest, range: Range): Promise<Uint8Array> | undefined {
    const tar = this.#tars.get(diffId)
    return tar && this.#read(diffId, tar, range)
  }

  async close(): Promise<void> {
    const tars = [...this.#tars.values()]
    this.#tars.clear()
    for (const { file, idle } of tars) {
      clearTimeout(idle)
      await file.close()
    }
  }

  async #read(diffId: Digest, tar: Tar, range: Range): Promise<Uint8Array> {
    tar.reading++
    try {
      return await new FileBlob({ digest: diffId, size: range.end }, tar.file).read(range)
    } finally {
      tar.reading--
      this.#watch(diffId, tar)
    }
  }

  #watch(diffId: Digest, tar: Tar): void {
    clearTimeout(tar.idle)
    tar.idle = setTimeout(() => {
      if (tar.reading > 0 || this.#tars.get(diffId) !== tar) return // whoever reads watches again afterwards; or it was closed
      this.#tars.delete(diffId)
      this.#drop(tar.file)
    }, IDLE_MS).unref()
  }

  #drop(tar: FileHandle): void {
    tar.close().catch((error) => this.#log(`a tar cannot be closed: ${describe(error)}`))
  }
}
