// What tars are called that are shown as something else: nothing is compared, so one may be read before anybody knows its tree.
import type { FileHandle } from 'node:fs/promises'
import type { IndexBuilder } from '../format/parser.ts'
import type { RawExamined } from '../format/raw-split.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Limit } from '../limit.ts'
import type { Store } from '../store/store.ts'
import type { DiskShare } from './disk-share.ts'
import { withSplit } from './split-files.ts'

/** More than are proven at once; what is forgotten is read again. */
const KNOWN_MAX = 64

export interface RawTarsParts {
  wholes: Store['wholes']
  builder: Pick<IndexBuilder, 'examineRaw'>
  /** Shared with all that reads layers whole, as is the room on disk. */
  turns: Limit
  room: DiskShare
  /** Ends whatever is under way. */
  signal: AbortSignal
}

export class RawTars {
  readonly #parts: RawTarsParts
  /** By blob, the last ones. */
  readonly #known = new Map<Digest, Promise<RawExamined>>()

  constructor(parts: RawTarsParts) {
    this.#parts = parts
  }

  /**
   * What a layer's tar is called. What was found out lately, or is being found out, is not read again.
   * @param file holds the blob
   * @throws Failure corrupt, limit, system
   */
  read(layer: Descriptor, file: FileHandle): Promise<RawExamined> {
    const known = this.#known.get(layer.digest)
    if (known !== undefined && !this.#parts.signal.aborted) return known
    const [oldest] = this.#known.keys()
    if (this.#known.size >= KNOWN_MAX && oldest !== undefined) this.#known.delete(oldest)
    const found = this.readAgain(layer, file)
    this.#known.set(layer.digest, found)
    found.catch(() => this.#known.delete(layer.digest)) // whoever waits is told
    return found
  }

  /** The same, and the split file, which has all of the tar, is kept. */
  readAgain(layer: Descriptor, file: FileHandle): Promise<RawExamined> {
    const { wholes, builder, turns, room, signal } = this.#parts
    const read = () =>
      withSplit(wholes, (split) => {
        const written = async () => (await split.stat()).size
        const examine = (tarMaxBytes: number) =>
          builder.examineRaw({ layer, blobFd: file.fd, splitFd: split.fd, tarMaxBytes }, { signal })
        return room.half(written, examine, signal)
      })
    return turns.take(read, signal)
  }

  /** When nothing is under way; `signal` has it end. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#known.values())
  }
}
