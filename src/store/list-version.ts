// Which version of the list of layers was shown last, so that the next process shows the same contents as the same version: engines that
// know it do not read it again, and none takes other contents for it, whatever the clock says. Lost, it costs them one look.
import { join } from 'node:path'
import { describe } from '../errors.ts'
import { type Digest, digestOf, hex, isDigest } from '../image/digest.ts'
import { makeFolderIfTaken, readWhole, replaceFile } from './durable.ts'
import { decodeRecord, encodeRecord } from './record.ts'
import { TEMPORARY } from './version.ts'

export interface ShownVersion {
  /** Nanoseconds since 1970; no two versions have the same. */
  version: bigint
  contents: Digest
}

const FOLDER = 'listed'
const FILE_MAX_BYTES = 64 << 10
/** Lists change in bursts, and only the last one counts. */
const KEEP_AFTER_MS = 1_000

export class ListVersion {
  /** As the last process left it. */
  readonly restored: ShownVersion | undefined
  readonly #cache: string
  readonly #root: string
  readonly #warn: (message: string) => void
  #next: { version: bigint; bytes: Uint8Array } | undefined
  #timer: NodeJS.Timeout | undefined
  #writing = Promise.resolve()

  private constructor(
    cache: string,
    root: string,
    warn: (message: string) => void,
    restored: ShownVersion | undefined,
  ) {
    this.#cache = cache
    this.#root = root
    this.#warn = warn
    this.restored = restored
  }

  /**
   * @param cache directory of an open Store
   * @param root where the list is shown: agents with other roots may share the cache
   * @throws Failure system
   */
  static async open(cache: string, root: string, warn: (message: string) => void): Promise<ListVersion> {
    await makeFolderIfTaken(join(cache, FOLDER))
    const bytes = await readWhole(pathOf(cache, root), FILE_MAX_BYTES)
    const record = bytes === undefined || bytes === 'damaged' ? undefined : decodeRecord(bytes)
    return new ListVersion(cache, root, warn, versionIn(record, root))
  }

  /** It is shown from now on. */
  keep(version: bigint, bytes: Uint8Array): void {
    this.#next = { version, bytes }
    this.#timer ??= setTimeout(() => void this.close(), KEEP_AFTER_MS).unref()
  }

  /** Resolves when what is shown is on disk, or cannot be, which is logged. */
  async close(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(() => this.#write())
    await this.#writing
  }

  async #write(): Promise<void> {
    if (this.#next === undefined) return
    const { version, bytes } = this.#next
    this.#next = undefined
    const record = { root: this.#root, version: String(version), contents: digestOf(bytes) }
    try {
      await replaceFile(join(this.#cache, TEMPORARY), pathOf(this.#cache, this.#root), encodeRecord(record))
    } catch (error) {
      this.#warn(`the list's version is not kept: ${describe(error)}`)
    }
  }
}

function pathOf(cache: string, root: string): string {
  return join(cache, FOLDER, `version-${hex(digestOf(new TextEncoder().encode(root)))}.json`)
}

function versionIn(record: unknown, root: string): ShownVersion | undefined {
  if (typeof record !== 'object' || record === null) return undefined
  if (!('root' in record && 'version' in record && 'contents' in record) || record.root !== root) return undefined
  const { version, contents } = record
  if (typeof version !== 'string' || !/^\d{1,19}$/.test(version) || !isDigest(contents)) return undefined
  return { version: BigInt(version), contents }
}
