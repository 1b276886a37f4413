// The additional image store that lists only layers: a read-only root of containers/storage. Engines of every version reuse what they
// find listed here, by its ID alone, instead of pulling it.
//
//   ROOT/images/overlay-images/images.json          []
//               overlay-layers/layers.json          the list; each version is a file of its own, with another mtime
//               overlay-layers/<id>.tar-split.gz    what engines that save or push put the tar together from, made when it is read
//               overlay/<id>/{diff,link,lower}      the layer's tree, its short name, and those of the layers below it
//               overlay/l/<short name>              -> ../<id>/diff
//
// A layer's directory and its entry appear together. What is listed stays listed while this process lives, and is listed again by
// the next one: containers are made of it. A layer that is found to lie keeps its entry and loses its files, at once: an empty file is
// its `diff` then, until an honest layer is listed by the same ID. One that is proven takes its ID from one that was only believed.
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import type { OpenLayer } from '../mount/layer.ts'
import { isOf, type Quarantine } from '../mount/quarantine.ts'
import type { LateFile } from '../mount/session.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import type { Identity } from './chain.ts'
import { type ForgetParts, forgetUnused, type Listed } from './forget.ts'
import { type Chain, type ChainParts, type Link, type ListedImage, openChain, type Prove } from './image-chain.ts'
import { ImageRoot, type ImageStoreMount } from './image-root.ts'
import { disagreement, layerEntry } from './layers-json.ts'

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
}

/** What became of an image's layers, lowest first. */
export interface Outcome {
  listed: readonly { digest: Digest; id: string; by: Identity['by'] }[]
  /** Those that engines pull themselves: the chain ends at the first that cannot be listed. */
  left: readonly Digest[]
  /** Why it ends. */
  why?: string
}

/** A layer to be shown, and where its tree answers; undefined: nowhere. */
interface Showing {
  link: Link
  slot: number | undefined
}

/** Engines read the whole list whenever it changed: so many entries are 6 MB. */
const LAYERS_MAX = 10_000
/** From here on it is time to forget what nobody uses. */
const LAYERS_MANY = 8_000
const FULL = `${LAYERS_MAX} layers are listed already (after a restart of the agent, those that no engine uses are no more)`
/** Where a whole layer is fetched from, the newest first; more than a few tags of one layer are all the same registry. */
const SOURCES_MAX = 4
/** Each new version costs every engine a look at the whole list. */
const VERSION_EVERY_MS = 100
/** Messages that are not repeated; each names a reference, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalImageStore {
  static readonly DIRECTORY = 'images'
  readonly #parts: ImageStoreParts
  readonly #root: ImageRoot
  /** Layers by ID: listed, or to be listed. */
  readonly #known = new Map<string, Link>()
  /** Entries of layers.json by layer ID, each after its parent's. */
  readonly #entries = new Map<string, string>()
  /** What `diff` shows, by layer ID; of a layer that is listed and not in here, nothing. */
  readonly #grafted = new Map<string, OpenLayer>()
  /** Layer IDs by the node of their tar-split file. */
  readonly #splits = new Map<bigint, string>()
  /** Images that are being listed. */
  readonly #listing = new Map<string, Promise<Outcome>>()
  readonly #told = new Set<string>()
  /** Images that were listed, by what is kept of them. */
  readonly #images = new Map<string, Listed>()
  /** What comes with the next version of the list. */
  #next: { links: Map<string, Showing>; done: Promise<void> } | undefined
  #writtenAt = Number.NEGATIVE_INFINITY

  /** Shows the store in a mount, with what was read back, in one go. */
  static async show(
    parts: ImageStoreParts,
    mount: ImageStoreMount,
    readBack: readonly Chain[],
  ): Promise<AdditionalImageStore> {
    const store = new AdditionalImageStore(parts, mount)
    const adding = readBack.map(async (chain) => {
      try {
        await store.#add(chain, 0)
      } catch (error) {
        parts.log(`${referenceText(chain.image.reference)}: its layers are not listed again: ${describe(error)}`)
      }
    })
    await Promise.all(adding)
    return store
  }

  private constructor(parts: ImageStoreParts, mount: ImageStoreMount) {
    this.#parts = parts
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
    const link = this.#known.get(this.#splits.get(node) ?? '')
    if (link === undefined) return undefined
    try {
      return await this.#split(link)
    } catch (error) {
      this.#parts.log(`layer ${link.descriptor.digest}: it cannot be put together: ${describe(error)}`)
      throw error
    }
  }

  /** @throws what its newest source throws, when none has it */
  async #split(link: Link): Promise<LateFile> {
    const failures: unknown[] = []
    for (const blob of link.blobs) {
      const layer = this.#filesOf(link) // it may lie, as the last source showed
      if (layer === undefined) throw Failure.corrupt('it is quarantined')
      try {
        return await this.#parts.split(layer, blob)
      } catch (error) {
        failures.push(error)
      }
    }
    throw failures[0]
  }

  /** When many are listed, those that no engine uses are not listed by the next process. For when nothing is shown any more. */
  async forget(): Promise<void> {
    if (this.#known.size <= LAYERS_MANY) return
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
    const chain = await openChain(image, this.#parts, prove)
    const outcome = await this.#add(chain, Date.now())
    for (const { layer } of chain.links) void layer?.prefetch().catch((error) => this.#tell(describe(error)))
    return outcome
  }

  /** @param at when it was asked for; 0: in an earlier life */
  async #add(chain: Chain, at: number): Promise<Outcome> {
    const { image } = chain
    // in one turn, so that of two images with a layer in common the first one's claims count, now and after a restart
    const links: Link[] = []
    let why = chain.why
    for (const link of chain.links) {
      const known = this.#known.get(link.id)
      // what engines were shown once is shown again, whatever is said of it
      const not = at === 0 ? undefined : this.#whyNot(link, known)
      if (not !== undefined || (known === undefined && this.#known.size >= LAYERS_MAX)) {
        why = not ?? FULL
        break
      }
      const kept = known === undefined ? link : this.#both(known, link)
      this.#known.set(link.id, kept)
      links.push(kept)
    }
    const left = image.manifest.layers.slice(links.length).map(({ digest }) => digest)
    const name = referenceText(image.reference)
    if (why !== undefined) this.#tell(`${name}: layers from ${left[0]} on are left to the engine: ${why}`)
    if (links.length > 0) {
      const listed = { reference: name, manifest: image.digest, by: links.map(({ identity }) => identity.by) }
      const slots = await this.#prepare(links, listed)
      this.#images.set(JSON.stringify(listed), { image: listed, ids: links.map(({ id }) => id), at })
      await this.#write(links.map((link, i) => ({ link, slot: slots[i] })))
      await Promise.all(links.map((link) => this.#cover(link)))
    }
    const listed = links.map(({ id, identity: { by } }, i) => {
      return { digest: image.manifest.layers[i]?.digest as Digest, id, by } // a link a layer
    })
    return { listed, left, ...(why === undefined ? {} : { why }) }
  }

  /** Does what may fail before anything is shown. @returns where the layers' trees answer */
  async #prepare(links: readonly Link[], listed: ListedImage): Promise<(number | undefined)[]> {
    try {
      const slots = await Promise.all(links.map(({ layer, id }) => layer && this.#parts.attach(layer, diffOf(id))))
      await this.#parts.listings.keep(listed)
      return slots
    } catch (error) {
      // what is not listed and nobody else wants makes no claims
      for (const link of links) {
        if (this.#known.get(link.id) === link && !this.#entries.has(link.id)) this.#known.delete(link.id)
      }
      throw error
    }
  }

  /** Why a layer cannot be listed, or not as the one that already is. */
  #whyNot(link: Link, known: Link | undefined): string | undefined {
    const refutation = link.layer && this.#parts.quarantine.of(link.layer) // since it was opened
    if (refutation !== undefined) return `it is quarantined: ${refutation.why}`
    if (known === undefined || this.#yields(known, link)) return undefined
    const differs = disagreement(known, link)
    if (differs === undefined) return undefined
    const fix = link.identity.by === 'index' ? ' (lazylayer pull --prove has it listed by what it is proven to be)' : ''
    return `it is listed already as another image claims it: ${differs}${fix}`
  }

  /** A layer that is listed already, and is wanted again. */
  #both(known: Link, link: Link): Link {
    if (this.#yields(known, link) && this.#filesOf(link) !== undefined) {
      this.#takeFiles(link.id)
      return link
    }
    if (link.descriptor.digest !== known.descriptor.digest) return known
    const older = known.blobs.filter((each) => !link.blobs.includes(each))
    const blobs = [...link.blobs, ...older].slice(0, SOURCES_MAX)
    return { ...known, blobs, proven: known.proven || link.proven }
  }

  /** Neither a liar nor who was only believed keeps a name from whoever is proven to bear it. */
  #yields(known: Link, link: Link): boolean {
    const isOther = link.descriptor.digest !== known.descriptor.digest
    return this.#filesOf(known) === undefined || (isOther && link.proven && !known.proven)
  }

  #filesOf({ layer }: Link): OpenLayer | undefined {
    return layer && this.#parts.quarantine.of(layer) === undefined ? layer : undefined
  }

  async #cover(link: Link): Promise<void> {
    const layer = this.#filesOf(link)
    if (layer !== undefined && this.#grafted.get(link.id) === layer) await this.#parts.cover?.(layer, diffOf(link.id))
  }

  /** Resolves when these layers are in the list, with their files. */
  #write(links: readonly Showing[]): Promise<void> {
    const fresh = links.filter(({ link }) => this.#isNews(link))
    if (fresh.length === 0) return Promise.resolve()
    this.#next ??= { links: new Map(), done: this.#writeSoon() }
    for (const each of fresh) this.#next.links.set(each.link.id, each)
    return this.#next.done
  }

  /** Whether a layer is not listed yet, or without its files; and still is the one that has the name. */
  #isNews(link: Link): boolean {
    const { id, layer } = link
    if (this.#known.get(id)?.layer !== layer) return false
    return !this.#entries.has(id) || (!this.#grafted.has(id) && this.#filesOf(link) !== undefined)
  }

  async #writeSoon(): Promise<void> {
    const waitMs = Math.max(0, this.#writtenAt + VERSION_EVERY_MS - performance.now())
    await new Promise((done) => setTimeout(done, waitMs))
    const links = this.#next?.links.values() ?? []
    this.#next = undefined
    this.#writtenAt = performance.now()
    // in one turn: neither an entry without its directory nor the other way round, for longer than a few calls take
    for (const each of links) this.#show(each)
    this.#root.writeList([...this.#entries.values()])
  }

  #show({ link, slot }: Showing): void {
    const { id, below } = link
    if (!this.#entries.has(id)) this.#splits.set(this.#root.addLayer(id, below), id)
    this.#entries.set(id, layerEntry(link))
    // asked now: the verdict may have fallen since it was opened; from here on it is withdrawn
    const layer = this.#filesOf(link)
    if (layer === undefined || slot === undefined || this.#grafted.has(id)) return
    this.#root.setFiles(id, slot)
    this.#grafted.set(id, layer)
  }

  /** Takes the files of a layer that lies away; its entry stays, for engines fail as a whole when a layer that they know is gone. */
  #withdraw(claim: Claim): void {
    for (const [id, layer] of this.#grafted) {
      if (isOf(claim, layer)) this.#takeFiles(id)
    }
  }

  #takeFiles(id: string): void {
    if (!this.#grafted.delete(id)) return
    this.#root.setFiles(id, undefined)
    this.#parts.uncover(diffOf(id))
  }

  #tell(message: string): void {
    if (this.#told.has(message)) return
    if (this.#told.size >= TOLD_MAX) this.#told.clear()
    this.#told.add(message)
    this.#parts.log(message)
  }
}

function diffOf(id: string): string[] {
  return [AdditionalImageStore.DIRECTORY, 'overlay', id, 'diff']
}
