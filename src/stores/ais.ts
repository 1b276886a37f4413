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
// the next one: containers are made of it.
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import type { OpenLayer } from '../mount/layer.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { controlNode, type LateFile } from '../mount/session.ts'
import type { StoredBlob } from '../registry/source.ts'
import { linkName } from './chain.ts'
import { type ForgetParts, forgetUnused, type Listed } from './forget.ts'
import { type Chain, type ChainParts, type Link, openChain, type Prove } from './image-chain.ts'
import { layerEntry, layersJson } from './layers-json.ts'

/** The part of a mount that the store builds. */
export interface ImageStoreMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addSymlink(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, target: string): void
  replaceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  graft(parent: bigint, name: string, slot: number): void
}

export interface ImageStoreParts extends ChainParts {
  /** Makes a layer's tree answer in the mount at this path from the root. @returns its slot there */
  attach(layer: OpenLayer, path: readonly string[]): Promise<number>
  /** Mounts a layer that was just grafted in the kernel, where that is done; resolves when it is, or is not, which is logged. */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** A layer's tar-split file, made from all of its bytes if need be. */
  split(layer: OpenLayer, blob: StoredBlob): Promise<LateFile>
  inUse: ForgetParts['inUse']
}

/** What became of an image's layers, lowest first. */
export interface Outcome {
  listed: readonly { digest: Digest; id: string }[]
  /** Those that engines pull themselves: the chain ends at the first that cannot be listed. */
  left: readonly Digest[]
  /** Why it ends. */
  why?: string
}

/** A layer that is listed, and where its tree answers; undefined: nowhere. */
interface Shown {
  link: Link
  slot: number | undefined
}

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
const SYMLINK: NodeAttributes = { mode: 0o120777, uid: 0, gid: 0, mtime: 0n }
/** Engines read the whole list whenever it changed: so many entries are 6 MB. */
const LAYERS_MAX = 10_000
/** From here on it is time to forget what nobody uses. */
const LAYERS_MANY = 8_000
/** Each new version costs every engine a look at the whole list. */
const VERSION_EVERY_MS = 100
/**
 * What a tar-split file is said to have until it was made: less than any has. Readers ask again when they come to its end; of a file
 * that is shorter than was said the kernel fills up the rest with zeros when two read it at once.
 */
const SPLIT_BYTES = 1
/** Messages that are not repeated; each names a reference, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalImageStore {
  static readonly DIRECTORY = 'images'
  readonly #parts: ImageStoreParts
  readonly #mount: ImageStoreMount
  /** Layers by ID: listed, or to be listed. */
  readonly #known = new Map<string, Link>()
  /** Entries of layers.json by layer ID, each after its parent's. */
  readonly #entries = new Map<string, string>()
  /** By the node of their tar-split file. */
  readonly #splits = new Map<bigint, Link>()
  /** Images that are being listed. */
  readonly #listing = new Map<string, Promise<Outcome>>()
  readonly #told = new Set<string>()
  /** Images that were listed, by what is kept of them. */
  readonly #images = new Map<string, Listed>()
  readonly #overlay = node('overlay')
  readonly #links = node('overlay', 'l')
  readonly #layers = node('overlay-layers')
  /** What comes with the next version of the list. */
  #next: { links: Map<string, Shown>; done: Promise<void> } | undefined
  #version = 0n
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
    this.#mount = mount
    const root = node()
    mount.addDirectory(root, ROOT_NODE, AdditionalImageStore.DIRECTORY, DIRECTORY, false)
    for (const name of ['overlay', 'overlay-images', 'overlay-layers']) {
      mount.addDirectory(node(name), root, name, DIRECTORY, false)
    }
    mount.addDirectory(this.#links, this.#overlay, 'l', DIRECTORY, false)
    const empty = layersJson([])
    for (const [directory, name, bytes] of [
      ['overlay-images', 'images.json', empty],
      ['overlay-images', 'images.lock', new Uint8Array()],
      ['overlay-layers', 'layers.json', empty],
      ['overlay-layers', 'layers.lock', new Uint8Array()],
    ] as const) {
      mount.addFile(node(directory, name), node(directory), name, FILE, bytes)
    }
  }

  /** How many layers are listed. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * Lists the layers of an image, as its source has it now; resolves when engines see them. Whoever asks meanwhile waits for the same.
   * @throws Failure as Images.resolve; system when the list cannot be kept
   */
  list(reference: Reference, prove: Prove = 'none'): Promise<Outcome> {
    const key = `${referenceText(reference)} ${prove}`
    const running = this.#listing.get(key) ?? this.#list(reference, prove).finally(() => this.#listing.delete(key))
    this.#listing.set(key, running)
    return running
  }

  /** The contents of a late file of this store, if `node` is one. */
  async late(node: bigint): Promise<LateFile | undefined> {
    const link = this.#splits.get(node)
    if (link === undefined) return undefined
    try {
      if (link.layer === undefined) throw Failure.corrupt('it is quarantined')
      return await this.#parts.split(link.layer, link.blob)
    } catch (error) {
      this.#parts.log(`layer ${link.descriptor.digest}: it cannot be put together: ${describe(error)}`)
      throw error
    }
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
    for (const link of chain.links) {
      const known = this.#known.get(link.id)
      if (known === undefined && this.#known.size >= LAYERS_MAX) break
      this.#known.set(link.id, known ?? link)
      links.push(known ?? link)
    }
    const why =
      links.length < chain.links.length
        ? `${LAYERS_MAX} layers are listed already (after a restart of the agent, those that no engine uses are no more)`
        : chain.why
    const left = image.manifest.layers.slice(links.length).map(({ digest }) => digest)
    const name = referenceText(image.reference)
    if (why !== undefined) this.#tell(`${name}: layers from ${left[0]} on are left to the engine: ${why}`)
    if (links.length > 0) {
      const slots = await Promise.all(links.map(({ layer, id }) => layer && this.#parts.attach(layer, diffOf(id))))
      const listed = { reference: name, manifest: image.digest, by: links.map(({ identity }) => identity.by) }
      await this.#parts.listings.keep(listed)
      this.#images.set(JSON.stringify(listed), { image: listed, ids: links.map(({ id }) => id), at })
      await this.#write(links.map((link, i) => ({ link, slot: slots[i] })))
      await Promise.all(links.map(({ layer, id }) => layer && this.#parts.cover?.(layer, diffOf(id))))
    }
    const listed = links.map(({ id }, i) => ({ digest: image.manifest.layers[i]?.digest as Digest, id }))
    return { listed, left, ...(why === undefined ? {} : { why }) }
  }

  /** Resolves when these layers are in the list. */
  #write(links: readonly Shown[]): Promise<void> {
    const fresh = links.filter(({ link }) => !this.#entries.has(link.id))
    if (fresh.length === 0) return Promise.resolve()
    this.#next ??= { links: new Map(), done: this.#writeSoon() }
    for (const each of fresh) this.#next.links.set(each.link.id, each)
    return this.#next.done
  }

  async #writeSoon(): Promise<void> {
    const waitMs = Math.max(0, this.#writtenAt + VERSION_EVERY_MS - performance.now())
    await new Promise((done) => setTimeout(done, waitMs))
    const links = this.#next?.links.values() ?? []
    this.#next = undefined
    this.#writtenAt = performance.now()
    // in one turn: neither an entry without its directory nor the other way round, for longer than a few calls take
    for (const each of links) this.#show(each)
    const now = BigInt(Date.now()) * 1_000_000n
    this.#version = now > this.#version ? now : this.#version + 1n
    const version = node('overlay-layers', 'layers.json', String(this.#version))
    const attributes = { ...FILE, mtime: this.#version }
    this.#mount.replaceFile(version, this.#layers, 'layers.json', attributes, layersJson(this.#entries.values()))
  }

  #show({ link, slot }: Shown): void {
    const { id, below } = link
    const short = linkName(id)
    const directory = node('overlay', id)
    const text = (name: string, contents: string) =>
      this.#mount.addFile(node('overlay', id, name), directory, name, FILE, new TextEncoder().encode(contents))
    this.#mount.addDirectory(directory, this.#overlay, id, DIRECTORY, false)
    // a file there is what no overlay mounts: images are listed and removed as ever, and no container starts
    if (slot === undefined) text('diff', '')
    else this.#mount.graft(directory, 'diff', slot)
    text('link', short)
    if (below.length > 0) text('lower', below.map((each) => `l/${each}`).join(':'))
    const split = node('overlay-layers', id)
    this.#mount.addLate(split, this.#layers, `${id}.tar-split.gz`, FILE, SPLIT_BYTES)
    this.#splits.set(split, link)
    this.#mount.addSymlink(node('overlay', 'l', short), this.#links, short, SYMLINK, `../${id}/diff`)
    this.#entries.set(id, layerEntry(link))
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

function node(...path: string[]): bigint {
  return controlNode(AdditionalImageStore.DIRECTORY, ...path)
}
