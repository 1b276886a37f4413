// Exact blobs in files: fetched whole, their digests checked, kept while there is room.
import fs, { type FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Copies } from '../layer/copies.ts'
import { LimitEach } from '../limit.ts'
import { fetchWhole, type StoredBlob } from '../registry/source.ts'
import type { WholeFiles } from '../store/wholes.ts'
import type { DiskShare } from './disk-share.ts'

/** Of one origin, which may take FETCH_TIMEOUT_MS for nearly nothing: then its own wait. As many as engines pull at once. */
const FETCHES_AT_ONCE = 4
/** 10 GB at 100 Mbit/s take 800 s. */
const FETCH_TIMEOUT_MS = 900_000

type Files = Pick<WholeFiles, 'find' | 'begin' | 'keep' | 'hash'>

interface Fetch {
  ended: Promise<void>
  stop: AbortController
}

export class KeptBlobs {
  readonly #files: Files
  readonly #room: DiskShare
  readonly #signal: AbortSignal
  /** By origin. */
  readonly #turns = new LimitEach<string>(FETCHES_AT_ONCE)
  /**
   * By source: what one registry, or one repository's credentials, do not bring or bring wrong, is nobody else's. Several may be of
   * one repository: within one origin's turns each begins, and the first to end stops the others.
   */
  readonly #fetches = new Map<StoredBlob, Fetch>()

  /**
   * @param room on the files' disk
   * @param signal ends whatever is under way
   */
  constructor(files: Files, room: DiskShare, signal: AbortSignal) {
    this.#files = files
    this.#room = room
    this.#signal = signal
  }

  /**
   * The exact blob in a file, which the caller closes. Whoever asks for it by the same `blob` meanwhile waits for the same fetch.
   * @throws Failure corrupt (another digest), limit (larger than half of what the disk has left), timeout, system, what reading it throws
   */
  async of(blob: StoredBlob): Promise<FileHandle> {
    return await this.#file(blob.digest, () => this.#bring(blob))
  }

  /** The same, from whichever copy brings it. @throws Failure as `of` */
  async ofAny(copies: Copies<StoredBlob>): Promise<FileHandle> {
    return await this.#file(copies.digest, () => copies.whole((blob) => this.#bring(blob)))
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#fetches.values()].map(({ ended }) => ended))
  }

  async #file(digest: Digest, bring: () => Promise<void>): Promise<FileHandle> {
    const kept = await this.#files.find(digest)
    if (kept !== undefined) return kept
    const failure = await bring().then(
      () => Failure.system(`blob ${digest} cannot be kept`, { fix: 'Free space below the cache directory.' }),
      (error: unknown) => error,
    )
    const brought = await this.#files.find(digest) // perhaps by another registry
    if (brought === undefined) throw failure
    return brought
  }

  #bring(blob: StoredBlob): Promise<void> {
    const found = this.#fetches.get(blob)
    if (found !== undefined) return found.ended
    const stop = new AbortController()
    const signal = AbortSignal.any([this.#signal, stop.signal])
    const ended = this.#turns
      .take(blob.origin, () => this.#fetch(blob, signal), signal)
      .catch((error) => {
        if (!stop.signal.aborted) throw error // else it is here
      })
      .finally(() => this.#fetches.delete(blob))
    this.#fetches.set(blob, { ended, stop })
    return ended
  }

  async #fetch(blob: StoredBlob, stopped: AbortSignal): Promise<void> {
    // while it waited for its turn another may have brought it
    const kept = await this.#files.find(blob.digest)
    if (kept !== undefined) return await kept.close()
    const { file, path } = await this.#files.begin()
    const hashing = this.#files.hash(file)
    const deadline = AbortSignal.timeout(FETCH_TIMEOUT_MS)
    try {
      const signal = AbortSignal.any([stopped, deadline])
      const written = async () => (await file.stat()).size
      const fetch = () => fetchWhole(blob, file, hashing, { signal, priority: 'prefetch' })
      await this.#room.exactly(blob.size, `blob ${blob.digest}`, written, fetch, signal)
      await this.#files.keep(blob.digest, path)
    } catch (error) {
      if (stopped.aborted || !deadline.aborted) throw error
      throw Failure.timeout(`blob ${blob.digest} cannot be fetched`, {
        why: `it took longer than ${FETCH_TIMEOUT_MS / 1000} s`,
      })
    } finally {
      await hashing.close()
      await file.close()
      await fs.rm(path, { force: true })
    }
    // nobody has to wait for another registry now
    for (const [other, { stop }] of this.#fetches) {
      if (other !== blob && other.digest === blob.digest) stop.abort()
    }
  }
}
