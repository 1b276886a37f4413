// Where the parts meet: the layers that this process has open. Two images that share a layer share everything of it.
import type { CodecPool } from '../codec/pool.ts'
import { Failure } from '../errors.ts'
import type { Budget } from '../fetch/budget.ts'
import type { Format, Planned, Source, Unit } from '../format/format.ts'
import { FORMATS, formatNamed, planUnits, type Units } from '../format/formats.ts'
import type { IndexBuilder } from '../format/parser.ts'
import type { Blob, Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Part } from '../image/part.ts'
import { Limit, LimitEach } from '../limit.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Reuse } from '../store/reuse.ts'
import type { Store } from '../store/store.ts'
import { buildTree } from '../tree/build.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { Tree } from '../tree/tree.ts'
import { KeptElse } from './file-blob.ts'
import { FirstBytes, FirstBytesRoom, WarmWays } from './first-bytes.ts'
import { IndexRoom } from './index-room.ts'
import { type Examiner, type LayerLease, type OpenLayer, refusal, type Together, type Verdict, WHOLE } from './layer.ts'
import { Leases, type Shared } from './leases.ts'
import { keyOf, type Opened, type Opening, type OpeningParts, openFromDiskOrBuild } from './opened-layer.ts'
import { prove } from './prove.ts'
import { Trees } from './trees.ts'
import { type BlobSource, UnitBlobs } from './unit-blobs.ts'
import { layersOf, nameOf } from './unit-name.ts'
import { held, type Viewer, Viewers } from './viewers.ts'

export interface LayerParts {
  store: Store
  codecs: CodecPool
  builder: IndexBuilder
  /** Those that layers may be in, in order of preference; the worker of `builder` knows them. */
  formats?: readonly Format[]
  budget: Budget
  /** Whether the rest of a layer that is read comes by itself (background.ts); default: no. */
  isFilled?: boolean
  examiner: Examiner
  /** A hash of what images of a repository (as a Giver has it) are asked for with; '': nothing. @throws Failure */
  credentials(repository: string): Promise<string>
  /** Whether an origin gives what it is asked for, as far as is known. */
  answers(origin: string): boolean
  /** Aborted when the layers are closed. */
  closing: AbortController
  log(message: string): void
}

/**
 * Layers of one registry or layout whose index is read or in memory, so that others do not wait for one that stands still. Layers that
 * are on disk do not count.
 */
const INDEXES_MAX = 4
/**
 * The same over all origins. Stored, a hostile index takes 128 MiB; what all inflate to has a bound of its own (index-room.ts). Four
 * registries must stand still at once before anybody waits for another's.
 */
const INDEXES_ALL_MAX = 16
/** Trees built at once, over all origins: the workers that build have two threads anyway. */
const BUILDS_MAX = 4
/**
 * Layers that are kept open though nobody uses them: a few images', so that who opens one again soon pays nothing. Each has two
 * descriptors and a chunk table; opening it again hashes its image.
 */
const IDLE_MAX = 32

/**
 * Where a layer's index may come from.
 *
 * disk      no registry is asked
 * anywhere
 * Starting  the same, for a program that is about to start: what the index wants first begins to come before the tree is built
 */
export type From = 'disk' | 'anywhere' | Starting

export interface Starting {
  /** Where in the blob what is wanted first is known to be stored, ascending: that begins to come with the index. Never rejects. */
  early(): Promise<readonly Range[]>
}

function notHere({ digest }: Descriptor): Failure {
  return Failure.missing(`layer ${digest} is not in the cache, or is damaged there`)
}

/** A layer that is open or being opened. */
interface SharedLayer extends Shared {
  readonly ready: Promise<Opened>
  readonly blobs: UnitBlobs
}

export class Layers {
  readonly #parts: LayerParts
  readonly #trees: Trees
  readonly #reuse: Reuse
  readonly #open: Leases<string, SharedLayer>
  readonly #opening: OpeningParts
  /** By manifest. */
  readonly #plans = new WeakMap<Planned, Units>()
  readonly #formats: readonly Format[]
  /** By origin. */
  readonly #indexes = new LimitEach<string>(INDEXES_MAX)
  readonly #allIndexes = new Limit(INDEXES_ALL_MAX)
  readonly #room = new IndexRoom()
  readonly #firstRoom: FirstBytesRoom
  readonly #warmWays = new WarmWays()
  readonly #builds = new Limit(BUILDS_MAX)
  readonly #viewers: Viewers
  readonly #closing: AbortController
  #nothing: Tree | undefined

  /** Aborts when they are being closed. */
  get signal(): AbortSignal {
    return this.#closing.signal
  }

  /** @param idleMax layers that are kept open though nobody uses them */
  constructor(parts: LayerParts, idleMax = IDLE_MAX) {
    const { store, codecs, budget, isFilled = false, answers, closing, log } = parts
    this.#parts = parts
    this.#firstRoom = new FirstBytesRoom(budget)
    this.#closing = closing
    this.#formats = parts.formats ?? FORMATS
    this.#reuse = store.reuse(parts.builder)
    const shared = { store, reuse: this.#reuse, codecs, budget }
    this.#trees = new Trees({ ...shared, isFilled, answers, signal: closing.signal, log })
    this.#open = new Leases(idleMax, log)
    this.#viewers = new Viewers({ ...parts, reuse: this.#reuse, signal: closing.signal })
    this.#opening = { store, trees: this.#trees, signal: closing.signal, log }
  }

  /** Layers that are open, also those that nobody uses. */
  get size(): number {
    return this.#open.size
  }

  /** Of each of an image's layers the unit that it is part of, or why there is none; reads nothing. */
  plan(manifest: Planned): Units {
    const plan = this.#plans.get(manifest) ?? planUnits(manifest, this.#formats)
    this.#plans.set(manifest, plan)
    return plan
  }

  /**
   * Opens a unit as the layer that shows its tree: from disk where it is known, else by reading its index from `source`. A failure is not
   * remembered.
   * @param origin the registry (host) or layout that it comes from
   * @returns what the caller closes
   * @throws Failure aborted (after close), corrupt (quarantined), missing (not on disk), or what reading and parsing the index throw
   */
  async open(unit: Unit, source: Source, origin: string, from: From = 'anywhere'): Promise<LayerLease> {
    this.#throwIfClosed()
    const format = formatNamed(unit.format, this.#formats)
    const name = nameOf(unit, origin)
    const isAlone = unit.layers.length === 1
    const first = new FirstBytes(this.#firstRoom, this.signal)
    const starting = typeof from === 'object' ? from : undefined
    const rest: Omit<Source, 'blob'> = {
      repository: source.repository,
      sizeOf: (digest, signal) => source.sizeOf(digest, signal),
      companion: (suffix, signal) => source.companion(suffix, signal),
    }
    const viewer = this.#viewers.ofUnit(unit, source, from === 'disk')
    return await this.#take(name, viewer, source, origin, (blobs) => ({
      descriptor: unit.shown,
      format: unit.format,
      unit,
      name,
      origin,
      repository: source.repository,
      blobOf: (of) => first.over(blobs.of(of)),
      together: isAlone ? undefined : (parts, chunks) => togetherOf(unit, unit.shown, parts, chunks),
      build: (signal) => {
        if (from === 'disk') return Promise.reject(notHere(unit.shown))
        viewer.isMade = true
        const read = async (room: (bytes: number) => Promise<void>) => {
          const { wholes } = this.#parts.store
          // of several layers some may have been read whole, for their names
          const blob: Source['blob'] = (of) => (isAlone ? blobs.of(of) : new KeptElse(blobs.of(of), wholes))
          // what is first in another version of an image is mostly first in this one, and here
          const hasOlder = this.#reuse.hasImage(source.repository)
          if (starting !== undefined && this.#parts.isFilled) this.#warmWays.warm(blobs.of(unit.shown), origin, signal)
          const begin = async (ranges: readonly Range[]) => {
            if (!(await hasOlder)) first.begin(blobs.of(unit.shown), ranges)
          }
          if (isAlone) void starting?.early().then(begin) // neither rejects
          const index = await format.readIndex(unit, { blob, ...rest }, { signal, room })
          const firstBytes = starting !== undefined && isAlone ? format.firstBytes(index, unit) : undefined
          if (firstBytes !== undefined) await begin([firstBytes])
          const build = () => this.#parts.builder.build(index, unit, { signal, gives: true })
          return await this.#builds.take(build, signal)
        }
        const inTurn = () => this.#room.use(origin, read, signal)
        return this.#indexes.take(origin, () => this.#allIndexes.take(inTurn, signal), signal)
      },
    }))
  }

  /**
   * Opens a layer of a unit whose tree another layer shows: an empty tree.
   * @param shown the layer that shows the tree, open
   * @returns what the caller closes
   * @throws Failure aborted (after close), unsupported: it shows its unit's tree
   */
  async openEmpty(unit: Unit, descriptor: Descriptor, shown: OpenLayer): Promise<LayerLease> {
    this.#throwIfClosed()
    const what = `layer ${descriptor.digest}`
    if (descriptor === unit.shown) throw Failure.unsupported(`${what} shows a tree that is not empty`)
    // with the unit's layers: another image may have the same index above more of them
    const name = `${descriptor.digest} ${descriptor.size} part of ${unit.format} ${layersOf(unit)} ${shown.tree} ${unit.index}`
    const none: BlobSource<Blob> = {
      blob() {
        throw new TypeError('an empty tree is read from no blob')
      },
    }
    return await this.#take(name, undefined, none, name, (blobs) => ({
      descriptor,
      format: unit.format,
      unit,
      name,
      origin: name, // its own: it needs nobody
      repository: name,
      blobOf: (of) => blobs.of(of),
      together: () => togetherOf(unit, descriptor, shown.together?.parts, shown.chunks),
      build: async () => this.#empty(),
    }))
  }

  /**
   * A layer without an index, served from its whole tar: it was read whole before, or is now if `fetch` says so; undefined otherwise.
   * @param repository whose image's, as a Giver has it
   * @returns what the caller closes
   * @throws Failure as Examiner.tree; missing: not on disk
   */
  async openWhole(
    descriptor: Descriptor,
    blob: StoredBlob,
    fetch: boolean,
    from: From = 'anywhere',
    repository = blob.origin,
  ): Promise<LayerLease | undefined> {
    this.#throwIfClosed()
    // the blob's digest is proven before anything is built, so it does not matter where it came from
    const name = `${descriptor.digest} ${descriptor.size} whole`
    const { examiner, store } = this.#parts
    const isKnown = (await store.layer(keyOf(name))) !== undefined
    const viewer = this.#viewers.ofWhole(blob, repository, from === 'disk', isKnown)
    if (!isKnown) {
      if (!fetch) return undefined
      // from its own source, before anything of it is shared: nobody waits for another's registry
      await (await examiner.blob(blob)).close()
    }
    return await this.#take(name, viewer, { blob: () => blob }, blob.origin, (blobs) => ({
      descriptor,
      format: WHOLE,
      unit: undefined,
      name,
      origin: name, // its own: the tar is here, and when it is not, any of the copies may bring it
      repository: name, // no image's: who of those that have the blob brought the tar is not known
      blobOf: (tar) => examiner.tarBlob(tar, descriptor, blobs.of(descriptor)),
      together: undefined,
      build: () =>
        from === 'disk' ? Promise.reject(notHere(descriptor)) : examiner.tree(descriptor, blobs.of(descriptor)),
    }))
  }

  /**
   * Has the exact blob of a layer in a file, from which what needs it is read as long as it is kept. What its tar is called begins to be
   * found out: whoever proves that the layer shows a tree of several waits for that.
   * @throws Failure as Examiner.blob
   */
  async keep(descriptor: Descriptor, blob: StoredBlob): Promise<void> {
    const { examiner, builder } = this.#parts
    const keeping = examiner.blob(blob)
    builder.expectExamination(descriptor.size)
    setImmediate(this.#empty) // the tree of the unit's other layers, for which nobody waits yet
    void examiner.readAhead(descriptor, await keeping) // never rejects
  }

  /** As prove.ts has it. @param layer stays open until this ends */
  prove(layer: OpenLayer, blob: StoredBlob): Promise<Verdict> {
    const { examiner, store } = this.#parts
    const isKept = (of: Digest) => store.wholes.has(of)
    return prove(layer, blob, { examiner, isKept, signal: this.signal, full: store.room.full })
  }

  /**
   * Whether a tree of this blob was ever proven to be its tar's.
   * @param together the same of a layer of a unit of several: whether it was proven to be what the unit shows of it
   * @throws Failure system
   */
  async everProven(blob: Digest, together = false): Promise<boolean> {
    return (await this.#parts.store.proofs.about(blob, together)).some(({ verdict }) => verdict === 'proven')
  }

  /** As `everProven`, of what was found to be false. @throws Failure system */
  async everRefuted(blob: Digest, together = false): Promise<boolean> {
    return (await this.#parts.store.proofs.about(blob, together)).some(({ verdict }) => verdict === 'refuted')
  }

  /** Fails what is being opened, and closes what is open, whoever has it. */
  async close(): Promise<void> {
    this.#closing.abort(Failure.aborted('the agent is stopping'))
    // what is being opened ends first, so that none is left open behind
    await this.#open.settled()
    await this.#parts.examiner.close()
    await this.#open.close()
    await this.#trees.close()
  }

  /** The tree of a layer that shows nothing. The first takes a while, as all that builds trees is new then. */
  #empty = (): Tree => (this.#nothing ??= buildTree({ blobs: [], chunks: [], entries: [], first: [] }))

  async #take<B extends Blob>(
    name: string,
    viewer: Viewer | undefined,
    source: BlobSource<B>,
    origin: string,
    how: (blobs: UnitBlobs<B>) => Opening,
  ): Promise<LayerLease> {
    this.#throwIfClosed()
    const scope = viewer && this.#viewers.scope(viewer)
    scope?.catch(() => {}) // told below
    const begin = (): SharedLayer => {
      const blobs = new UnitBlobs(source, origin)
      const ready = openFromDiskOrBuild(how(blobs), this.#opening)
      return { ready, blobs, end: async () => await (await ready).end() }
    }
    const lease = await this.#open.take(name, begin, ({ blobs }) => blobs.add(source, origin))
    try {
      const opened = await lease.of.ready
      const { layer, fill } = opened
      const verdict = await layer.verdict()
      if (verdict?.verdict === 'refuted') throw refusal(layer, verdict)
      const leave = viewer && scope ? await this.#viewers.enter(opened, viewer, await scope) : () => {}
      this.#throwIfClosed() // the device may be closed
      fill()
      return held(layer, lease, leave)
    } catch (error) {
      await lease.close()
      throw error
    }
  }

  #throwIfClosed(): void {
    if (this.signal.aborted) throw Failure.aborted('the agent is stopping')
  }
}

/** What a layer is in its unit. @param parts as the unit's index says @param chunks of the unit's tree */
export function togetherOf(
  unit: Unit,
  descriptor: Descriptor,
  parts: readonly Part[] | undefined,
  chunks: ChunkTable,
): Together {
  const hasChunks = chunks.blobs.some(({ digest }) => digest === descriptor.digest)
  return { unit, shows: descriptor === unit.shown, hasChunks, parts }
}
