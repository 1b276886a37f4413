// Learns what a start reads: of each image that is opened, the files that programs read first, in their order, until nothing new is read for
// a while. What is fetched ahead, by whomever, counts for nothing: native code notes what the kernel asks for, and of that only counts
// what is in the cache of the files themselves, where the kernel's read-ahead of devices puts nothing.
//
//   open ──▶ waits ──first read──▶ reads ──quiet, or long enough, or the end──▶ kept
//
// Who reads a layer is not known: what is read of it belongs to every image that has it and is being watched. What the kernel has in its cache
// already is read without anybody being told, and so is a layer that it mounted complete.
import { describe } from '../errors.ts'
import { runs } from '../fetch/plan.ts'
import { LIMITS } from '../fetch/requests.ts'
import type { Digest } from '../image/digest.ts'
import { type Profile, type ProfileFile, STORED_RANGES_MAX, type StoredRanges } from '../image/profile.ts'
import { repositoryText } from '../image/reference.ts'
import type { FirstRead } from '../store/device.ts'
import type { Profiles } from '../store/profiles.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { DeviceRead, ReadFile } from '../tree/read-files.ts'
import type { ResolvedImage } from './image.ts'
import type { OpenLayer } from './layer.ts'
import { readImage } from './layer-image.ts'

/** What is watched. */
export type WatchedImage = Pick<ResolvedImage, 'reference' | 'digest'>
export type WatchedLayer = Pick<OpenLayer, 'chunks' | 'descriptor' | 'tree' | 'openImage'> & {
  slots: Pick<OpenLayer['slots'], 'noteReads' | 'takeReads' | 'ignoreReads'>
}

export interface RecorderParts {
  profiles: Pick<Profiles, 'keep' | 'of'>
  platform: string
  /** As readFiles (tree/), off the main thread. */
  filesOf(image: Uint8Array, reads: readonly DeviceRead[]): Promise<readonly ReadFile[]>
  /** As wantedChunks (tree/), off the main thread. */
  chunksOf(image: Uint8Array, chunks: ChunkTable, files: readonly ProfileFile[]): Promise<Iterable<number>>
  /**
   * Which parts of a layer's files programs have read; undefined: nobody reads more than they do.
   * @throws what the system throws, which does not always know
   */
  readParts(
    tree: Digest,
    parts: readonly { path: string; start: number; end: number }[],
  ): Promise<readonly boolean[] | undefined>
  /** Is told of an image that a program has begun to read, perhaps more than once; also where nothing of it was missing. */
  began?(image: WatchedImage): void
  log(message: string): void
  /** Milliseconds since 1970. */
  now?: () => number
}

/** A start is over when nothing new was read for so long: longer than a slow registry takes for a chunk, on most days. */
const QUIET_MS = 10_000
/** What is read later belongs to no start. */
const START_MAX_MS = 300_000
/** An image that nobody starts for so long after it was pulled is watched no more. */
const WAIT_MAX_MS = 24 * 60 * 60 * 1000
/** What was noted is taken so often; the notes themselves have times. */
const POLL_MS = 5_000
/** Images that are watched at once; the one that was opened first gives way. */
const WATCHED_MAX = 64
/** A start of which half was in the kernel's cache shows little: it only adds to what is known. */
const WHOLE_SHARE = 0.5

interface Watched {
  readonly image: WatchedImage
  readonly since: number
  /** By tree. */
  readonly layers: Map<Digest, WatchedLayer>
}

interface Noted {
  readonly layer: WatchedLayer
  readonly reads: FirstRead[]
}

export class Recorder {
  readonly #parts: RecorderParts
  readonly #now: () => number
  /** By manifest; the one that was opened first comes first. */
  readonly #watched = new Map<Digest, Watched>()
  /** By tree. */
  readonly #noted = new Map<Digest, Noted>()
  readonly #keeping = new Set<Promise<void>>()
  /** Called when an image is watched no more. */
  readonly #left = new Set<() => void>()
  #polling: NodeJS.Timeout | undefined

  constructor(parts: RecorderParts) {
    this.#parts = parts
    this.#now = parts.now ?? Date.now
  }

  /** Images that are watched now. */
  get size(): number {
    return this.#watched.size
  }

  /** Watches an image, of which this layer is open. */
  watch(image: WatchedImage, layer: WatchedLayer): void {
    const found = this.#watched.get(image.digest)
    const watched = found ?? { image, since: this.#now(), layers: new Map() }
    this.#watched.set(image.digest, watched)
    watched.layers.set(layer.tree, layer)
    const noted = this.#noted.get(layer.tree)
    // it may have been closed, and opened again, since an image of it was pulled
    if (noted?.layer.slots !== layer.slots) {
      noted?.reads.push(...noted.layer.slots.takeReads())
      layer.slots.noteReads()
      this.#noted.set(layer.tree, { layer, reads: noted?.reads ?? [] })
    }
    const [oldest] = this.#watched.values()
    if (this.#watched.size > WATCHED_MAX && oldest !== undefined) this.#leave(oldest)
    this.#polling ??= setInterval(() => this.poll(), POLL_MS).unref()
  }

  /**
   * Resolves when no start is being taken down that has read this tree, which takes some minutes at most: whoever mounts it anew makes it
   * impossible to tell what programs have read. Never rejects.
   */
  async over(tree: Digest): Promise<void> {
    this.#collect()
    while ([...this.#watched.values()].some((each) => each.layers.has(tree) && this.#startOf(each).length > 0)) {
      await new Promise<void>((resolve) => this.#left.add(resolve))
    }
    await Promise.all(this.#keeping)
  }

  /** Takes what was noted, and keeps the starts that are over. */
  poll(): void {
    this.#collect()
    const now = this.#now()
    for (const each of [...this.#watched.values()]) {
      const start = this.#startOf(each)
      const last = start.at(-1)
      if (last !== undefined) this.#parts.began?.(each.image)
      if (last === undefined ? now - each.since > WAIT_MAX_MS : now - last.ms > QUIET_MS) this.#end(each, start)
    }
  }

  /** Keeps what is known of starts, before what shows them is unmounted; resolves when that is done. Never rejects. */
  async end(): Promise<void> {
    this.#collect()
    for (const each of [...this.#watched.values()]) this.#end(each, this.#startOf(each))
    await Promise.all(this.#keeping)
  }

  #collect(): void {
    for (const { layer, reads } of this.#noted.values()) reads.push(...layer.slots.takeReads())
  }

  /** Reads since it is watched, in their order, up to the first quiet moment. */
  #startOf({ layers, since }: Watched): (FirstRead & { tree: Digest })[] {
    const reads = [...layers.keys()].flatMap((tree) =>
      (this.#noted.get(tree)?.reads ?? []).filter(({ ms }) => ms >= since).map((read) => ({ ...read, tree })),
    )
    reads.sort((a, b) => a.ms - b.ms)
    const begin = reads[0]?.ms ?? 0
    const over = reads.findIndex(
      ({ ms }, i) => ms - begin > START_MAX_MS || (i > 0 && ms - (reads[i - 1] as FirstRead).ms > QUIET_MS),
    )
    return over < 0 ? reads : reads.slice(0, over)
  }

  #end(watched: Watched, start: readonly (FirstRead & { tree: Digest })[]): void {
    this.#leave(watched)
    if (start.length === 0) return
    const keeping = this.#keep(watched, start)
      .catch((error) => this.#parts.log(`what ${watched.image.digest} read is not kept: ${describe(error)}`))
      .finally(() => this.#keeping.delete(keeping))
    this.#keeping.add(keeping)
  }

  #leave({ image, layers }: Watched): void {
    this.#watched.delete(image.digest)
    for (const tree of layers.keys()) {
      if ([...this.#watched.values()].some((each) => each.layers.has(tree))) continue
      this.#noted.get(tree)?.layer.slots.ignoreReads()
      this.#noted.delete(tree)
    }
    for (const each of [...this.#left]) {
      this.#left.delete(each)
      each()
    }
    if (this.#watched.size > 0) return
    clearInterval(this.#polling)
    this.#polling = undefined
  }

  async #keep({ image, layers }: Watched, start: readonly (FirstRead & { tree: Digest })[]): Promise<void> {
    const found = await Promise.all(
      [...layers].map(([tree, layer]) =>
        this.#filesOf(
          layer,
          start.filter((each) => each.tree === tree),
        ),
      ),
    )
    const files = found
      .flat()
      .sort((a, b) => a.ms - b.ms)
      .map(({ file }) => file)
    if (files.length === 0) return
    const stored = await Promise.all(
      [...layers.values()].map((layer) =>
        this.#storedOf(
          layer,
          files.filter((each) => each.layer === layer.descriptor.digest),
        ),
      ),
    )
    const of = {
      repository: repositoryText(image.reference),
      platform: this.#parts.platform,
      manifest: image.digest,
    }
    const before = await this.#parts.profiles.of(of)
    // what others say of it must not come to count as what was seen here
    const known = before === undefined || before.from === 'registry' ? NOTHING : before.profile
    await this.#parts.profiles.keep(of, 'start', together(known, { files, stored: stored.flat() }))
  }

  /** Where these files' bytes are stored, of a layer that is one blob. */
  async #storedOf(
    { chunks, descriptor, ...layer }: WatchedLayer,
    files: readonly ProfileFile[],
  ): Promise<StoredRanges[]> {
    const { digest } = descriptor
    if (files.length === 0 || chunks.blobs.length !== 1 || chunks.blobs[0]?.digest !== digest) return []
    const wanted = await this.#parts.chunksOf(await readImage(layer), chunks, files)
    const limits = { ...LIMITS.prefetch, runMaxBytes: Number.POSITIVE_INFINITY }
    const all = runs(
      Array.from(wanted, (index) => ({ index, blob: 0, stored: chunks.storedRange(index) })),
      limits,
    )
    return [{ layer: digest, ranges: all.map(({ range }) => range).slice(0, STORED_RANGES_MAX) }]
  }

  async #filesOf(layer: WatchedLayer, reads: readonly FirstRead[]): Promise<{ file: ProfileFile; ms: number }[]> {
    if (reads.length === 0) return []
    const files = await this.#parts.filesOf(await readImage(layer), reads)
    const parts = files.flatMap(({ path, ranges, size }) =>
      (ranges.length === 0 ? [{ start: 0, end: size }] : ranges).map((range) => ({ path, ...range })),
    )
    const isRead = (await this.#parts.readParts(layer.tree, parts)) ?? parts.map(() => true)
    let part = 0
    return files.flatMap(({ path, ranges, first }) => {
      const ours = isRead.slice(part, part + Math.max(1, ranges.length))
      part += ours.length
      if (!ours.includes(true)) return []
      const read = ranges.filter((_, i) => ours[i])
      return { file: { layer: layer.descriptor.digest, path, ranges: read }, ms: (reads[first] as FirstRead).ms }
    })
  }
}

const NOTHING: Profile = { files: [], stored: [] }

/** What is known now: what a start read that shows most of it, or else what was known, and behind it what is new. */
function together(before: Profile, now: Profile): Profile {
  if (now.files.length >= before.files.length * WHOLE_SHARE) return now
  const known = new Set(before.files.map(({ layer, path }) => `${layer} ${path}`))
  const more = now.files.filter(({ layer, path }) => !known.has(`${layer} ${path}`))
  return { files: [...before.files, ...more], stored: before.stored }
}
