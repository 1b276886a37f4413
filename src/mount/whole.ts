// Layers that are read whole: to know whether the tree that is served is the tar's whose digest engines know the layer by; to serve
// one that no lazy format describes; and because engines that save or push an image want its exact bytes.
//
//   blob (fetched once, digest checked) -> examined in a worker -> verdict, kept for ever
//                                                               -> split file, kept while there is room
//                                                               -> tar, kept for a minute
import fs, { type FileHandle } from 'node:fs/promises'
import { describe, Failure } from '../errors.ts'
import type { Examination, Examined } from '../format/examine.ts'
import type { IndexBuilder } from '../format/parser.ts'
import type { Blob, Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { fetchWhole, type StoredBlob } from '../registry/source.ts'
import type { Claim, Proof, Refutation } from '../store/proofs.ts'
import type { Store } from '../store/store.ts'
import type { Tree } from '../tree/tree.ts'
import { FileBlob } from './file-blob.ts'
import type { OpenLayer } from './layer.ts'
import { readImage } from './layer-image.ts'
import { Turns } from './turns.ts'

type Served = NonNullable<Examination['served']>

/** What a whole layer's bytes said of the tree that is served for it. */
export type Verdict = Proof | Refutation

/** Each is bound by the network or by a core; more would only share them. */
const AT_ONCE = 2
/** A registry may take FETCH_TIMEOUT_MS for nearly nothing: so many have to do that before others wait. */
const FETCHES_AT_ONCE = 16
/** 10 GB at 100 Mbit/s take 800 s. */
const FETCH_TIMEOUT_MS = 900_000
/** Filling a device reads its tar in a few seconds; whoever comes later has it decompressed again. */
const TAR_IDLE_MS = 60_000
/** A tar beyond that is no layer; and no layer may take more than half of what the disk has left. */
const TAR_MAX_BYTES = 64 * 2 ** 30

export class Wholes {
  readonly #store: Store
  readonly #builder: Pick<IndexBuilder, 'examine'>
  readonly #log: (message: string) => void
  readonly #signal: AbortSignal
  readonly #turns = new Turns(AT_ONCE)
  readonly #fetches = new Turns(FETCHES_AT_ONCE)
  /** By source: what one registry does not bring, or brings wrong, is nobody else's. */
  readonly #fetching = new Map<StoredBlob, Promise<void>>()
  readonly #examining = new Map<string, Promise<unknown>>()
  readonly #tars = new Map<Digest, Tar>()
  #quarantined = 0

  /** @param signal ends whatever is under way */
  constructor(
    store: Store,
    builder: Pick<IndexBuilder, 'examine'>,
    log: (message: string) => void,
    signal: AbortSignal,
  ) {
    this.#store = store
    this.#builder = builder
    this.#log = log
    this.#signal = signal
  }

  /** Layers that this process found to show another tree than their tars have. */
  get quarantined(): number {
    return this.#quarantined
  }

  /**
   * The exact blob in a file, which the caller closes. Fetched at most once, whoever asks meanwhile.
   * @throws Failure corrupt (another digest), timeout, system, what reading it throws
   */
  async blob(blob: StoredBlob): Promise<FileHandle> {
    const kept = await this.#store.wholes.find(blob.digest)
    if (kept !== undefined) return kept
    await joined(this.#fetching, blob, () => this.#fetches.take(() => this.#fetch(blob), this.#signal))
    const fetched = await this.#store.wholes.find(blob.digest)
    if (fetched !== undefined) return fetched
    throw Failure.system(`blob ${blob.digest} cannot be kept`, { fix: 'Free space below the cache directory.' })
  }

  /** Whether a layer's tree is its tar's; examined now if it never was. @throws Failure as `blob`; unsupported, limit */
  async verdict(layer: OpenLayer, blob: StoredBlob): Promise<Verdict> {
    const claim = { blob: layer.descriptor.digest, tree: layer.tree }
    const known = await this.#store.proofs.of(claim)
    if (known !== undefined) return known
    const file = await this.blob(blob) // from its own source: nobody waits for another's registry
    try {
      return await joined(this.#examining, `${claim.blob} ${claim.tree}`, () => this.#compare(layer, claim, file))
    } finally {
      await file.close()
    }
  }

  /** The tree of a layer's tar, whose chunks are pieces of that tar; proven by what it is made of. @throws Failure as `verdict` */
  async tree(descriptor: Descriptor, blob: StoredBlob): Promise<Tree> {
    return await joined(this.#examining, descriptor.digest, async () => {
      const { tree, diffId, tarSize, split } = await this.#examine(descriptor, blob)
      const claim = { blob: descriptor.digest, tree: tree.digest }
      await this.#store.proofs.keep(claim, { verdict: 'proven', diffId, tarSize, split })
      return tree
    })
  }

  /**
   * What engines put a layer's tar together from (tar-split, gzipped) in a file, which the caller closes.
   * @throws Failure as `verdict`; corrupt: the layer's tree is not its tar's, so nothing could be put together from it
   */
  async split(layer: OpenLayer, blob: StoredBlob): Promise<FileHandle> {
    const verdict = await this.verdict(layer, blob)
    if (verdict.verdict === 'refuted') throw refusal(layer.descriptor, verdict)
    const kept = await this.#store.wholes.find(verdict.split)
    if (kept !== undefined) return kept
    const again = await joined(this.#examining, `${layer.descriptor.digest} again`, () =>
      this.#examine(layer.descriptor, blob),
    )
    // the compressor may be another version's by now: its file is as good
    const made = await this.#store.wholes.find(again.split)
    if (made !== undefined && again.diffId === verdict.diffId) return made
    await made?.close()
    throw Failure.system(`layer ${layer.descriptor.digest}: its tar-split cannot be kept`, {
      fix: 'Free space below the cache directory.',
    })
  }

  /** The layer's tar as a blob: `of` is what it was proven to be. */
  tarBlob(of: { digest: Digest; size: number }, descriptor: Descriptor, blob: StoredBlob): Blob {
    return { ...of, read: (range) => this.#readTar(of.digest, range, descriptor, blob) }
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#fetching.values(), ...this.#examining.values()])
    const tars = [...this.#tars.values()]
    this.#tars.clear()
    for (const { file, idle } of tars) {
      clearTimeout(idle)
      await file.close()
    }
  }

  async #fetch(blob: StoredBlob): Promise<void> {
    const { wholes } = this.#store
    const { file, path } = await wholes.begin()
    try {
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(FETCH_TIMEOUT_MS)])
      await fetchWhole(blob, file, { signal, priority: 'prefetch' })
      await wholes.keep(blob.digest, path)
    } finally {
      await file.close()
      await fs.rm(path, { force: true })
    }
  }

  async #compare(layer: OpenLayer, claim: Claim, file: FileHandle): Promise<Verdict> {
    const served = { image: await readImage(layer), chunks: layer.chunks.bytes }
    const { difference, diffId, tarSize, split } = await this.#examineFile(layer.descriptor, file, served)
    const seen = { diffId, tarSize, split }
    if (difference?.open) {
      throw Failure.unsupported(`layer ${claim.blob} cannot be proven`, { why: difference.what })
    }
    const verdict: Verdict =
      difference === undefined
        ? { verdict: 'proven', ...seen }
        : { verdict: 'refuted', why: difference.what.slice(0, WHY_MAX_LENGTH), ...seen }
    await this.#store.proofs.keep(claim, verdict)
    if (verdict.verdict === 'refuted') {
      this.#quarantined++
      this.#log(refusal(layer.descriptor, verdict).message)
    }
    return verdict
  }

  async #examine(descriptor: Descriptor, blob: StoredBlob): Promise<Examined> {
    const file = await this.blob(blob)
    try {
      return await this.#examineFile(descriptor, file, undefined)
    } finally {
      await file.close()
    }
  }

  #examineFile(descriptor: Descriptor, blobFile: FileHandle, served: Served | undefined): Promise<Examined> {
    return this.#turns.take(() => this.#examineInTurn(descriptor, blobFile, served), this.#signal)
  }

  async #examineInTurn(descriptor: Descriptor, blobFile: FileHandle, served: Served | undefined): Promise<Examined> {
    const { wholes, dir } = this.#store
    const { bavail, bsize } = await fs.statfs(dir)
    const tarMaxBytes = Math.min(TAR_MAX_BYTES, Math.floor((bavail * bsize) / 2))
    const tar = await this.#store.temporary()
    let examined: Examined
    try {
      const split = await wholes.begin()
      try {
        const fds = { blobFd: blobFile.fd, tarFd: tar.fd, splitFd: split.file.fd }
        const work = { layer: { descriptor }, ...fds, tarMaxBytes, served }
        examined = await this.#builder.examine(work, { signal: this.#signal })
        await wholes.keep(examined.split, split.path)
      } finally {
        await split.file.close()
        await fs.rm(split.path, { force: true })
      }
    } catch (error) {
      await tar.close()
      throw error
    }
    // what has an index is filled from its blob
    if (served === undefined) await this.#keepTar(examined.diffId, tar)
    else await tar.close()
    return examined
  }

  async #keepTar(diffId: Digest, file: FileHandle): Promise<void> {
    if (this.#tars.has(diffId)) await file.close()
    else this.#tars.set(diffId, { file, reading: 0, idle: undefined })
    this.#watch(diffId)
  }

  /** A tar that nobody reads any more goes after a while. */
  #watch(diffId: Digest): void {
    const tar = this.#tars.get(diffId)
    if (tar === undefined) return
    clearTimeout(tar.idle)
    tar.idle = setTimeout(() => {
      if (tar.reading > 0) return // whoever reads watches again afterwards
      this.#tars.delete(diffId)
      tar.file.close().catch((error) => this.#log(`a tar cannot be closed: ${describe(error)}`))
    }, TAR_IDLE_MS).unref()
  }

  async #readTar(diffId: Digest, range: Range, descriptor: Descriptor, blob: StoredBlob): Promise<Uint8Array> {
    let tar = this.#tars.get(diffId)
    if (tar === undefined) {
      await joined(this.#examining, `${descriptor.digest} again`, () => this.#examine(descriptor, blob))
      tar = this.#tars.get(diffId)
      if (tar === undefined) throw Failure.corrupt(`layer ${descriptor.digest}: its tar is no longer ${diffId}`)
    }
    tar.reading++
    try {
      return await new FileBlob({ digest: diffId, size: range.end }, tar.file).read(range)
    } finally {
      tar.reading--
      this.#watch(diffId)
    }
  }
}

interface Tar {
  file: FileHandle
  reading: number
  idle: NodeJS.Timeout | undefined
}

/** A path and what differs; a hostile one may be long. */
const WHY_MAX_LENGTH = 8192

/** Why a layer is not served, by anybody, under any name. */
export function refusal({ digest }: Descriptor, { why }: Refutation): Failure {
  return Failure.corrupt(`layer ${digest} is quarantined: its index shows another tree than its tar has: ${why}`, {
    fix: 'Do not use the image it is part of, and tell its publisher; if the index was made by a faulty tool, make it again.',
  })
}

/** Whoever asks for the same meanwhile waits for the same. */
function joined<K, T>(running: Map<K, Promise<unknown>>, key: K, work: () => Promise<T>): Promise<T> {
  const found = running.get(key) as Promise<T> | undefined // each key has one kind of work
  if (found !== undefined) return found
  const promise = work().finally(() => running.delete(key))
  running.set(key, promise)
  return promise
}
