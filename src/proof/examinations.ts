// Layers that are read whole: to know whether the tree that is served is the tar's whose digest engines know the layer by; to serve
// one that no lazy format describes; and because engines that save or push an image want its exact bytes.
//
//   blob (fetched once, digest checked) -> examined in a worker -> verdict, kept for ever
//                                                               -> split file, kept while there is room
//                                                               -> tar, kept for a minute
import fs, { type FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import type { Examination, Examined } from '../format/examine.ts'
import type { IndexBuilder } from '../format/parser.ts'
import type { Blob, Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Copies } from '../layer/candidates.ts'
import { claimOf } from '../layer/claim.ts'
import { type Examiner, type OpenLayer, refusal, type Verdict } from '../layer/layer.ts'
import { readImage } from '../layer/layer-image.ts'
import { joined, Limit } from '../limit.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import type { Store } from '../store/store.ts'
import type { Tree } from '../tree/tree.ts'
import { DiskShare } from './disk-share.ts'
import { type BlobParts, KeptBlobs } from './kept-blobs.ts'
import { Quarantine } from './quarantine.ts'
import { RawTars } from './raw-tars.ts'
import { noSplit, withSplit } from './split-files.ts'
import { Tars } from './tars.ts'
import { judgeTogether } from './together.ts'

type Served = NonNullable<Examination['served']>

/** Each is bound by the network or by a core; more would only share them. */
const AT_ONCE = 2
/** A tar beyond that is no layer; and no layer may take more than half of what the disk has left. */
const TAR_MAX_BYTES = 64 * 2 ** 30

export class Examinations implements Examiner {
  readonly #store: Store
  readonly #builder: Pick<IndexBuilder, 'examine' | 'examineRaw'>
  readonly #log: (message: string) => void
  readonly #signal: AbortSignal
  readonly #turns = new Limit(AT_ONCE)
  readonly #blobs: KeptBlobs
  readonly #room: DiskShare
  /** By blob: whoever wants to know what one finds out anyway waits for it. */
  readonly #examining = new Map<Digest, Examining>()
  /** By claim, as its key. */
  readonly #judging = new Map<string, Promise<Verdict>>()
  readonly #raw: RawTars
  /** By blob: tars that were let go of, and are wanted again. */
  readonly #restoring = new Map<Digest, Promise<void>>()
  readonly #tars: Tars
  readonly #told: ((claim: Claim, verdict: Verdict) => void)[] = []
  readonly quarantine = new Quarantine()

  /**
   * @param signal ends whatever is under way
   */
  constructor(
    store: Store,
    builder: Pick<IndexBuilder, 'examine' | 'examineRaw'>,
    log: (message: string) => void,
    signal: AbortSignal,
    blobs: BlobParts = {},
  ) {
    this.#store = store
    this.#builder = builder
    this.#log = log
    this.#signal = signal
    this.#tars = new Tars(log)
    const left = async () => {
      const { bavail, bsize } = await fs.statfs(store.dir)
      return bavail * bsize
    }
    this.#room = new DiskShare(left, TAR_MAX_BYTES)
    this.#raw = new RawTars({ wholes: store.wholes, builder, turns: this.#turns, room: this.#room, signal })
    // of their own: most of what a tar is promised it never takes, and a blob's size is known
    this.#blobs = new KeptBlobs(store.wholes, new DiskShare(left, TAR_MAX_BYTES), signal, blobs)
  }

  /** Has `told` know of each verdict from now on, in the turn in which it falls; it must not throw. */
  watch(told: (claim: Claim, verdict: Verdict) => void): void {
    this.#told.push(told)
  }

  /** The exact blob in a file, which the caller closes. @throws Failure as KeptBlobs.of */
  blob(blob: StoredBlob): Promise<FileHandle> {
    return this.#blobs.of(blob)
  }

  /** Whether a layer's tree is its tar's; examined now if it never was. @throws Failure as `blob`; unsupported, limit */
  async verdict(layer: OpenLayer, blob: StoredBlob): Promise<Verdict> {
    const known = await this.known(layer)
    if (known !== undefined) return known
    const file = await this.blob(blob) // from its own source: nobody waits for another's registry
    try {
      return await this.judge(layer, file)
    } finally {
      await file.close()
    }
  }

  /** The verdict of a layer that was examined before. @throws Failure system */
  known(layer: OpenLayer): Promise<Verdict | undefined> {
    return this.#known(layer, claimOf(layer))
  }

  /** Begins what `judge` of a layer that shows a tree of several waits for. Never rejects. @param file is closed here */
  async readAhead(descriptor: Descriptor, file: FileHandle): Promise<void> {
    await this.#raw.read(descriptor, file).catch(() => {}) // whoever judges it tries again, and is told
    await file.close()
  }

  /** As `verdict`, with the blob in `file`, which stays the caller's. @throws Failure unsupported, limit */
  judge(layer: OpenLayer, file: FileHandle): Promise<Verdict> {
    const claim = claimOf(layer)
    return joined(this.#judging, `${claim.blob} ${claim.tree} ${claim.together}`, () => this.#judge(layer, claim, file))
  }

  /** The tree of a layer's tar, whose chunks are pieces of that tar; proven by what it is made of. @throws Failure as `verdict` */
  async tree(descriptor: Descriptor, copies: Copies<StoredBlob>): Promise<Tree> {
    const examined = await this.#withBlob(copies, (file) => this.#examine(descriptor, file, { tar: true }))
    await this.#proven({ blob: descriptor.digest, tree: examined.tree.digest }, examined)
    return examined.tree
  }

  /**
   * What engines put a layer's tar together from (tar-split, gzipped) in a file, which the caller closes.
   * @throws Failure as `verdict`; corrupt: the layer's tree is not its tar's, so nothing could be put together from it
   */
  async split(layer: OpenLayer, blob: StoredBlob): Promise<FileHandle> {
    if (layer.together?.shows === false) return await noSplit(this.#store)
    const verdict = await this.verdict(layer, blob)
    if (verdict.verdict === 'refuted') throw refusal(layer, verdict)
    const kept = await this.#store.wholes.find(verdict.split)
    if (kept !== undefined) return kept
    const file = await this.blob(blob)
    const examine = () =>
      layer.together
        ? this.#raw.readAgain(layer.descriptor, file)
        : this.#examine(layer.descriptor, file, { tar: false })
    const again = await examine().finally(() => file.close())
    // the compressor may be another version's by now: its file is as good
    const made = await this.#store.wholes.find(again.split)
    if (made !== undefined && again.diffId === verdict.diffId) return made
    await made?.close()
    throw Failure.system(`layer ${layer.descriptor.digest}: its tar-split cannot be kept`, {
      fix: 'Free space below the cache directory.',
    })
  }

  /** The layer's tar as a blob: `of` is what it was proven to be. */
  tarBlob(of: { digest: Digest; size: number }, descriptor: Descriptor, copies: Copies<StoredBlob>): Blob {
    return { ...of, read: (range) => this.#readTar(of.digest, range, descriptor, copies) }
  }

  /** When all that `signal` ends has ended, also the threads that still have files. */
  async close(): Promise<void> {
    const examining = [...this.#examining.values()].map(({ examined }) => examined)
    const asked = [...this.#judging.values(), ...this.#restoring.values()]
    await Promise.allSettled([this.#blobs.close(), this.#raw.settled(), ...examining, ...asked])
    await this.#tars.close()
  }

  async #known(layer: OpenLayer, claim: Claim): Promise<Verdict | undefined> {
    const kept = await this.#store.proofs.of(claim)
    // another process may have found it
    if (kept?.verdict === 'refuted' && this.quarantine.of(layer) === undefined) this.quarantine.add(claim, kept)
    if (kept !== undefined) return kept
    const refutation = this.quarantine.of(layer)
    if (refutation !== undefined) await this.#store.proofs.keep(claim, refutation) // the disk may have been full
    return refutation
  }

  /** @param file holds the blob */
  async #judge(layer: OpenLayer, claim: Claim, file: FileHandle): Promise<Verdict> {
    for (;;) {
      // while the blob was fetched another may have judged
      const known = await this.#known(layer, claim)
      if (known !== undefined) return known
      if (layer.together !== undefined) {
        const read = () => this.#raw.read(layer.descriptor, file)
        return await this.#judged(layer, claim, await judgeTogether(layer, file, read))
      }
      const examining = this.#examining.get(claim.blob)
      if (examining === undefined) return await this.#compare(layer, claim, file)
      const seen = await examining.examined.catch(() => undefined) // whoever asked for it is told
      if (seen?.tree.digest === claim.tree) return await this.#proven(claim, seen)
    }
  }

  /** Keeps that a tree is what its tar is made into. */
  async #proven(claim: Claim, { diffId, tarSize, split }: Examined): Promise<Verdict> {
    const verdict: Verdict = { verdict: 'proven', diffId, tarSize, split }
    this.#tell(claim, verdict)
    await this.#store.proofs.keep(claim, verdict)
    return verdict
  }

  async #compare(layer: OpenLayer, claim: Claim, file: FileHandle): Promise<Verdict> {
    const served = async () => ({ image: await readImage(layer), chunks: layer.chunks.bytes })
    const { difference, diffId, tarSize, split } = await this.#begin(layer.descriptor, file, { tar: false }, served)
    const seen = { diffId, tarSize, split }
    if (difference?.open) {
      throw Failure.unsupported(`layer ${claim.blob} cannot be proven`, { why: difference.what })
    }
    const verdict: Verdict =
      difference === undefined
        ? { verdict: 'proven', ...seen }
        : { verdict: 'refuted', why: difference.what.slice(0, WHY_MAX_LENGTH), ...seen }
    return await this.#judged(layer, claim, verdict)
  }

  async #judged(layer: OpenLayer, claim: Claim, verdict: Verdict): Promise<Verdict> {
    if (verdict.verdict === 'refuted') {
      // before it is kept: a disk that is full shows nobody a liar
      this.quarantine.add(claim, verdict)
      this.#log(refusal(layer, verdict).message)
    }
    this.#tell(claim, verdict)
    await this.#store.proofs.keep(claim, verdict)
    return verdict
  }

  #tell(claim: Claim, verdict: Verdict): void {
    for (const told of this.#told) told(claim, verdict)
  }

  async #withBlob<T>(copies: Copies<StoredBlob>, use: (file: FileHandle) => Promise<T>): Promise<T> {
    const file = await this.#blobs.ofAny(copies)
    try {
      return await use(file)
    } finally {
      await file.close()
    }
  }

  /** What is in a blob's tar; one that is being examined is not examined twice. */
  async #examine(descriptor: Descriptor, file: FileHandle, keep: Keep): Promise<Examined> {
    for (;;) {
      const running = this.#examining.get(descriptor.digest)
      if (running === undefined) return await this.#begin(descriptor, file, keep, undefined)
      if (keep.tar) running.keep.tar = true
      try {
        return await running.examined
      } catch (error) {
        if (!running.compares) throw error
        // what it failed at may be the tree that it was compared with
      }
    }
  }

  /** Must be called only where no other examination of the blob is under way. */
  #begin(
    descriptor: Descriptor,
    file: FileHandle,
    keep: Keep,
    served: (() => Promise<Served>) | undefined,
  ): Promise<Examined> {
    const { digest } = descriptor
    const over = () => {
      if (this.#examining.get(digest) === examining) this.#examining.delete(digest)
    }
    const work = () => this.#examineInTurn(descriptor, file, keep, served, over)
    const examined = this.#turns.take(work, this.#signal).finally(over)
    const examining = { examined, keep, compares: served !== undefined }
    this.#examining.set(digest, examining)
    return examined
  }

  /** @param over is called in the turn in which `keep` is looked at */
  async #examineInTurn(
    descriptor: Descriptor,
    blobFile: FileHandle,
    keep: Keep,
    served: (() => Promise<Served>) | undefined,
    over: () => void,
  ): Promise<Examined> {
    const tar = await this.#store.temporary()
    let examined: Examined
    try {
      const written = async () => (await tar.stat()).size
      const fds = { blobFd: blobFile.fd, tarFd: tar.fd }
      examined = await this.#room.half(
        written,
        async (tarMaxBytes) => this.#examineInto({ layer: descriptor, ...fds, tarMaxBytes, served: await served?.() }),
        this.#signal,
      )
    } catch (error) {
      await tar.close()
      throw error
    }
    over()
    if (keep.tar) this.#tars.keep(examined.diffId, tar)
    else await tar.close()
    return examined
  }

  /** The same, with a split file, which is kept. */
  #examineInto(examination: Omit<Examination, 'splitFd'>): Promise<Examined> {
    return withSplit(this.#store.wholes, (split) =>
      this.#builder.examine({ ...examination, splitFd: split.fd }, { signal: this.#signal }),
    )
  }

  async #readTar(
    diffId: Digest,
    range: Range,
    descriptor: Descriptor,
    copies: Copies<StoredBlob>,
  ): Promise<Uint8Array> {
    const kept = this.#tars.read(diffId, range)
    if (kept !== undefined) return await kept
    await joined(this.#restoring, descriptor.digest, () =>
      this.#withBlob(copies, async (file) => void (await this.#examine(descriptor, file, { tar: true }))),
    )
    const restored = this.#tars.read(diffId, range)
    if (restored === undefined) throw Failure.corrupt(`layer ${descriptor.digest}: its tar is no longer ${diffId}`)
    return await restored
  }
}

/** What of an examination is kept; who joins it may want more of it. */
interface Keep {
  /** For a minute. What has an index is filled from its blob. */
  tar: boolean
}

interface Examining {
  examined: Promise<Examined>
  keep: Keep
  /** With a tree that is served: what it fails at may be that. */
  compares: boolean
}

/** A path and what differs; a hostile one may be long. */
const WHY_MAX_LENGTH = 8192
