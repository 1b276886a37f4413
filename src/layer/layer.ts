// Where the parts meet: a layer of an image, its index read, its tree built or found on disk, its device open and its filler ready.
import type { FileHandle } from 'node:fs/promises'
import type { CodecPool } from '../codec/pool.ts'
import { describe, Failure } from '../errors.ts'
import { Budget } from '../fetch/budget.ts'
import { Filler } from '../fetch/filler.ts'
import { type Prefetched, prefetch } from '../fetch/prefetch.ts'
import type { Format, Source } from '../format/format.ts'
import { chooseFormat } from '../format/formats.ts'
import type { IndexBuilder } from '../format/parser.ts'
import type { Blob } from '../image/blob.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { Limit, LimitEach } from '../limit.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { TreeNumbers } from '../store/numbers.ts'
import type { Proof, Refutation } from '../store/proofs.ts'
import type { Slots } from '../store/slots.ts'
import type { Store } from '../store/store.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import { READY_STORED, READY_VERIFIED } from '../tree/ready.ts'
import type { Tree } from '../tree/tree.ts'
import { Progress } from './candidates.ts'
import { Copies } from './copies.ts'
import { FileBlob, KeptBlob } from './file-blob.ts'
import { IndexRoom } from './index-room.ts'
import { TreeFiller } from './tree-filler.ts'

/** A layer that can be served lazily. */
export interface OpenLayer {
  readonly descriptor: Descriptor
  /** The format's name. */
  readonly format: string
  /** The identity engines know the index by; proven. Undefined: it has none, and is served from the whole tar. */
  readonly indexDigest: Digest | undefined
  /** Digest of the EROFS image. */
  readonly tree: Digest
  readonly chunks: ChunkTable
  readonly slots: Slots
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
  budget: Budget
  examiner: Examiner
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

/** Chunks that are verified again at once in the background: what is kept of them in memory while they wait. */
const REVERIFIED_AT_ONCE = 1024

/** What a layer is called that is served from its whole tar. */
const WHOLE = 'whole tar'

/** How a layer is opened that is not on disk yet. */
interface Opening {
  descriptor: Descriptor
  /** The format's name. */
  format: string
  indexDigest: Digest | undefined
  /** What it is known by. */
  name: string
  /** Those of one origin may wait for one another. */
  origin: string
  /** Where its chunks are read from. */
  blobOf(chunks: ChunkTable): Blob
  build(signal: AbortSignal): Promise<Tree>
}

/** A layer that is open. */
interface Opened {
  layer: OpenLayer
  /** Has it fill its tree, if others have pushed it out, or if it never did. */
  fill(): void
}

interface OpenTree {
  slots: Slots
  filler: TreeFiller
  reverify(): Promise<void>
}

/** The format of a layer, or why it has none; reads nothing. */
export function formatOf(descriptor: Descriptor): Format | EagerLayer {
  const chosen = chooseFormat({ descriptor })
  return 'format' in chosen ? chosen.format : { descriptor, why: chosen.reasons.join('; ') }
}

/** All layers this process has open; two images that share a layer share everything of it. */
export class Layers {
  readonly #parts: LayerParts
  readonly #opened = new Map<string, { opened: Promise<Opened>; blobs: Copies }>()
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

  /** Aborts when they are being closed. */
  get signal(): AbortSignal {
    return this.#closing.signal
  }

  constructor(parts: LayerParts) {
    this.#parts = parts
    this.#closing = parts.closing
  }

  /**
   * Opens a layer: from disk where it is known, else by reading its index from `source`. A failure is not remembered.
   * @param origin the registry (host) or layout that it comes from
   * @param from 'disk': alone
   * @throws Failure unsupported (no lazy format), aborted (after close), corrupt (quarantined), missing (not on disk), or what reading
   * and parsing the index throw
   */
  async open(descriptor: Descriptor, source: Source, origin: string, from: From = 'anywhere'): Promise<OpenLayer> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping')
    const format = formatOf(descriptor)
    if (!('detect' in format))
      throw Failure.unsupported(`layer ${descriptor.digest} has no lazy format`, { why: format.why })
    const indexDigest = format.indexDigest({ descriptor })
    const name = nameOf(descriptor, indexDigest, origin)
    const companion: Source['companion'] = (suffix, signal) => source.companion(suffix, signal)
    return await this.#openOnce(name, source.blob, origin, (blob) => ({
      descriptor,
      format: format.name,
      indexDigest,
      name,
      origin,
      blobOf: () => blob,
      build: (signal) => {
        if (from === 'disk') return Promise.reject(notHere(descriptor))
        const read = async (room: (bytes: number) => Promise<void>) => {
          const index = await format.readIndex({ descriptor }, { blob, companion }, { signal, room })
          const build = () => this.#parts.builder.build(format, index, { descriptor }, { signal, gives: true })
          return await this.#builds.take(build, signal)
        }
        const inTurn = () => this.#room.use(origin, read, signal)
        return this.#indexes.take(origin, () => this.#allIndexes.take(inTurn, signal), signal)
      },
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
    return await this.#openOnce(name, blob, blob.origin, (copies) => ({
      descriptor,
      format: WHOLE,
      indexDigest: undefined,
      name,
      origin: name, // its own: the tar is here, and when it is not, any of the copies may bring it
      blobOf: ({ blobs: [tar] }) => examiner.tarBlob(tar as { digest: Digest; size: number }, descriptor, copies), // it has one
      build: () => (from === 'disk' ? Promise.reject(notHere(descriptor)) : examiner.tree(descriptor, copies)),
    }))
  }

  /**
   * Has a layer read whole, if it never was; what was read fills its device. When its tree is not its tar's, it is never opened again.
   * @throws Failure as Examiner.verdict
   */
  async prove(layer: OpenLayer, blob: StoredBlob): Promise<Verdict> {
    const known = await this.#parts.examiner.known(layer)
    if (known?.verdict === 'refuted' || (known && (await missingOf(layer)).length === 0)) return known
    if (layer.indexDigest === undefined) {
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
    await layer.filler.fill(await missingOf(layer), 'prefetch', this.#closing.signal)
  }

  /** The same from a file that holds its blob; whoever reads meanwhile is served from there, too. */
  async #fillFrom(layer: OpenLayer, local: FileBlob): Promise<void> {
    if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping') // the device may be closed
    const file = this.#filler(layer.chunks, local, layer.slots, this.#fileBudget, 'file')
    await layer.filler.withFile(file, () => this.#fill(layer))
  }

  async #openOnce<B extends Blob>(
    name: string,
    blob: B,
    origin: string,
    how: (copies: Copies<B>) => Opening,
  ): Promise<OpenLayer> {
    const found = this.#opened.get(name)
    if (found !== undefined) {
      found.blobs.add(blob, origin)
      const { layer, fill } = await found.opened
      const verdict = await layer.verdict()
      if (verdict?.verdict === 'refuted') throw refusal(layer.descriptor, verdict)
      if (this.#closing.signal.aborted) throw Failure.aborted('the agent is stopping') // the device may be closed
      fill()
      return layer
    }
    const blobs = new Copies(blob, origin)
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

  async #open({ descriptor, format, indexDigest, name, origin, blobOf, build }: Opening): Promise<Opened> {
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
      await store.keepLayer(key, { format, ...(indexDigest === undefined ? {} : { indexDigest }) }, built)
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
    const blob = blobOf(chunks)
    let own: Filler | undefined
    const fill = () => {
      if (indexDigest !== undefined && !filler.hasKept(descriptor.digest)) {
        const kept = new KeptBlob(descriptor, store.wholes)
        filler.addKept(descriptor.digest, {
          isThere: () => store.wholes.has(descriptor.digest),
          filler: () => this.#filler(chunks, kept, slots, this.#fileBudget, 'kept'),
        })
      }
      if (own !== undefined && filler.has(own)) return
      const progress = new Progress()
      own = this.#filler(chunks, progress.of(blob), slots, this.#parts.budget, origin)
      filler.add(own, origin, progress)
    }
    fill()
    let prefetching: Promise<Prefetched> | undefined
    const layer: OpenLayer = {
      descriptor,
      format,
      indexDigest,
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
        prefetching ??= prefetch(filler, chunks, signal).then((result) => {
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
    const slots = await this.#parts.store.openSlots(digest, chunks)
    const filler = new TreeFiller()
    let verifying: Promise<void> | undefined
    const reverify = () => {
      verifying ??= reverifyStored(slots, filler, this.#closing.signal)
      return verifying
    }
    return { slots, filler, reverify }
  }

  #filler(chunks: ChunkTable, blob: Blob, slots: Slots, budget: Budget, origin: string): Filler {
    const { codecs } = this.#parts
    const into = (chunk: number) => ({ deviceFd: slots.deviceFd, readyFd: slots.readyFd, chunk })
    return new Filler({
      chunks,
      blobs: () => blob,
      slots,
      budget,
      origin,
      decode: (chunk, stored, index) => codecs.decode(chunk, stored, into(index)),
      reverify: (chunk, index) => codecs.verify(chunk, into(index)),
    })
  }
}

/** The chunks that are not verified. */
async function missingOf({ slots }: OpenLayer): Promise<number[]> {
  const states = await slots.states()
  return [...states.keys()].filter((chunk) => states[chunk] !== READY_VERIFIED)
}

async function reverifyStored(slots: Slots, filler: TreeFiller, signal: AbortSignal): Promise<void> {
  const states = await slots.states().catch(() => new Uint8Array()) // a disk that does not give it back fails whoever reads
  const stored = [...states.keys()].filter((chunk) => states[chunk] === READY_STORED)
  for (let at = 0; at < stored.length && !signal.aborted; at += REVERIFIED_AT_ONCE) {
    const some = stored.slice(at, at + REVERIFIED_AT_ONCE)
    await filler.fill(some, 'prefetch', signal).catch(() => {}) // a chunk that stays damaged fails whoever reads it
  }
}

/**
 * What a layer is known by. Its blob's digest and size are claims until all of it was read, so the digest of the index, which is
 * checked, is part of it: nobody's blob answers for another's by saying that it has its digest. And so is where it comes from: what
 * an index's digest does not cover (where in the blob the index lies) is one registry's word, and counts for what comes from there.
 */
function nameOf({ digest, size }: Descriptor, indexDigest: Digest, origin: string): string {
  return `${digest} ${size} ${indexDigest} ${origin}`
}

function keyOf(name: string): Digest {
  return digestOf(new TextEncoder().encode(name))
}
