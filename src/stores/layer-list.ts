// Writes the list of layers: an entry and a directory for each ID, as its owner has it (layer-owners.ts). They appear together, and in
// versions of the list that come apart.
import type { OpenLayer } from '../layer/layer.ts'
import { isOf } from '../proof/quarantine.ts'
import type { Claim } from '../store/proofs.ts'
import type { ChainLink } from './image-chain.ts'
import type { ImageRoot } from './image-root.ts'
import type { LayerOwners, Owner } from './layer-owners.ts'
import { layerEntry } from './layers-json.ts'

/** What the kernel is told. */
export interface Covers {
  /** Mounts a layer that was just grafted in the kernel, where that is done; resolves when it is, or is not, which is logged. */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void
}

/** Each new version costs every engine a look at the whole list. */
const VERSION_EVERY_MS = 100

/** What a layer is made of that lies. */
const NO_FILES = 'nothing'

export class LayerList {
  readonly #root: ImageRoot
  readonly #owners: LayerOwners
  readonly #covers: Covers
  readonly #isHidden: (link: ChainLink) => boolean
  /** By layer ID, each after its parent's: what it tells, and of whom. */
  readonly #entries = new Map<string, { link: ChainLink; text: string }>()
  /** What `diff` shows, by layer ID; of a layer that is listed and not in here, an empty file. */
  readonly #grafted = new Map<string, OpenLayer>()
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

  /** Resolves when these layers are in the list, with their files, as their owners have them. */
  async write(ids: readonly string[]): Promise<void> {
    for (const id of ids) this.#next?.gone.delete(id)
    if (ids.some((id) => this.#isNews(id))) await this.#nextVersion(ids)
    await Promise.all(ids.map((id) => this.#cover(id)))
  }

  /** Resolves when these layers are in the list no more, nor their files; what overlays are made of lives on in them. */
  async remove(ids: Iterable<string>): Promise<void> {
    const listed = [...ids].filter((id) => this.#entries.has(id))
    if (listed.length > 0) await this.#nextVersion([], listed)
  }

  /** Has engines find no layer any more that is hidden by now. */
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
   * Takes the files of a layer that lies away; its entry stays, for engines fail as a whole when a layer that they know is gone. Who has
   * the ID by now comes with the next version of the list.
   */
  withdraw(lie: Claim): void {
    for (const [id, layer] of this.#grafted) {
      if (!isOf(lie, layer)) continue
      this.#uncover(id)
      this.#root.put(id, this.#owners.of(id)?.link.below ?? [], undefined, NO_FILES)
    }
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
    // in one turn: neither an entry without its directory nor the other way round, for longer than a few calls take
    for (const id of gone) if (this.#entries.delete(id)) this.#hideFiles(id)
    for (const id of ids) if (this.#isNews(id)) this.#show(id)
    this.#root.writeList([...this.#entries.values()].map(({ text }) => text))
  }

  /** Shows an ID as its owner has it now: the verdict may have fallen since that was opened, and from here on it is withdrawn. */
  #show(id: string): void {
    const { link, slot } = this.#owners.of(id) as Owner // it is news
    const layer = this.#owners.filesOf(link)
    this.#uncover(id)
    const of = layer === undefined ? NO_FILES : `${layer.descriptor.digest} ${layer.tree}`
    this.#root.put(id, link.below, layer && slot, of)
    if (layer !== undefined) this.#grafted.set(id, layer)
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

  /** Has whoever was mounted there mounted no more. */
  #uncover(id: string): void {
    if (this.#grafted.delete(id)) this.#covers.uncover(this.#root.diffOf(id))
  }
}
