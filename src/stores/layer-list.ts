// Writes the list of layers. Each ID has an entry and a directory, both made from the ID's owner (layer-owners.ts). The two appear
// together, and many layers share one version of the list.
import type { OpenLayer } from '../layer/layer.ts'
import { isOf } from '../proof/quarantine.ts'
import type { Claim } from '../store/proofs.ts'
import type { ChainLink } from './image-chain.ts'
import type { ImageRoot } from './image-root.ts'
import type { LayerOwners, Owner } from './layer-owners.ts'
import { layerEntry } from './layers-json.ts'
import { isOf as isNamed, type NameClaim } from './name-claim.ts'

/** Mounts layers in the kernel, over what FUSE answers. */
export interface Covers {
  /** Mounts a layer in the kernel that was just grafted, where that is done; resolves when that is over. A failure is logged. */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void
}

/** Each new version costs every engine a look at the whole list. */
const VERSION_EVERY_MS = 100

/** What the files of a layer are made of that lies: it has none. */
const NO_FILES = 'nothing'

export class LayerList {
  readonly #root: ImageRoot
  readonly #owners: LayerOwners
  readonly #covers: Covers
  readonly #isHidden: (link: ChainLink) => boolean
  /** By layer ID, each after its parent's: the entry's text, and the layer that it was made from. */
  readonly #entries = new Map<string, { link: ChainLink; text: string }>()
  /** By layer ID: the layer whose tree `diff` shows. The `diff` of a listed layer that is not in here is an empty file. */
  readonly #grafted = new Map<string, OpenLayer>()
  /** By layer ID: the slot that its files are in. */
  readonly #slots = new Map<string, number>()
  /** IDs that come with the next version of the list, each after its parent's, and those that go. */
  #next: { ids: Set<string>; gone: Set<string>; done: Promise<void> } | undefined
  #writtenAt = Number.NEGATIVE_INFINITY

  /** @param isHidden whether engines are not to find a layer, but those that know its ID */
  constructor(root: ImageRoot, owners: LayerOwners, covers: Covers, isHidden: (link: ChainLink) => boolean) {
    this.#root = root
    this.#owners = owners
    this.#covers = covers
    this.#isHidden = isHidden
  }

  /** How many layers are listed. */
  get size(): number {
    return this.#entries.size
  }

  /** The slots that layers are shown from. */
  slots(): number[] {
    return [...this.#slots.values()]
  }

  /** Resolves when these layers are in the list, with their files, as their owners have them. */
  async write(ids: readonly string[]): Promise<void> {
    for (const id of ids) this.#next?.gone.delete(id)
    if (ids.some((id) => this.#isNews(id))) await this.#nextVersion(ids)
    await Promise.all(ids.map((id) => this.#cover(id)))
  }

  /** Resolves when those of these layers are shown again that have lost their files, and may have them now. */
  async showAgain(ids: readonly string[]): Promise<void> {
    await this.write(ids.filter((id) => this.#entries.has(id) && this.#isNews(id)))
  }

  /** Resolves when these layers are in the list no more, nor their files; what overlays are made of lives on in them. */
  async remove(ids: Iterable<string>): Promise<void> {
    const listed = [...ids].filter((id) => this.#entries.has(id))
    if (listed.length > 0) await this.#nextVersion([], listed)
  }

  /** Writes the entries anew of layers that have become hidden, so that engines do not find them any more. */
  async hide(): Promise<void> {
    let hidden = false
    for (const [id, { link, text }] of this.#entries) {
      const now = this.#entryOf(link)
      if (now.text === text) continue
      this.#entries.set(id, now)
      hidden = true
    }
    if (hidden) await this.#nextVersion([])
  }

  /**
   * Takes the files of a layer that lies away. Its entry stays, because an engine fails as a whole when a layer is gone that it knows. If
   * another layer has claimed the ID meanwhile, that one is shown with the next version of the list.
   */
  withdraw(lie: Claim): void {
    for (const [id, layer] of this.#grafted) if (isOf(lie, layer)) this.#takeFiles(id)
  }

  /** The same, of a layer that has no right to its DiffID, or not now. */
  withdrawNamed(claim: NameClaim): void {
    for (const [id, layer] of this.#grafted) {
      const { identity } = this.#entries.get(id)?.link ?? {}
      if (identity?.by === 'diffid' && isNamed(claim, layer, identity.digest)) this.#takeFiles(id)
    }
  }

  #takeFiles(id: string): void {
    this.#uncover(id)
    this.#root.put(id, this.#owners.of(id)?.link.below ?? [], undefined, NO_FILES)
  }

  /** Whether an ID is not listed yet, or not with its owner's files. */
  #isNews(id: string): boolean {
    const owner = this.#owners.of(id)
    return owner !== undefined && (!this.#entries.has(id) || this.#grafted.get(id) !== this.#owners.filesOf(owner.link))
  }

  #nextVersion(ids: readonly string[], gone: readonly string[] = []): Promise<void> {
    this.#next ??= { ids: new Set(), gone: new Set(), done: this.#writeSoon() }
    for (const id of ids) this.#next.ids.add(id)
    for (const id of gone) this.#next.gone.add(id)
    return this.#next.done
  }

  async #writeSoon(): Promise<void> {
    const waitMs = Math.max(0, this.#writtenAt + VERSION_EVERY_MS - performance.now())
    await new Promise((done) => setTimeout(done, waitMs))
    const { ids, gone } = this.#next ?? { ids: [], gone: [] }
    this.#next = undefined
    this.#writtenAt = performance.now()
    // in one turn: only for a few calls is there an entry without its directory, or a directory without its entry
    for (const id of gone) if (this.#entries.delete(id)) this.#hideFiles(id)
    for (const id of ids) if (this.#isNews(id)) this.#show(id)
    this.#root.writeList([...this.#entries.values()].map(({ text }) => text))
  }

  /** Shows an ID as its owner has it now. The owner may have been found to lie since it was opened; once shown, `withdraw` sees to that. */
  #show(id: string): void {
    const { link, slot } = this.#owners.of(id) as Owner // it is news
    const layer = this.#owners.filesOf(link)
    this.#uncover(id)
    const of = layer === undefined ? NO_FILES : `${layer.descriptor.digest} ${layer.tree}`
    this.#root.put(id, link.below, layer && slot, of)
    if (layer !== undefined) this.#grafted.set(id, layer)
    if (layer !== undefined && slot !== undefined) this.#slots.set(id, slot)
    this.#entries.set(id, this.#entryOf(link))
  }

  #hideFiles(id: string): void {
    this.#uncover(id)
    this.#root.remove(id)
  }

  #entryOf(link: ChainLink): { link: ChainLink; text: string } {
    return { link, text: layerEntry(link, this.#isHidden(link)) }
  }

  async #cover(id: string): Promise<void> {
    const layer = this.#grafted.get(id)
    if (layer !== undefined) await this.#covers.cover?.(layer, this.#root.diffOf(id))
  }

  /** Ends the kernel's mount of the layer that had the ID. */
  #uncover(id: string): void {
    this.#slots.delete(id)
    if (this.#grafted.delete(id)) this.#covers.uncover(this.#root.diffOf(id))
  }
}
