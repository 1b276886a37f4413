// Exact blobs in files: fetched whole, their digests checked, kept while there is room.
import fs, { type FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Copies } from '../layer/candidates.ts'
import { LimitEach } from '../limit.ts'
import { fetchWhole, type StoredBlob } from '../registry/source.ts'
import type { GatheredBlobs } from '../store/gathered-blobs.ts'
import type { WholeFiles } from '../store/wholes.ts'
import type { DiskShare } from './disk-share.ts'
import { withGathered } from './with-gathered.ts'

/** Of one origin, which may be slow: then its own wait. As many as engines pull at once. */
const FETCHES_AT_ONCE = 4
/**
 * In each span so much of a blob must come, or the rest: 0.3 Mbit/s, and all of it within 16 hours, however large it is. Whoever sends
 * less keeps a turn, and room on disk that others may need.
 */
const SPAN_MS = 900_000
const SPAN_MIN_BYTES = 32 << 20
const SPANS_MAX = 64
/** In memory of one: what is on its way, and a part that is written. */
const IN_MEMORY_BYTES = 4 << 20

type Files = Pick<WholeFiles, 'find' | 'begin' | 'keep' | 'hash'>

interface Fetch {
  ended: Promise<void>
  stop: AbortController
  /** Told when bytes came. */
  moved: Set<() => void>
}

export interface BlobParts {
  /** What was read of blobs before, if that is kept. */
  readonly gathered?: Pick<GatheredBlobs, 'take'> | undefined
  /** Counts what is in memory of blobs that are being fetched. */
  readonly memory?: { counted(bytes: number): () => void }
}

export class KeptBlobs {
  readonly #files: Files
  readonly #room: DiskShare
  readonly #signal: AbortSignal
  readonly #parts: BlobParts
  /** By origin. */
  readonly #turns = new LimitEach<string>(FETCHES_AT_ONCE)
  /** By origin and digest: an origin is asked for a blob once at a time. */
  readonly #once = new LimitEach<string>(1)
  /**
   * By source: what one registry, or one repository's credentials, do not bring or bring wrong, is nobody else's. Of one origin the
   * next begins when the one before has failed; the first to end, of whatever origin, stops the others.
   */
  readonly #fetches = new Map<StoredBlob, Fetch>()

  /**
   * @param room on the files' disk
   * @param signal ends whatever is under way
   */
  constructor(files: Files, room: DiskShare, signal: AbortSignal, parts: BlobParts = {}) {
    this.#files = files
    this.#room = room
    this.#signal = signal
    this.#parts = parts
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
    return await this.#file(copies.digest, () => copies.whole((blob, moved) => this.#bring(blob, moved)))
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

  #bring(blob: StoredBlob, moved?: () => void): Promise<void> {
    const found = this.#fetches.get(blob)
    if (found !== undefined) {
      if (moved !== undefined) found.moved.add(moved)
      return found.ended
    }
    const stop = new AbortController()
    const told = new Set(moved === undefined ? [] : [moved])
    const signal = AbortSignal.any([this.#signal, stop.signal])
    const came = () => {
      for (const each of told) each()
    }
    const fetch = () => this.#fetch(blob, came, signal)
    const inTurn = () => this.#turns.take(blob.origin, fetch, signal)
    const ended = this.#once
      .take(`${blob.digest} ${blob.origin}`, inTurn, signal)
      .catch((error) => {
        if (!stop.signal.aborted) throw error // else it is here
      })
      .finally(() => this.#fetches.delete(blob))
    this.#fetches.set(blob, { ended, stop, moved: told })
    return ended
  }

  async #fetch(blob: StoredBlob, moved: () => void, stopped: AbortSignal): Promise<void> {
    // while it waited for its turn another may have brought it
    const kept = await this.#files.find(blob.digest)
    if (kept !== undefined) return await kept.close()
    const gathered = await this.#parts.gathered?.take(blob)
    if (gathered === undefined) return await this.#fetchAll(blob, moved, stopped)
    try {
      await this.#fetchAll(withGathered(blob, gathered), moved, stopped)
    } catch (error) {
      // a bit of what was read before was wrong, or of what came now
      if (!(error instanceof Failure) || error.code !== 'corrupt') throw error
      await this.#fetchAll(blob, moved, stopped)
    } finally {
      await gathered.file.close()
      await fs.rm(gathered.path, { force: true })
      gathered.end()
    }
  }

  async #fetchAll(blob: StoredBlob, moved: () => void, stopped: AbortSignal): Promise<void> {
    const { file, path } = await this.#files.begin()
    const hashing = this.#files.hash(file)
    const slow = new AbortController()
    const flow = flowOf(blob, slow)
    const gone = this.#parts.memory?.counted(IN_MEMORY_BYTES)
    try {
      const signal = AbortSignal.any([stopped, slow.signal])
      const written = async () => (await file.stat()).size
      const came = (bytes: number) => {
        flow.came(bytes)
        moved()
      }
      const fetch = () => fetchWhole(blob, file, hashing, { signal, priority: 'prefetch' }, came)
      await this.#room.exactly(blob.size, `blob ${blob.digest}`, written, fetch, signal)
      await this.#files.keep(blob.digest, path)
    } catch (error) {
      throw slow.signal.aborted && !stopped.aborted ? slow.signal.reason : error
    } finally {
      flow.end()
      gone?.()
      await hashing.close()
      await file.close()
      await fs.rm(path, { force: true })
    }
    // nobody has to wait for another registry now
    for (const [other, { stop }] of this.#fetches) {
      if (other.origin !== blob.origin && other.digest === blob.digest) stop.abort()
    }
  }
}

/** Aborts `slow` when too little of a blob comes, until `end`. */
function flowOf({ digest, size }: StoredBlob, slow: AbortController): { came(bytes: number): void; end(): void } {
  const wanted = Math.max(SPAN_MIN_BYTES, size / SPANS_MAX)
  let came = 0
  const looking = setInterval(() => {
    if (came < wanted) {
      const why = `${came} bytes of it came within ${SPAN_MS / 1000} s`
      slow.abort(Failure.timeout(`blob ${digest} cannot be fetched`, { why }))
    }
    came = 0
  }, SPAN_MS)
  return {
    came: (bytes) => {
      came += bytes
    },
    end: () => clearInterval(looking),
  }
}
