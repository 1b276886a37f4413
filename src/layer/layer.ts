// Where the parts meet: a layer of an image, its index read, its tree built or found on disk, its device open and its filler ready.
import type { FileHandle } from 'node:fs/promises'
import type { CodecPool } from '../codec/pool.ts'
import { describe, Failure } from '../errors.ts'
import { Budget } from '../fetch/budget.ts'
import { Filler } from '../fetch/filler.ts'
import { type Prefetched, prefetch } from '../fetch/prefetch.ts'
import type { Format, Planned, Source, Unit } from '../format/format.ts'
import { FORMATS, formatNamed, planUnits, type Units } from '../format/formats.ts'
import type { IndexBuilder } from '../format/parser.ts'
import type { Blob } from '../image/blob.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { Limit, LimitEach } from '../limit.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Device } from '../store/device.ts'
import type { TreeNumbers } from '../store/numbers.ts'
import type { Proof, Refutation } from '../store/proofs.ts'
import type { Store } from '../store/store.ts'
import { buildTree } from '../tree/build.ts'
import type { ChunkBlob, ChunkTable } from '../tree/chunk-table.ts'
import { READY_VERIFIED } from '../tree/ready.ts'
import type { Tree } from '../tree/tree.ts'
import type { Copies } from './copies.ts'
import { FileBlob, KeptBlob } from './file-blob.ts'
import { IndexRoom } from './index-room.ts'
import { Reverification } from './reverification.ts'
import { TreeFiller } from './tree-filler.ts'
import { type BlobSource, UnitBlobs } from './unit-blobs.ts'

/** A layer that can be served lazily. */
export interface OpenLayer {
  readonly descriptor: Descriptor
  /** The format's name. */
  readonly format: string
  /** The identity engines know the index by; proven. Undefined: they know none. */
  readonly indexDigest: Digest | undefined
  /** Whether its tree is shown for several layers together: then it is none that unpacking one of them gives. */
  readonly together: boolean
  /** Bytes of its tar as its manifest claims them, if it does. */
  readonly claimedTarSize: number | undefined
  /** Digest of the EROFS image. */
  readonly tree: Digest
  readonly chunks: ChunkTable
  readonly slots: Device
  readonly filler: TreeFiller
  /**
   * The numbers of the tree where it is shown as `name`, the same for ever. Each name has its own, because the kernel knows
   * a directory by one name only: looked up by another, it moves there, with what is mounted on it.
   */
  numbersAs(name: string): Promise<TreeNumbers>
  /**
   * The image, all of it hashed just now; the caller closes it.
   * @throws Failure corrupt: it was damaged since the layer was opened; system
   */
  openImage(): Promise<FileHandle>
  /** Fetches what the image wants ready first; the first call does it, later ones join. */
  prefetch(): Promise<Prefetched>
  /** What the whole layer's bytes said of this tree, if they were ever read. @throws Failure system */
  verdict(): Promise<Verdict | undefined>
  /**
   * Verifies what an earlier life stored, all of it, within the budget of prefetch; the first call does it, later ones join.
   * Never rejects: whoever reads what failed is told.
   */
  reverify(): Promise<void>
}

/** What a whole layer's bytes said of the tree that is served for it. */
export type Verdict = Proof | Refutation

/** Why a layer that was found to lie is not served, by anybody, under any name. */
export function refusal({ digest }: Descriptor, { why }: Refutation): Failure {
  return Failure.corrupt(`layer ${digest} is quarantined: its index shows another tree than its tar has: ${why}`, {
    fix: 'Do not use the image it is part of, and tell its publisher; if the index was made by a faulty tool, make it again.',
  })
}

/** Reads layers whole, and tells what their bytes say of their trees. All but `known` throw what reading and examining a blob throw. */
export interface Examiner {
  /** The exact blob in a file, which the caller closes. */
  blob(blob: StoredBlob): Promise<FileHandle>
  /** The verdict of a layer that was examined before. @throws Failure system */
  known(layer: OpenLayer): Promise<Verdict | undefined>
  /** Examines a layer that never was. */
  verdict(layer: OpenLayer, blob: StoredBlob): Promise<Verdict>
  /** As `verdict`, with the blob in `file`, which stays the caller's. */
  judge(layer: OpenLayer, file: FileHandle): Promise<Verdict>
  /** The tree of a layer's tar, whose chunks are pieces of that tar. */
  tree(descriptor: Descriptor, copies: Copies<StoredBlob>): Promise<Tree>
  /** A layer's tar as a blob: `of` is what it was proven to be. */
  tarBlob(of: { digest: Digest; size: number }, descriptor: Descriptor, copies: Copies<StoredBlob>): Blob
  /** When all that is under way has ended. */
  close(): Promise<void>
}

/** Why a layer cannot be served lazily; `why` is a sentence for the user. */
export interface EagerLayer {
  readonly descriptor: Descriptor
  readonly why: string
}

export interface LayerParts {
  store: Store
  codecs: CodecPool
  builder: IndexBuilder
  /** Those that layers may be in, in order of preference; the worker of `builder` knows them. */
  formats?: readonly Format[]
  budget: Budget
  examiner: Examiner
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
 * The same over all origins. Stored, a hostile index takes 64 MiB; what all inflate to has a bound of its own (index-room.ts). Four
 * registries must stand still at once before anybody waits for another's.
 */
const INDEXES_ALL_MAX = 16
/** Trees built at once, over all origins: the workers that build have two threads anyway. */
const BUILDS_MAX = 4

const RESTART = 'Stop and start the agent: it is built again then.'

/** Where a layer's index may come from. */
export type From = 'disk' | 'anywhere'

function notHere({ digest }: Descriptor): Failure {
  return Failure.missing(`layer ${digest} is not in the cache, or is damaged there`)
}

/** What a layer is called that is served from its whole tar. */
const WHOLE = 'whole tar'

/** Why the digest of such a layer's tar is no name for what it shows. */
export const TOGETHER = 'its image shows one tree for several layers together, which none of them unpacks to'

/** How a layer is opened that is not on disk yet. */
interface Opening {
  descriptor: Descriptor
  /** The format's name. */
  format: string
  /** Undefined: it has no index, and is served from the whole tar. */
  unit: Unit | undefined
  /** What it is known by. */
  name: string
  /** Those of one origin may wait for one another. */
  origin: string
  /** Where its chunks are read from. */
  blobOf(blob: ChunkBlob): Blob
  build(signal: AbortSignal): Promise<Tree>
}

/** A layer that is open. */
interface Opened {
  layer: OpenLayer
  /** Has it fill its tree, if others have pushed it out, or if it never did. */
  fill(): void
}

interface OpenTree {
  slots: Device
  filler: TreeFiller
  reverify(): Promise<void>
}

/** All layers this process has open; two images that share a layer share everything of it. */
export class Layers {
  readonly #parts: LayerParts
  readonly #opened = new Map<string, { opened: Promise<Opened>; blobs: UnitBlobs }>()
  /** By manifest. */
  readonly #plans = new WeakMap<Planned, Units>()
  /** One device a tree, however many layers build it; each can fill it. */
  readonly #trees = new Map<Digest, Promise<OpenTree>>()
  /** By origin. */
  readonly #indexes = new LimitEach<string>(INDEXES_MAX)
  readonly #allIndexes = new Limit(INDEXES_ALL_MAX)
  readonly #room = new IndexRoom()
  readonly #builds = new Limit(BUILDS_MAX)
  /** For what is read from files: it waits for no registry. */
  readonly #fileBudget = new Budget()
  readonly #closing: AbortController
  readonly #formats: readonly Format[]
  readonly #reverification: Reverification

  /** Aborts when they are being closed. */
  get signal(): AbortSignal {
    return this.#closing.signal
  }

  constructor(parts: LayerParts) {
    this.#parts = parts
    this.#closing = parts.closing
    this.#formats = parts.formats ?? FORMATS
    this.#reverification = new Reverification(this.#closing.signal)
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
   * @param from 'disk': alone
   * @throws Failure aborted (after close), corrupt (quarantined), missing (not on disk), or what reading and parsing the index throw
   */
  async open(unit: Unit, source: Source, origin: string, from: From = 'anywhere'): Promise<OpenLayer> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping')
    const format = formatNamed(unit.format, this.#formats)
    const name = nameOf(unit, origin)
    const companion: Source['companion'] = (suffix, signal) => source.companion(suffix, signal)
    return await this.#openOnce(name, source, (blobs) => ({
      descriptor: unit.shown,
      format: unit.format,
      unit,
      name,
      origin,
      blobOf: (of) => blobs.of(of),
      build: (signal) => {
        if (from === 'disk') return Promise.reject(notHere(unit.shown))
        const read = async (room: (bytes: number) => Promise<void>) => {
          const index = await format.readIndex(unit, { blob: (of) => blobs.of(of), companion }, { signal, room })
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
   * @throws Failure aborted (after close), unsupported: it shows its unit's tree
   */
  async openEmpty(unit: Unit, descriptor: Descriptor): Promise<OpenLayer> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping')
    const what = `layer ${descriptor.digest}`
    if (descriptor === unit.shown) throw Failure.unsupported(`${what} shows a tree that is not empty`)
    const name = `${descriptor.digest} ${descriptor.size} part of ${unit.index}`
    const none: BlobSource<Blob> = {
      blob() {
        throw new TypeError('an empty tree is read from no blob')
      },
    }
    return await this.#openOnce(name, none, (blobs) => ({
      descriptor,
      format: unit.format,
      unit,
      name,
      origin: name, // its own: it needs nobody
      blobOf: (of) => blobs.of(of),
      build: async () => buildTree({ blobs: [], chunks: [], entries: [], first: [] }),
    }))
  }

  /**
   * A layer without an index, served from its whole tar: it was read whole before, or is now if `fetch` says so; undefined otherwise.
   * @throws Failure as Examiner.tree; missing: not on disk
   */
  async openWhole(
    descriptor: Descriptor,
    blob: StoredBlob,
    fetch: boolean,
    from: From = 'anywhere',
  ): Promise<OpenLayer | undefined> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping')
    // the blob's digest is proven before anything is built, so it does not matter where it came from
    const name = `${descriptor.digest} ${descriptor.size} whole`
    const { examiner } = this.#parts
    if ((await this.#parts.store.layer(keyOf(name))) === undefined) {
      if (!fetch) return undefined
      // from its own source, before anything of it is shared: nobody waits for another's registry
      await (await examiner.blob(blob)).close()
    }
    return await this.#openOnce(name, { blob: () => blob }, (blobs) => ({
      descriptor,
      format: WHOLE,
      unit: undefined,
      name,
      origin: name, // its own: the tar is here, and when it is not, any of the copies may bring it
      blobOf: (tar) => examiner.tarBlob(tar, descriptor, blobs.of(descriptor)),
      build: () =>
        from === 'disk' ? Promise.reject(notHere(descriptor)) : examiner.tree(descriptor, blobs.of(descriptor)),
    }))
  }

  /**
   * Has a layer read whole, if it never was; what was read fills its device. When its tree is not its tar's, it is never opened again.
   * @throws Failure as Examiner.verdict; unsupported: its tree is not one that its tar alone could have
   */
  async prove(layer: OpenLayer, blob: StoredBlob): Promise<Verdict> {
    if (layer.together) {
      throw Failure.unsupported(`layer ${layer.descriptor.digest} cannot be proven`, { why: TOGETHER })
    }
    const known = await this.#parts.examiner.known(layer)
    if (known?.verdict === 'refuted' || (known && (await missingOf(layer)).length === 0)) return known
    if (layer.format === WHOLE) {
      const verdict = known ?? (await this.#parts.examiner.verdict(layer, blob))
      // it was made of the tar, which is still there
      if (verdict.verdict === 'proven') await this.#fill(layer)
      return verdict
    }
    const file = await this.#parts.examiner.blob(blob) // from its own source: nobody waits for another's registry
    try {
      const verdict = known ?? (await this.#parts.examiner.judge(layer, file))
      if (verdict.verdict === 'proven') await this.#fillFrom(layer, new FileBlob(blob, file))
      return verdict
    } finally {
      await file.close()
    }
  }

  /** Fills a layer's device, within the budget of prefetch. */
  async #fill(layer: OpenLayer): Promise<void> {
    const { full } = this.#parts.store.room
    try {
      await layer.filler.fill(await missingOf(layer), 'prefetch', AbortSignal.any([this.#closing.signal, full]))
    } catch (error) {
      if (!full.aborted) throw error // else it is filled when somebody reads it
    }
  }

  /** The same from a file that holds its blob; whoever reads meanwhile is served from there, too. */
  async #fillFrom(layer: OpenLayer, local: FileBlob): Promise<void> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping') // the device may be closed
    const file = this.#filler(layer.chunks, () => local, layer.slots, this.#fileBudget, 'file')
    await layer.filler.withFile(file, () => this.#fill(layer))
  }

  async #openOnce<B extends Blob>(
    name: string,
    source: BlobSource<B>,
    how: (blobs: UnitBlobs<B>) => Opening,
  ): Promise<OpenLayer> {
    const found = this.#opened.get(name)
    if (found !== undefined) {
      found.blobs.add(source)
      const { layer, fill } = await found.opened
      const verdict = await layer.verdict()
      if (verdict?.verdict === 'refuted') throw refusal(layer.descriptor, verdict)
      if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping') // the device may be closed
      fill()
      return layer
    }
    const blobs = new UnitBlobs(source)
    const opened = this.#open(how(blobs))
    this.#opened.set(name, { opened, blobs })
    opened.catch(() => this.#opened.delete(name))
    return (await opened).layer
  }

  /** Whether a tree of this blob was ever proven to be its tar's. @throws Failure system */
  async everProven(blob: Digest): Promise<boolean> {
    return (await this.#parts.store.proofs.about(blob)).some(({ verdict }) => verdict === 'proven')
  }

  /** Whether a tree of this blob was found to be another than its tar's. @throws Failure system */
  async everRefuted(blob: Digest): Promise<boolean> {
    return (await this.#parts.store.proofs.about(blob)).some(({ verdict }) => verdict === 'refuted')
  }

  /** Fails what is being opened, and closes what is open. */
  async close(): Promise<void> {
    this.#closing.abort(Failure.aborted('the agent is stopping'))
    // what is being opened ends first, so that none is left open behind
    await Promise.allSettled([...this.#opened.values()].map(({ opened }) => opened))
    await this.#parts.examiner.close()
    const trees = await Promise.allSettled(this.#trees.values())
    for (const each of trees) {
      if (each.status !== 'fulfilled') continue
      await each.value.filler.close()
      await each.value.slots.close()
    }
  }

  async #open({ descriptor, format, unit, name, origin, blobOf, build }: Opening): Promise<Opened> {
    const { store, log } = this.#parts
    const { signal } = this.#closing
    const key = keyOf(name)
    const claimOf = (tree: Digest) => ({ blob: descriptor.digest, tree })
    const openTree = async (tree: Digest, chunks: ChunkTable) => {
      const verdict = await store.proofs.of(claimOf(tree))
      if (verdict?.verdict === 'refuted') throw refusal(descriptor, verdict)
      return await this.#tree(tree, chunks)
    }
    let known = await store.layer(key)
    let tree = known && (await openTree(known.tree, known.chunks))
    if (known === undefined || tree === undefined) {
      const built = await build(signal)
      await store.keepLayer(key, { format, ...(unit?.shown === descriptor ? { indexDigest: unit.index } : {}) }, built)
      known = await store.layer(key)
      tree = known && (await openTree(known.tree, known.chunks))
      if (known === undefined || tree === undefined) {
        throw Failure.corrupt(`layer ${descriptor.digest}: its tree cannot be read back from the cache`, {
          fix: 'Check the disk below the cache directory.',
        })
      }
    }
    const { chunks, tree: digest } = known
    const claim = claimOf(digest)
    const { filler, slots } = tree
    let own: Filler | undefined
    const fill = () => {
      if (unit !== undefined && chunks.length > 0 && !filler.hasKept(descriptor.digest)) {
        const kept = (of: ChunkBlob) => new KeptBlob(of, store.wholes)
        filler.addKept(descriptor.digest, {
          isThere: () => chunks.blobs.every(({ digest }) => store.wholes.has(digest)),
          filler: () => this.#filler(chunks, kept, slots, this.#fileBudget, 'kept'),
        })
      }
      if (own !== undefined && filler.has(own)) return
      own = this.#filler(chunks, blobOf, slots, this.#parts.budget, origin)
      filler.add(own, origin)
    }
    fill()
    let prefetching: Promise<Prefetched> | undefined
    const layer: OpenLayer = {
      descriptor,
      format,
      indexDigest: unit?.shown === descriptor ? unit.identity : undefined,
      together: unit !== undefined && unit.layers.length > 1,
      claimedTarSize: unit?.shown === descriptor ? unit.tarSize : undefined,
      tree: digest,
      chunks,
      ...tree,
      verdict: () => store.proofs.of(claim),
      numbersAs: (name) => store.numbersOf(digest, name),
      async openImage() {
        const image = await store.openImage(digest)
        if (image === undefined) throw Failure.corrupt('its image on disk is damaged', { fix: RESTART })
        return image
      },
      prefetch() {
        prefetching ??= prefetch(filler, chunks, AbortSignal.any([signal, store.room.full])).then((result) => {
          const { ready, failed, error } = result
          if (error !== undefined) {
            const what = `${failed} of ${ready + failed} chunks wanted first could not be fetched`
            log(`layer ${descriptor.digest}: ${what}: ${describe(error)}`)
          }
          return result
        })
        return prefetching
      },
    }
    return { layer, fill }
  }

  /** The tree's device and what fills it; undefined when the image is not (or not intact) on disk. */
  async #tree(digest: Digest, chunks: ChunkTable): Promise<OpenTree | undefined> {
    const found = this.#trees.get(digest)
    if (found !== undefined) return await found
    const image = await this.#parts.store.openImage(digest)
    if (image === undefined) return undefined
    await image.close()
    // between the await and here another layer with the same tree may have come first
    const raced = this.#trees.get(digest)
    if (raced !== undefined) return await raced
    const opened = this.#openTree(digest, chunks)
    this.#trees.set(digest, opened)
    opened.catch(() => this.#trees.delete(digest))
    return opened
  }

  async #openTree(digest: Digest, chunks: ChunkTable): Promise<OpenTree> {
    const filler = new TreeFiller()
    const refetchable = () => filler.origins.some((origin) => this.#parts.answers(origin))
    const slots = await this.#parts.store.openSlots(digest, chunks, refetchable)
    let verifying: Promise<void> | undefined
    const reverify = () => {
      verifying ??= this.#reverification.of({ slots, filler })
      return verifying
    }
    return { slots, filler, reverify }
  }

  #filler(
    chunks: ChunkTable,
    blobOf: (blob: ChunkBlob) => Blob,
    slots: Device,
    budget: Budget,
    origin: string,
  ): Filler {
    const { codecs } = this.#parts
    return new Filler({
      chunks,
      blobs: (number) => blobOf(chunks.blobs[number] as ChunkBlob), // the table lists those that its chunks name
      slots,
      budget,
      origin,
      decode: (chunk, stored, index, turn) => slots.fill(index, (slot) => codecs.decode(chunk, stored, slot, turn)),
      reverify: (chunk, index, turn) => slots.check(index, (slot) => codecs.verify(chunk, slot, turn)),
    })
  }
}

/** The chunks that are not verified. */
async function missingOf({ slots }: OpenLayer): Promise<number[]> {
  const states = await slots.states()
  return [...states.keys()].filter((chunk) => states[chunk] !== READY_VERIFIED)
}

/**
 * What a unit is known by. Its blobs' digests and sizes are claims until all of them was read, so the digest of the index, which is
 * checked, is part of it: nobody's blob answers for another's by saying that it has its digest. And so is where it comes from: what
 * an index's digest does not cover (where in the blob the index lies) is one registry's word, and counts for what comes from there.
 */
function nameOf({ layers, index }: Unit, origin: string): string {
  return `${layers.map(({ digest, size }) => `${digest} ${size}`).join(' ')} ${index} ${origin}`
}

function keyOf(name: string): Digest {
  return digestOf(new TextEncoder().encode(name))
}
