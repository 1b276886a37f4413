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
// A layer's directory and its entry appear together. What is listed stays listed while this process lives, and is listed again by
// the next one: containers are made of it. A layer that is found to lie keeps its entry and loses its files, at once: an empty file is
// its `diff` then, until an honest layer is listed by the same ID. One that is proven takes its ID from one that was only believed.
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { OpenLayer } from '../layer/layer.ts'
import type { LateFile } from '../mount/session.ts'
import { isOf, type Quarantine } from '../proof/quarantine.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import { blobId, type Identity } from './chain.ts'
import { type ForgetParts, forgetUnused, type Listed } from './forget.ts'
import {
  type Chain,
  type ChainParts,
  type Link,
  type ListedImage,
  missingWhole,
  type Opening,
  openChain,
  type Prove,
} from './image-chain.ts'
import { ImageIds, type KnownBy } from './image-ids.ts'
import { ImageRoot, type ImageStoreMount } from './image-root.ts'
import { inGroups } from './in-groups.ts'
import { disagreement, isOtherBlob, layerEntry, shownOtherwise } from './layers-json.ts'
import { LOOKUP_PATIENCE } from './patience.ts'
import { notAgain } from './read-back.ts'

export interface ImageStoreParts extends ChainParts {
  /** Makes a layer's tree answer in the mount at this path from the root. @returns its slot there */
  attach(layer: OpenLayer, path: readonly string[]): Promise<number>
  /** Mounts a layer that was just grafted in the kernel, where that is done; resolves when it is, or is not, which is logged. */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void
  quarantine: Pick<Quarantine, 'of' | 'watch'>
  /** A layer's tar-split file, made from all of its bytes if need be. */
  split(layer: OpenLayer, blob: StoredBlob): Promise<LateFile>
  inUse: ForgetParts['inUse']
  /** Whether layers that bear no DiffIDs are named by their indexes. */
  byIndex: boolean
  /** Milliseconds of a clock that only goes forward. */
  now(): number
}

/** What became of an image's layers, lowest first. */
export interface Outcome {
  listed: readonly { digest: Digest; id: string; by: Identity['by'] }[]
  /** Those that engines pull themselves: the chain ends at the first that cannot be listed. */
  left: readonly Digest[]
  /** Why it ends. */
  why?: string
}

/** The layer that has an ID. */
interface Owner {
  readonly link: Link
  /** Where its tree answers; undefined: nowhere. */
  readonly slot: number | undefined
  /** Who had the ID; it does again when this claim cannot be kept. */
  before: Owner | undefined
  /** It could not. */
  failed: boolean
}

/** A chain whose trees answer, each in the slot of the same index. */
interface Attached {
  chain: Chain
  slots: readonly (number | undefined)[]
}

/** An entry of layers.json, and of what it tells. */
interface Entry {
  readonly link: Link
  readonly text: string
}

/** What engines may make an image's ID of. */
interface Made {
  known: KnownBy
  /** Not claimed by an earlier listing. */
  isNew: boolean
}

/** What became of a listing, and how to undo it. */
interface Added {
  outcome: Outcome
  listed: ListedImage | undefined
  made: Made | undefined
}

interface Claimed {
  /** The lowest first. */
  owners: readonly Owner[]
  /** Why no more. */
  why: string | undefined
}

/** Engines read the whole list whenever it changed: so many entries are 6 MB. */
const LAYERS_MAX = 10_000
/** From here on it is time to forget what nobody uses. */
const LAYERS_MANY = 8_000
const FULL = `${LAYERS_MAX} layers are listed already (after a restart of the agent, those that no engine uses are no more)`
/** Where a whole layer is fetched from, the newest first; more than a few tags of one layer are all the same registry. */
const SOURCES_MAX = 4
/** After these failures of one source another may do better. */
const ELSEWHERE = new Set(['missing', 'denied', 'unavailable', 'timeout', 'corrupt'])
/** Images whose trees are hashed at a time when all are listed again. */
const ATTACHED_AT_ONCE = 8
/** Each new version costs every engine a look at the whole list. */
const VERSION_EVERY_MS = 100
/** Messages that are not repeated; each names a reference, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalImageStore {
  static readonly DIRECTORY = 'images'
  readonly #parts: ImageStoreParts
  readonly #root: ImageRoot
  readonly #ids: ImageIds
  /** By layer ID: of what is listed, or will be. Whoever joins puts a new one in its place. */
  readonly #owners = new Map<string, Owner>()
  /** Entries of layers.json by layer ID, each after its parent's. */
  readonly #entries = new Map<string, Entry>()
  /** What `diff` shows, by layer ID; of a layer that is listed and not in here, an empty file. */
  readonly #grafted = new Map<string, OpenLayer>()
  /** Images that are being listed. */
  readonly #listing = new Map<string, Promise<Outcome>>()
  readonly #told = new Set<string>()
  /** Images that were listed, by what is kept of them. */
  readonly #images = new Map<string, Listed>()
  /** IDs that come with the next version of the list, each after its parent's. */
  #next: { ids: Set<string>; done: Promise<void> } | undefined
  #writtenAt = Number.NEGATIVE_INFINITY

  /** Shows the store in a mount, with what was read back, in one go. */
  static async show(
    parts: ImageStoreParts,
    mount: ImageStoreMount,
    readBack: readonly Chain[],
  ): Promise<AdditionalImageStore> {
    const store = new AdditionalImageStore(parts, mount)
    const failed = ({ image }: Chain, error: unknown) => parts.log(notAgain(referenceText(image.reference), error))
    const attach = (chain: Chain) => store.#attach(chain)
    const attached = await inGroups(readBack, ATTACHED_AT_ONCE, attach, failed)
    for (const { image, before } of readBack) store.#ids.recall(image, before?.by ?? [])
    // claimed in one turn, in the order in which they were listed
    const add = (each: Attached) => store.#add(each, 0)
    await inGroups(attached, attached.length, add, ({ chain }, error) => failed(chain, error))
    return store
  }

  /** Lists again what was read back only now. @throws Failure as `attach`; system when the list cannot be kept */
  async again(chain: Chain): Promise<void> {
    const attached = await this.#attach(chain)
    this.#ids.recall(chain.image, chain.before?.by ?? [])
    await this.#add(attached, 0)
    await this.#hide()
  }

  private constructor(parts: ImageStoreParts, mount: ImageStoreMount) {
    this.#parts = parts
    this.#ids = new ImageIds(parts.byIndex)
    this.#root = new ImageRoot(mount, AdditionalImageStore.DIRECTORY)
    parts.quarantine.watch((claim) => this.#withdraw(claim))
  }

  /** How many layers are listed. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * Lists the layers of an image, as its source has it now; resolves when engines see them. Whoever asks meanwhile waits for the same.
   * @throws Failure as Images.resolve; system when the list cannot be kept
   */
  list(reference: Reference, prove: Prove = 'small'): Promise<Outcome> {
    const key = `${referenceText(reference)} ${prove}`
    const running = this.#listing.get(key) ?? this.#list(reference, prove).finally(() => this.#listing.delete(key))
    this.#listing.set(key, running)
    return running
  }

  /** The contents of a late file of this store, if `node` is one. */
  async late(node: bigint): Promise<LateFile | undefined> {
    const link = this.#owners.get(this.#root.idOfSplit(node) ?? '')?.link
    if (link === undefined) return undefined
    try {
      return await this.#split(link)
    } catch (error) {
      this.#parts.log(`layer ${link.descriptor.digest}: it cannot be put together: ${describe(error)}`)
      throw error
    }
  }

  /** @throws what its newest source throws, when none has it; corrupt: it would be another tar's */
  async #split(link: Link): Promise<LateFile> {
    const failures: unknown[] = []
    for (const blob of link.blobs) {
      const layer = this.#filesOf(link) // it may lie, as the last source showed
      if (layer === undefined) throw Failure.corrupt('it is quarantined')
      try {
        const file = await this.#parts.split(layer, blob)
        const verdict = await layer.verdict()
        if (link.identity.by === 'index' || verdict?.diffId === link.identity.digest) return file
        await file.close()
        throw Failure.corrupt(`its bytes have DiffID ${verdict?.diffId}, not ${link.identity.digest}`)
      } catch (error) {
        if (!(error instanceof Failure) || !ELSEWHERE.has(error.code)) throw error
        failures.push(error)
      }
    }
    throw failures[0]
  }

  /** When many are listed, those that no engine uses are not listed by the next process. For when nothing is shown any more. */
  async forget(): Promise<void> {
    if (this.#owners.size <= LAYERS_MANY) return
    const { inUse, listings, log } = this.#parts
    try {
      const forget: ForgetParts['forget'] = (image) => listings.forget(image)
      const count = await forgetUnused(this.#images.values(), { inUse, forget }, Date.now())
      if (count > 0) log(`${count} images that no engine uses will not be listed again`)
    } catch (error) {
      log(`images that no engine uses cannot be forgotten: ${describe(error)}`)
    }
  }

  async #list(reference: Reference, prove: Prove): Promise<Outcome> {
    const image = await this.#parts.images.resolve(reference)
    const began = this.#parts.now()
    // what needs none of its bytes is there at once, however long the small ones take
    let { outcome, ...first } = await this.#open(image, prove === 'small' ? 'none' : prove)
    if (prove === 'small' && outcome.why !== undefined) {
      const { layers, believe, isAmbiguous } = this.#opening
      const believed = await believe(image)
      const missing = await missingWhole(image, layers, (index) => believed !== true && isAmbiguous(index))
      if (missing.size > 0) {
        const { outcome: more, made } = await this.#open(image, missing)
        const isMore = more.listed.length > outcome.listed.length
        // no engine was told of the first one, and goes by it
        if (isMore && this.#parts.now() - began < LOOKUP_PATIENCE.stallMs) await this.#forgetFirst(image, first, made)
        outcome = more
      }
    }
    this.#ids.leave(outcome.left)
    this.#tellLeft(image, outcome)
    return outcome
  }

  /** An image whose layers were listed in part, and then further. */
  async #forgetFirst(image: ResolvedImage, { made, listed }: Omit<Added, 'outcome'>, then: Made | undefined) {
    if (made === undefined || !made.isNew || JSON.stringify(made.known) === JSON.stringify(then?.known)) return
    this.#ids.release(image, made.known)
    if (listed === undefined) return
    this.#images.delete(keyOf(listed))
    await this.#parts.listings.forget(listed)
  }

  async #open(image: ResolvedImage, prove: Parameters<typeof openChain>[2]): Promise<Added> {
    // each time with less that is named by an index
    for (let round = 0; round <= image.manifest.layers.length; round++) {
      const chain = await openChain(image, this.#opening, prove)
      const added = await this.#add(await this.#attach(chain), Date.now())
      if (added === undefined) continue
      for (const { layer } of chain.links.slice(0, added.outcome.listed.length)) {
        void layer?.prefetch().catch((error) => this.#tell(describe(error)))
      }
      return added
    }
    throw new TypeError('an index that names no layer names one')
  }

  get #opening(): Opening {
    const { layers, believe } = this.#parts
    return { layers, believe, isAmbiguous: (index) => this.#ids.isAmbiguous(index) }
  }

  /**
   * What engines make an image's ID of, by what is listed of it; in the turn of its claims. Where that would not be the image's alone,
   * what stands in the way names no layer any more.
   */
  #idOf(image: ResolvedImage, owners: readonly Owner[]): Made | 'unclear' {
    const listed = [...this.#owners.values()].map(({ link }) => link)
    const known = this.#ids.predict(image, listed)
    const claimed = this.#ids.claim(image, known)
    const indexes = new Set(known.flat().flatMap((each) => each ?? []))
    if (typeof claimed === 'string') {
      const names = [...indexes].join(', ')
      this.#tell(`${referenceText(image.reference)}: ${claimed}; these indexes name no layer any more: ${names}`)
      this.#ids.blur(indexes)
      return 'unclear'
    }
    // since the chain was opened
    if (owners.some(({ link }) => this.#isHidden(link))) {
      if (claimed) this.#ids.release(image, known)
      return 'unclear'
    }
    return { known, isNew: claimed }
  }

  /** Has engines find no layer by an ambiguous index any more. */
  async #hide(): Promise<void> {
    let hidden = false
    for (const [id, { link, text }] of this.#entries) {
      const now = this.#entryOf(link)
      if (now.text === text) continue
      this.#entries.set(id, now)
      hidden = true
    }
    if (hidden) await this.#nextVersion([])
  }

  #entryOf(link: Link): Entry {
    return { link, text: layerEntry(link, this.#isHidden(link)) }
  }

  #isHidden({ identity }: Link): boolean {
    return identity.by === 'index' && this.#ids.isAmbiguous(identity.digest)
  }

  async #attach(chain: Chain): Promise<Attached> {
    const slots = chain.links.map(({ layer, id }) => layer && this.#parts.attach(layer, diffOf(id)))
    return { chain, slots: await Promise.all(slots) }
  }

  /**
   * @param at when it was asked for; 0: in an earlier life
   * @returns undefined: it is to be opened again, because some of its indexes name no layer any more
   */
  async #add(attached: Attached, at: number): Promise<Added | undefined> {
    const { image } = attached.chain
    const { owners, why } = this.#claim(attached, at)
    const made = at === 0 ? undefined : this.#idOf(image, owners)
    if (made === 'unclear') {
      for (const owner of owners) this.#giveBack(owner)
      await this.#hide()
      return undefined
    }
    const ids = owners.map(({ link: { id } }) => id)
    const by = owners.map(({ link: { identity } }) => identity.by)
    const { before } = attached.chain
    const known = { reference: referenceText(image.reference), manifest: image.digest, by: before?.by ?? by }
    const proven = known.by.map((_, i) => before?.proven?.[i] === true || owners[i]?.link.proven === true)
    const kept: ListedImage = proven.includes(true) ? { ...known, proven } : known
    // also where nothing is listed, whose ID it is is remembered
    const isKept = ids.length > 0 || at === 0 || made?.known.flat().some((index) => index !== undefined) === true
    if (isKept) {
      try {
        // called in the turn of the claims: what is kept has their order
        await this.#parts.listings.keep(kept)
      } catch (error) {
        for (const owner of owners) this.#giveBack(owner)
        if (made?.isNew) this.#ids.release(image, made.known)
        throw error
      }
      for (const owner of owners) owner.before = undefined
      this.#images.set(keyOf(kept), { image: kept, ids, at })
      await this.#write(ids)
      await Promise.all(ids.map((id) => this.#cover(id)))
      await this.#listOtherBlobs(attached.chain.links.slice(0, ids.length))
    }
    const left = image.manifest.layers.slice(ids.length).map(({ digest }) => digest)
    const listed = owners.map(({ link: { id, identity } }, i) => {
      return { digest: image.manifest.layers[i]?.digest as Digest, id, by: identity.by } // a link a layer
    })
    const outcome = { listed, left, ...(why === undefined ? {} : { why }) }
    if (at === 0) this.#tellLeft(image, outcome)
    return { outcome, listed: isKept ? kept : undefined, made }
  }

  /**
   * Lists layers that are listed, but as other blobs of the same tar, once more for their own. Those entries are not kept: they follow
   * from the images. Only who looks for a blob finds them; what is made of them has the ID that the tar gives it.
   */
  async #listOtherBlobs(links: readonly Link[]): Promise<void> {
    const ids: string[] = []
    for (const link of links) {
      const owner = this.#owners.get(link.id)
      if (link.layer === undefined || owner === undefined || !isOtherBlob(owner.link, link)) continue
      const id = blobId(link.id, link.descriptor.digest)
      const slot = await this.#parts.attach(link.layer, diffOf(id))
      const before = this.#owners.get(id)
      if (before === undefined && this.#owners.size >= LAYERS_MAX) continue
      const claim = { link: { ...link, id }, slot, before, failed: false }
      this.#owners.set(id, before === undefined ? claim : this.#both(before, claim))
      ids.push(id)
    }
    await this.#write(ids)
    await Promise.all(ids.map((id) => this.#cover(id)))
  }

  /** Claims IDs for a chain's layers from the base up, in one turn. */
  #claim({ chain, slots }: Attached, at: number): Claimed {
    const owners: Owner[] = []
    for (const [i, link] of chain.links.entries()) {
      const before = this.#owners.get(link.id)
      const claim = { link, slot: slots[i], before, failed: false }
      // what engines were shown once is shown again, whatever is said of it
      const not = at === 0 ? undefined : this.#whyNot(claim, before)
      if (not !== undefined) return { owners, why: not }
      if (before === undefined && this.#owners.size >= LAYERS_MAX) return { owners, why: FULL }
      const owner = before === undefined ? claim : this.#both(before, claim)
      this.#owners.set(link.id, owner)
      owners.push(owner)
    }
    return { owners, why: chain.why }
  }

  /** A claim that could not be kept: whoever had the ID before has it again, unless somebody claimed it since. */
  #giveBack(owner: Owner): void {
    owner.failed = true
    const { id } = owner.link
    if (this.#owners.get(id) !== owner) return
    let before = owner.before
    while (before?.failed) before = before.before
    if (before !== undefined) this.#owners.set(id, before)
    else if (!this.#entries.has(id)) this.#owners.delete(id)
  }

  #tellLeft({ reference }: ResolvedImage, { left, why }: Outcome): void {
    if (why === undefined) return
    this.#tell(`${referenceText(reference)}: layers from ${left[0]} on are left to the engine: ${why}`)
  }

  /** Why a layer cannot be listed, or not as the one that already is. */
  #whyNot(claim: Owner, owner: Owner | undefined): string | undefined {
    const { layer, identity } = claim.link
    const refutation = layer && this.#parts.quarantine.of(layer) // since it was opened
    if (refutation !== undefined) return `it is quarantined: ${refutation.why}`
    if (owner === undefined || this.#yields(owner, claim)) return undefined
    const differs = disagreement(owner.link, claim.link)
    if (differs === undefined) return undefined
    const claimed = `it is listed already as another image claims it: ${differs}`
    return identity.by === 'index'
      ? `${claimed} (engines find that one by its index; lazylayer pull --prove has it listed by what it is proven to be)`
      : claimed
  }

  /** A layer that is listed already, and is wanted again. */
  #both(before: Owner, claim: Owner): Owner {
    if (this.#yields(before, claim)) return claim
    const { link } = before
    if (shownOtherwise(link, claim.link) !== undefined) return { ...before, before, failed: false }
    const older = link.blobs.filter((each) => !claim.link.blobs.includes(each))
    const blobs = [...claim.link.blobs, ...older].slice(0, SOURCES_MAX)
    const proven = link.proven || claim.link.proven
    return { link: { ...link, blobs, proven }, slot: before.slot, before, failed: false }
  }

  /** Neither a liar nor who was only believed keeps a name from whoever is proven to bear it. */
  #yields({ link }: Owner, claim: Owner): boolean {
    if (this.#filesOf(claim.link) === undefined) return false
    if (this.#filesOf(link) === undefined) return true
    return claim.link.proven && !link.proven && shownOtherwise(link, claim.link) !== undefined
  }

  #filesOf({ layer }: Link): OpenLayer | undefined {
    return layer && this.#parts.quarantine.of(layer) === undefined ? layer : undefined
  }

  async #cover(id: string): Promise<void> {
    const layer = this.#grafted.get(id)
    if (layer !== undefined) await this.#parts.cover?.(layer, diffOf(id))
  }

  /** Resolves when these layers are in the list, with their files. */
  #write(ids: readonly string[]): Promise<void> {
    return ids.some((id) => this.#isNews(id)) ? this.#nextVersion(ids) : Promise.resolve()
  }

  #nextVersion(ids: readonly string[]): Promise<void> {
    this.#next ??= { ids: new Set(), done: this.#writeSoon() }
    for (const id of ids) this.#next.ids.add(id)
    return this.#next.done
  }

  /** Whether an ID is not listed yet, or not with its owner's files. */
  #isNews(id: string): boolean {
    const owner = this.#owners.get(id)
    return owner !== undefined && (!this.#entries.has(id) || this.#grafted.get(id) !== this.#filesOf(owner.link))
  }

  async #writeSoon(): Promise<void> {
    const waitMs = Math.max(0, this.#writtenAt + VERSION_EVERY_MS - performance.now())
    await new Promise((done) => setTimeout(done, waitMs))
    const ids = this.#next?.ids ?? []
    this.#next = undefined
    this.#writtenAt = performance.now()
    // in one turn: neither an entry without its directory nor the other way round, for longer than a few calls take
    for (const id of ids) if (this.#isNews(id)) this.#show(id)
    this.#root.writeList([...this.#entries.values()].map(({ text }) => text))
  }

  /** Shows an ID as its owner has it now: the verdict may have fallen since that was opened, and from here on it is withdrawn. */
  #show(id: string): void {
    const { link, slot } = this.#owners.get(id) as Owner // it is news
    const layer = this.#filesOf(link)
    this.#take(id)
    this.#root.put(id, link.below, layer && slot)
    if (layer !== undefined) this.#grafted.set(id, layer)
    this.#entries.set(id, this.#entryOf(link))
  }

  /** Has whoever was mounted there mounted no more. */
  #take(id: string): void {
    if (this.#grafted.delete(id)) this.#parts.uncover(diffOf(id))
  }

  /**
   * Takes the files of a layer that lies away; its entry stays, for engines fail as a whole when a layer that they know is gone. Who has
   * the ID by now comes with the next version of the list.
   */
  #withdraw(lie: Claim): void {
    for (const [id, layer] of this.#grafted) {
      if (!isOf(lie, layer)) continue
      this.#take(id)
      this.#root.put(id, this.#owners.get(id)?.link.below ?? [], undefined)
    }
  }

  #tell(message: string): void {
    if (this.#told.has(message)) return
    if (this.#told.size >= TOLD_MAX) this.#told.clear()
    this.#told.add(message)
    this.#parts.log(message)
  }
}

/** What was proven of it since does not make it another. */
function keyOf({ reference, manifest, by }: ListedImage): string {
  return JSON.stringify([reference, manifest, by])
}

function diffOf(id: string): string[] {
  return [AdditionalImageStore.DIRECTORY, 'overlay', id, 'diff']
}
