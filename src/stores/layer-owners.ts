// Who owns the IDs that layers are listed by. Pure state: nothing is shown or kept here (layer-list.ts, image-store.ts).
//
// An ID is claimed by an image's chain, in one turn, and then kept on disk; a claim that cannot be kept is given back. One that is proven
// takes its ID from one that was only trusted, and from a layer that lies.
import type { OpenLayer } from '../layer/layer.ts'
import type { Quarantine } from '../proof/quarantine.ts'
import { blobId } from './chain.ts'
import type { Guard } from './guard.ts'
import type { Chain, ChainLink } from './image-chain.ts'
import { disagreement, isOtherBlob, shownOtherwise } from './layers-json.ts'
import { isOf, type NameClaim } from './name-claim.ts'

/** The layer that has an ID. */
export interface Owner {
  link: ChainLink
  /** The slot in the mount where its tree answers; undefined: it has no files. */
  readonly slot: number | undefined
  /** The owner before this one, until this claim is kept: if that fails, it is the owner again. */
  before: Owner | undefined
  /** Whether this claim could not be kept. */
  failed: boolean
}

/** A chain whose trees answer in the mount: link i in slot i. */
export interface Attached {
  chain: Chain
  slots: readonly (number | undefined)[]
}

/** The IDs that a chain got, of those that it claimed. */
export interface Claimed {
  /** The lowest first. */
  owners: readonly Owner[]
  /** Why it got no more of them. */
  why: string | undefined
}

/** Engines read the whole list whenever it changed: so many entries are 6 MB. */
const LAYERS_MAX = 10_000
/** Sources of a whole layer that are remembered, the newest first. More tags of one layer than this are usually in one registry. */
const SOURCES_MAX = 4

export class LayerOwners {
  readonly #quarantine: Pick<Quarantine, 'of'>
  readonly #guard: Pick<Guard, 'whyNot' | 'whyHidden'>
  /** By layer ID, of layers that are listed or will be. An image that claims an ID again replaces the owner by a new object. */
  readonly #owners = new Map<string, Owner>()

  /** How many there may be. */
  readonly max: number

  constructor(quarantine: Pick<Quarantine, 'of'>, guard: Pick<Guard, 'whyNot' | 'whyHidden'>, max = LAYERS_MAX) {
    this.#quarantine = quarantine
    this.#guard = guard
    this.max = max
  }

  get size(): number {
    return this.#owners.size
  }

  of(id: string): Owner | undefined {
    return this.#owners.get(id)
  }

  links(): ChainLink[] {
    return [...this.#owners.values()].map(({ link }) => link)
  }

  /** The slots of all owners, and of those that may be owners again. */
  slots(): (number | undefined)[] {
    const slots: (number | undefined)[] = []
    for (const owner of this.#owners.values()) {
      for (let each: Owner | undefined = owner; each !== undefined; each = each.before) slots.push(each.slot)
    }
    return slots
  }

  /** The layer whose files are shown, unless it is quarantined, or must not bear its DiffID. */
  filesOf({ layer, identity }: ChainLink): OpenLayer | undefined {
    if (layer === undefined || this.#quarantine.of(layer) !== undefined) return undefined
    const isHidden = identity.by === 'diffid' && this.#guard.whyHidden(layer, identity.digest) !== undefined
    return isHidden ? undefined : layer
  }

  /** A layer is proven to have its DiffID. @returns the IDs that it is listed by */
  prove(claim: NameClaim): string[] {
    const ids: string[] = []
    for (const [id, owner] of this.#owners) {
      const { layer, identity } = owner.link
      if (layer === undefined || identity.by !== 'diffid' || !isOf(claim, layer, identity.digest)) continue
      owner.link = { ...owner.link, proven: true }
      ids.push(id)
    }
    return ids
  }

  /** Claims IDs for a chain's layers from the base up, in one turn. @param isRestored engines were shown it in an earlier life */
  claim({ chain, slots }: Attached, isRestored: boolean): Claimed {
    const owners: Owner[] = []
    // these are listed all or none: some of them are another image
    const together = Math.max(0, ...chain.links.map(({ layer }) => layer?.together?.unit.layers.length ?? 0))
    const end = (why: string): Claimed => {
      if (owners.length >= together) return { owners, why }
      this.giveBack(owners)
      return { owners: [], why }
    }
    for (const [i, link] of chain.links.entries()) {
      const before = this.#owners.get(link.id)
      const claim = { link, slot: slots[i], before, failed: false }
      // a layer that engines were shown is shown again, whatever is known against it by now
      const not = isRestored ? undefined : this.#whyNot(claim, before)
      if (not !== undefined) return end(not)
      if (before === undefined && this.#owners.size >= this.max) return end(this.#full)
      owners.push(this.#put(claim))
    }
    return { owners, why: chain.why }
  }

  /** The ID of the further entry by which engines find a layer's blob, where the list names another blob of the same tar; else undefined. */
  otherBlobId(link: ChainLink): string | undefined {
    const owner = this.#owners.get(link.id)
    if (link.layer === undefined || owner === undefined || !isOtherBlob(owner.link, link)) return undefined
    return blobId(link.id, link.descriptor.digest)
  }

  /** Claims such an ID, which need not be kept. @returns whether there is room */
  claimOtherBlob(link: ChainLink, slot: number, id: string): boolean {
    const before = this.#owners.get(id)
    if (before === undefined && this.#owners.size >= this.max) return false
    this.kept([this.#put({ link: { ...link, id }, slot, before, failed: false })])
    return true
  }

  /** Claims that are kept are not given back any more. */
  kept(owners: readonly Owner[]): void {
    for (const owner of owners) owner.before = undefined
  }

  /** Claims that could not be kept: whoever had an ID before has it again, unless somebody claimed it since. */
  giveBack(owners: readonly Owner[]): void {
    for (const owner of owners) {
      owner.failed = true
      const { id } = owner.link
      if (this.#owners.get(id) !== owner) continue
      let before = owner.before
      while (before?.failed) before = before.before
      if (before !== undefined) this.#owners.set(id, before)
      else this.#owners.delete(id)
    }
  }

  /** The owners of these IDs, each after its parent's, but for owners whose claims are still being kept. */
  settled(isWanted: (id: string) => boolean): Map<string, Owner> {
    return new Map([...this.#owners].filter(([id, { before }]) => before === undefined && isWanted(id)))
  }

  /** Has an ID owned by nobody, unless another claim has replaced this owner meanwhile. */
  drop(id: string, owner: Owner): void {
    if (this.#owners.get(id) === owner) this.#owners.delete(id)
  }

  #put(claim: Owner): Owner {
    const owner = claim.before === undefined ? claim : this.#both(claim.before, claim)
    this.#owners.set(claim.link.id, owner)
    return owner
  }

  get #full(): string {
    return `${this.max} layers are listed already, and those that no engine uses are about to go: later pulls find room`
  }

  /** Why a layer cannot be listed, or not as the one that already is. */
  #whyNot(claim: Owner, owner: Owner | undefined): string | undefined {
    const { layer, identity } = claim.link
    const refutation = layer && this.#quarantine.of(layer) // it may have been found to lie since it was opened
    if (refutation !== undefined) return `it is quarantined: ${refutation.why}`
    const doubt = isBelieved(claim.link) ? this.#guard.whyNot(claimOfLink(claim.link)) : undefined
    if (doubt !== undefined) return doubt
    if (owner === undefined || this.#yields(owner, claim)) return undefined
    const differs = disagreement(owner.link, claim.link)
    if (differs === undefined) return undefined
    const claimed = `it is listed already as another image claims it: ${differs}`
    return identity.by === 'index'
      ? `${claimed} (engines find that one by its index; lazylayer pull --prove has it listed by what it is proven to be)`
      : claimed
  }

  /** The owner of an ID that has one, after another image claimed it, too. */
  #both(before: Owner, claim: Owner): Owner {
    if (this.#yields(before, claim)) return claim
    const { link } = before
    if (shownOtherwise(link, claim.link) !== undefined) return { ...before, before, failed: false }
    const older = link.blobs.filter((each) => !claim.link.blobs.includes(each))
    const blobs = [...claim.link.blobs, ...older].slice(0, SOURCES_MAX)
    const proven = link.proven || claim.link.proven
    return { link: { ...link, blobs, proven }, slot: before.slot, before, failed: false }
  }

  /** Whether an owner loses its ID to a claim: a layer that lies does, and one that was only trusted does to one that is proven. */
  #yields({ link }: Owner, claim: Owner): boolean {
    if (this.filesOf(claim.link) === undefined) return false
    if (this.filesOf(link) === undefined) return true
    return claim.link.proven && !link.proven && shownOtherwise(link, claim.link) !== undefined
  }
}

/** Whether a layer bears a DiffID that nobody has proven. */
export function isBelieved({ identity, layer, proven }: ChainLink): boolean {
  return identity.by === 'diffid' && layer !== undefined && !proven
}

/** What its image claims of a layer. */
export function claimOfLink({ diffId, descriptor, index, tree, layer }: ChainLink): NameClaim {
  return { diffId, blob: descriptor.digest, index, tree, together: layer?.together !== undefined }
}
