// The additional image store that lists only layers: a read-only root of containers/storage. Engines of every version reuse what they
// find listed here, by its ID alone, instead of pulling it.
//
//   ROOT/images/overlay-images/images.json          []
//               overlay-layers/layers.json          the list; each version is a file of its own, with another mtime
//               overlay-layers/<id>.tar-split.gz    what engines that save or push put the tar together from, made when it is read
//               overlay/<id>/{diff,link,lower}      the layer's tree, its short name, and those of the layers below it
//               overlay/l/<short name>              -> ../<id>/diff
//
// Engines also look for layers by their blobs, and an entry names one: of a tar that is stored in several blobs each further one has an
// entry of its own, with an ID that no engine makes.
//
// A layer's directory and its entry appear together. What is listed stays listed, and is listed again by the next process: containers
// are made of it. Only when the list is nearly full does it turn over (turnover.ts). A layer that is found to lie keeps its entry and
// loses its files, at once: an empty file is its `diff` then, until an honest layer is listed by the same ID. A layer
// that lost its DiffID has the same, and nobody finds its entry but who knows the ID, until it is proven.
//
// Who owns an ID is decided by layer-owners.ts, and layer-list.ts writes the list; here an image is opened, named, and listed.
import { describe, Failure } from '../errors.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import { mapLimited } from '../limit.ts'
import type { LateFile } from '../mount/session.ts'
import type { Quarantine } from '../proof/quarantine.ts'
import type { StoredBlob } from '../registry/source.ts'
import { AttachedSlots } from './attached-slots.ts'
import { blobId } from './chain.ts'
import type { ShownImage } from './forget.ts'
import type { Guard } from './guard.ts'
import {
  type Chain,
  type ChainLink,
  type ChainOpening,
  type ChainParts,
  closeChain,
  type ListedImage,
  type Listings,
  type openChain,
} from './image-chain.ts'
import { ImageIds, type KnownBy } from './image-ids.ts'
import { ImageRoot, type ImageStoreMount, type ListVersions } from './image-root.ts'
import { KeptApart } from './kept-apart.ts'
import { type Covers, LayerList } from './layer-list.ts'
import { type Attached, claimOfLink, LayerOwners, type Owner } from './layer-owners.ts'
import { tarSplit } from './listed-split.ts'
import type { NameClaim } from './name-claim.ts'
import { keyOf, type Leaving, type ListOutcome, listedAs, outcomeOf } from './outcome.ts'
import { LOOKUP_PATIENCE } from './patience.ts'
import { notAgain } from './read-back.ts'
import { missingWhole, type Prove, withdrawnIn } from './read-whole.ts'
import { Turnover, type TurnoverParts } from './turnover.ts'

export interface ImageStoreParts extends ChainParts, Covers, TurnoverParts {
  listings: Listings
  /** Makes a layer's tree, of this image, answer in the mount at this path from the root, and holds it open. @returns its slot there */
  attach(layer: LayerLease, path: readonly string[], image: ResolvedImage): Promise<number>
  /** Ends that, once for each time that it was attached: nothing shows that slot any more. */
  release(slot: number): void
  quarantine: Pick<Quarantine, 'of' | 'watch'>
  guard: Pick<Guard, 'meet' | 'shown' | 'watch' | 'whyNot' | 'whyHidden'>
  /** Has fetched ahead what is wanted first of a layer of an image. @throws what that throws */
  prefetch(image: ResolvedImage, layer: OpenLayer): Promise<void>
  /** A layer's tar-split file, made from all of its bytes if need be. */
  split(layer: OpenLayer, blob: StoredBlob): Promise<LateFile>
  /** Whether layers that bear no DiffIDs are named by their indexes. */
  byIndex: boolean
  versions: ListVersions
  left: Leaving
  /** How many layers are listed at most; undefined: as many as engines bear. */
  layersMax?: number
}

/** What came of listing an image, and what it takes to undo that. */
interface Applied {
  outcome: ListOutcome
  kept: ListedImage | undefined
  /** What engines may compute the image's ID from. */
  known: KnownBy | undefined
  /** Whether no earlier listing had claimed that ID. */
  isNew: boolean
}

/** Images whose trees are hashed at the same time when all are listed again. */
const ATTACHED_AT_ONCE = 8
/** Messages that are not repeated; each names a reference, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalImageStore {
  static readonly DIRECTORY = 'images'
  readonly #parts: ImageStoreParts
  readonly #root: ImageRoot
  readonly #ids: ImageIds
  readonly #owners: LayerOwners
  readonly #list: LayerList
  /** Images that are being listed. */
  readonly #listing = new Map<string, Promise<ListOutcome>>()
  readonly #told = new Set<string>()
  readonly #apart: KeptApart
  /** Images that were listed, by the key of the record that is kept of each. */
  readonly #images = new Map<string, ShownImage>()
  readonly #turnover: Turnover
  readonly #attached: AttachedSlots

  /** Shows the store in a mount, with what was read back, in one go. */
  static async show(
    parts: ImageStoreParts,
    mount: ImageStoreMount,
    readBack: readonly Chain[],
  ): Promise<AdditionalImageStore> {
    const store = new AdditionalImageStore(parts, mount)
    const failed = ({ image }: Chain, error: unknown) => parts.log(notAgain(referenceText(image.reference), error))
    const attached = await mapLimited(readBack, ATTACHED_AT_ONCE, (chain) =>
      store.#attach(chain).catch((error) => failed(chain, error)),
    )
    const known = new Map(readBack.map((chain) => [chain, store.#ids.restore(chain.image, chain.before?.by ?? [])]))
    // claimed in one turn, in the order in which they were listed
    const restoring = attached.map(async (each) => {
      if (!each) return
      const { chain } = each
      const restore = () => store.#restore(each, known.get(chain) as KnownBy) // of each
      await store.#claiming(each, restore).catch((error) => failed(chain, error))
    })
    await Promise.all(restoring)
    return store
  }

  /** Lists an image again that could be read back only now. @throws Failure as `attach`; system when the list cannot be kept */
  async again(chain: Chain): Promise<void> {
    const attached = await this.#attach(chain)
    const known = this.#ids.restore(chain.image, chain.before?.by ?? [])
    await this.#claiming(attached, () => this.#restore(attached, known))
    await this.#list.hide()
  }

  private constructor(parts: ImageStoreParts, mount: ImageStoreMount) {
    this.#parts = parts
    this.#ids = new ImageIds(parts.byIndex)
    this.#apart = new KeptApart(parts)
    this.#root = new ImageRoot(mount, AdditionalImageStore.DIRECTORY, parts.versions)
    this.#owners = new LayerOwners(parts.quarantine, parts.guard, parts.layersMax)
    this.#list = new LayerList(this.#root, this.#owners, parts, (link) => this.#isHidden(link) || this.#hasLost(link))
    this.#attached = new AttachedSlots(parts, () => [...this.#owners.slots(), ...this.#list.slots()])
    this.#turnover = new Turnover(parts, {
      images: this.#images,
      ids: this.#ids,
      owners: this.#owners,
      list: this.#list,
      dropped: () => this.#attached.letGo(),
    })
    parts.quarantine.watch((claim) => this.#list.withdraw(claim))
    parts.guard.watch({
      hide: (claim) => {
        this.#list.withdrawNamed(claim)
        void this.#list.hide().catch((error) => this.#tell(describe(error)))
      },
      prove: (claim) => this.#proven(claim),
    })
  }

  /** How many layers are listed. */
  get size(): number {
    return this.#list.size
  }

  /**
   * Lists the layers of an image, as its source has it now; resolves when engines see them. Whoever asks meanwhile waits for the same.
   * @throws Failure as Images.resolve; system when the list cannot be kept
   */
  list(reference: Reference, prove: Prove = 'small'): Promise<ListOutcome> {
    const key = `${referenceText(reference)} ${prove}`
    const running = this.#listing.get(key) ?? this.#resolve(reference, prove).finally(() => this.#listing.delete(key))
    this.#listing.set(key, running)
    return running
  }

  /** Whether a node is a late file of this store. */
  owns(node: bigint): boolean {
    return this.#root.idOfSplit(node) !== undefined
  }

  /** The contents of a late file of this store. */
  async late(node: bigint): Promise<LateFile> {
    const link = this.#owners.of(this.#root.idOfSplit(node) ?? '')?.link
    if (link === undefined) throw Failure.missing('no such file')
    try {
      return await tarSplit(link, (each) => this.#owners.filesOf(each), this.#parts.split)
    } catch (error) {
      this.#parts.log(`layer ${link.descriptor.digest}: it cannot be put together: ${describe(error)}`)
      throw error
    }
  }

  /** Ends what goes on behind the store, once its mount is gone. Never rejects. */
  async end(): Promise<void> {
    await this.#turnover.end()
    await this.#parts.versions.close()
  }

  async #resolve(reference: Reference, prove: Prove): Promise<ListOutcome> {
    const image = await this.#parts.images.resolve(reference)
    const outcome = prove === 'small' ? await this.#listSoon(image) : (await this.#open(image, prove)).outcome
    this.#ids.pulledByEngine(outcome.left)
    this.#tellLeft(image, outcome)
    return outcome
  }

  /** Lists at once the layers that need no bytes for it; then reads the small ones whole, however long that takes, and lists the rest. */
  async #listSoon(image: ResolvedImage): Promise<ListOutcome> {
    const began = this.#parts.now()
    const first = await this.#open(image, 'none')
    if (first.outcome.why === undefined) return first.outcome
    const { layers, trustsDiffIds, isAmbiguous } = this.#opening
    const trusted = await trustsDiffIds(image)
    const withdrawn = withdrawnIn(image, (id) => this.#hasNoFiles(id))
    const whole = await missingWhole(image, layers, (index) => trusted !== true && isAmbiguous(index))
    const missing = whole.union(withdrawn)
    if (missing.size === 0) return first.outcome
    const then = await this.#open(image, missing)
    const isMore = then.outcome.listed.length > first.outcome.listed.length
    // so soon, no engine was told of the first listing, and none acts on it
    if (isMore && this.#parts.now() - began < LOOKUP_PATIENCE.stallMs) await this.#undo(image, first, then)
    return then.outcome
  }

  #hasNoFiles(id: string): boolean {
    const owner = this.#owners.of(id)
    return owner !== undefined && this.#owners.filesOf(owner.link) === undefined
  }

  /** Takes the first of two listings of an image back, when the second lists more of its layers. */
  async #undo(image: ResolvedImage, first: Applied, then: Applied): Promise<void> {
    if (first.known === undefined || !first.isNew || JSON.stringify(first.known) === JSON.stringify(then.known)) return
    this.#ids.release(image.manifest.config.digest, first.known)
    if (first.kept === undefined) return
    this.#images.delete(keyOf(first.kept))
    await this.#parts.listings.forget(first.kept)
  }

  async #open(image: ResolvedImage, prove: Parameters<typeof openChain>[2]): Promise<Applied> {
    // in each round fewer layers are named by their indexes
    for (let round = 0; round <= image.manifest.layers.length; round++) {
      const chain = await this.#apart.open(image, this.#opening, prove)
      // before anything is mounted: the registry need not wait for that
      for (const { layer } of chain.links) {
        if (layer !== undefined) void this.#parts.prefetch(image, layer).catch((error) => this.#tell(describe(error)))
      }
      const attached = await this.#attach(chain)
      const applied = await this.#claiming(attached, () => this.#apply(attached))
      if (applied !== undefined) return applied
    }
    throw new TypeError('an index that names no layer names one')
  }

  get #opening(): ChainOpening {
    const { layers, trustsDiffIds, guard } = this.#parts
    const isAmbiguous: ChainOpening['isAmbiguous'] = (index) => this.#ids.isAmbiguous(index)
    return { layers, trustsDiffIds, isAmbiguous, whyNot: (claim) => guard.whyNot(claim) }
  }

  /** @throws as `attach`; the chain is closed then */
  async #attach(chain: Chain): Promise<Attached> {
    try {
      const slots = await this.#attached.attachAll(chain.image, chain.links, (id) => this.#root.diffOf(id))
      return { chain, slots }
    } catch (error) {
      await closeChain(chain)
      throw error
    }
  }

  /** Claims and lists what was attached, and closes the chain. What of it is not listed is released. */
  async #claiming<T>({ chain, slots }: Attached, list: () => Promise<T>): Promise<T> {
    this.#attached.hold(slots)
    try {
      return await list()
    } finally {
      this.#attached.letGo()
      await closeChain(chain)
    }
  }

  /**
   * Lists an opened image: claims its layers' IDs, keeps that on disk, and shows them.
   * @returns undefined: it is to be opened again, because some of its indexes name no layer any more
   */
  async #apply(attached: Attached): Promise<Applied | undefined> {
    const { image } = attached.chain
    const { owners, why } = this.#owners.claim(attached, false)
    const made = this.#claimId(image, owners)
    if (made === undefined) {
      this.#owners.giveBack(owners)
      await this.#list.hide()
      return undefined
    }
    const listed = { ...listedAs(image, owners), askedAt: Date.now() }
    // also of an image without a listed layer it is remembered that the ID is its own
    const isKept = owners.length > 0 || made.known.flat().some((index) => index !== undefined)
    if (isKept) {
      const failed = () => made.isNew && this.#ids.release(image.manifest.config.digest, made.known)
      await this.#keep(attached.chain, owners, listed, made.known, failed)
    }
    this.#turnover.check()
    return { outcome: outcomeOf(image, owners, why), kept: isKept ? listed : undefined, ...made }
  }

  /** Lists an image as it was in an earlier life, as far as it could be opened. */
  async #restore(attached: Attached, known: KnownBy): Promise<void> {
    const { image, before } = attached.chain
    const { owners, why } = this.#owners.claim(attached, true)
    await this.#keep(attached.chain, owners, listedAs(image, owners, before), known, () => {})
    void this.#apart.meet(attached.chain).catch((error) => this.#tell(describe(error))) // two that were listed may differ by now
    this.#tellLeft(image, outcomeOf(image, owners, why))
  }

  /**
   * Keeps what was claimed on disk, and shows it; claims that cannot be kept are given back. To be called in the turn of the claims, so
   * that records have the order of the claims.
   */
  async #keep(chain: Chain, owners: readonly Owner[], listed: ListedImage, known: KnownBy, failed: () => void) {
    try {
      await this.#parts.listings.keep(listed)
    } catch (error) {
      this.#owners.giveBack(owners)
      failed()
      throw error
    }
    this.#owners.kept(owners)
    const ids = owners.map(({ link: { id } }) => id)
    const links = chain.links.slice(0, ids.length)
    for (const link of links) this.#guarded(chain.image, link)
    const blobIds = links.map(({ id, descriptor }) => blobId(id, descriptor.digest))
    this.#images.set(keyOf(listed), { image: listed, ids, blobIds, config: chain.image.manifest.config.digest, known })
    await this.#list.write(ids)
    await this.#listOtherBlobs(chain.image, links)
  }

  /** Has a layer proven later that is shown under its DiffID because its image is believed. */
  #guarded(image: ResolvedImage, link: ChainLink): void {
    if (link.identity.by !== 'diffid' || link.layer === undefined) return
    this.#parts.guard.shown({ image, descriptor: link.descriptor, claim: claimOfLink(link) }, link.proven)
  }

  /**
   * Gives a layer an entry of its own where the list has it as another blob of the same tar. These entries are not kept on disk, because
   * they follow from the images. Only an engine that looks for a blob finds them; what it makes of them has the tar's usual ID.
   */
  async #listOtherBlobs(image: ResolvedImage, links: readonly ChainLink[]): Promise<void> {
    const ids: string[] = []
    for (const link of links) {
      const id = this.#owners.otherBlobId(link)
      if (id === undefined || link.layer === undefined) continue
      const slot = await this.#parts.attach(link.layer, this.#root.diffOf(id), image)
      this.#attached.hold([slot])
      if (this.#owners.claimOtherBlob(link, slot, id)) ids.push(id)
    }
    await this.#list.write(ids)
  }

  /**
   * Claims the ID that engines will compute for an image from what is listed of it; in the turn of its other claims. Undefined: another
   * image has that ID. Then the indexes that make it name no layer any more.
   */
  #claimId(image: ResolvedImage, owners: readonly Owner[]): (Pick<Applied, 'isNew'> & { known: KnownBy }) | undefined {
    const known = this.#ids.predict(image, this.#owners.links())
    const claimed = this.#ids.claim(image, known)
    const indexes = new Set(known.flat().flatMap((each) => each ?? []))
    if (typeof claimed === 'string') {
      const names = [...indexes].join(', ')
      this.#tell(`${referenceText(image.reference)}: ${claimed}; these indexes name no layer any more: ${names}`)
      this.#ids.markAmbiguous(indexes)
      return undefined
    }
    // an index may have become ambiguous since the chain was opened
    if (owners.some(({ link }) => this.#isHidden(link))) {
      if (claimed) this.#ids.release(image.manifest.config.digest, known)
      return undefined
    }
    return { known, isNew: claimed }
  }

  /** A layer is proven to have the DiffID that its image claims: it is shown again, and whatever waits for it is listed. */
  #proven(claim: NameClaim): void {
    const failed = (error: unknown) => this.#tell(describe(error))
    this.#list.showAgain(this.#owners.prove(claim)).catch(failed)
    for (const image of this.#apart.proven(claim)) this.#open(image, 'none').catch(failed)
  }

  /**
   * Whether a layer lost its DiffID: nobody is to find it by what it has no right to. One that is quarantined has its DiffID by right; what
   * an earlier process quarantined may have either.
   */
  #hasLost(link: ChainLink): boolean {
    const { layer, identity } = link
    if (identity.by !== 'diffid' || this.#owners.filesOf(link) !== undefined) return false
    return layer === undefined || this.#parts.quarantine.of(layer) === undefined
  }

  #isHidden({ identity }: ChainLink): boolean {
    return identity.by === 'index' && this.#ids.isAmbiguous(identity.digest)
  }

  #tellLeft({ reference }: ResolvedImage, { left, why }: ListOutcome): void {
    if (why === undefined) return
    const message = `${referenceText(reference)}: layers from ${left[0]} on are left to the engine: ${why}`
    this.#parts.left.leave(message, left.length, why)
  }

  #tell(message: string): void {
    if (this.#told.has(message)) return
    if (this.#told.size >= TOLD_MAX) this.#told.clear()
    this.#told.add(message)
    this.#parts.log(message)
  }
}
