// What images say of DiffIDs and blobs, all images that this agent was told of, and how much of it is known to be true. Pure state;
// guard.ts has what follows from it.
import type { Digest } from '../image/digest.ts'
import type { Claimant } from '../layer/claim.ts'
import type { Verdict } from '../layer/layer.ts'
import type { Claim } from '../store/proofs.ts'
import { areRivals, isOf, isSame, type NameClaim, namesOf } from './name-claim.ts'

/** `said`: nobody has read the whole blob; `false`: somebody has, and it is not as it was said. */
export type Standing = 'said' | 'proven' | 'false'

interface Kept {
  claim: NameClaim
  standing: Standing
  /** Whether a door has shown the layer under this name. */
  shown: boolean
  /** Whether it lost to a rival: it has no files until it is proven. */
  withheld: boolean
}

/** Whoever shows layers: told in the turn in which a name is lost or found again; must not throw. */
export interface NameDoor {
  /** A layer has no right to this DiffID, or not before it is proven: it has no files any more. */
  hide(claim: NameClaim, why: 'false' | 'withheld'): void
  /** It is proven now. */
  prove(claim: NameClaim): void
}

/** Some thousand images' layers. What is shown and only believed is never dropped; with so many of those nothing more is believed. */
const CLAIMS_MAX = 100_000
/** Of one DiffID, or one blob: as many as there are ways to compress one tar, and then some. Of one that has more nothing is believed any more. */
const RIVALS_MAX = 64

export class NameClaims {
  /** By DiffID, and by blob; the oldest first. */
  readonly #byName = new Map<Digest, Kept[]>()
  readonly #all = new Set<Kept>()
  /** Of which more was said than is remembered. */
  readonly #crowded = new Set<Digest>()
  readonly #doors: NameDoor[] = []
  readonly #max: number

  constructor(max = CLAIMS_MAX) {
    this.#max = max
  }

  get size(): number {
    return this.#all.size
  }

  watch(door: NameDoor): void {
    this.#doors.push(door)
  }

  /** An image says this. @returns whether there is room to remember it */
  tell(claim: NameClaim): boolean {
    return this.#keep(claim) !== undefined
  }

  /** A door shows this. @param isProven as its verdict says. @returns whether there is room to remember it: else it must not be shown */
  show(claim: NameClaim, isProven: boolean): boolean {
    const kept = this.#keep(claim)
    if (kept === undefined) return isProven
    kept.shown = true
    if (isProven && kept.standing === 'said') this.#found(kept, 'proven')
    return true
  }

  /** An earlier process withheld this. */
  withheldBefore(claim: NameClaim): void {
    const kept = this.#keep(claim)
    if (kept !== undefined) kept.withheld = true
  }

  standing(claim: NameClaim): Standing {
    return this.#find(claim)?.standing ?? 'said'
  }

  /** Whether an image says otherwise, that is not known to be wrong. A claim that an earlier process withheld is contested until it is proven. */
  isContested(claim: NameClaim): boolean {
    if (this.#find(claim)?.withheld === true || namesOf(claim).some((each) => this.#crowded.has(each))) return true
    return this.#rivals(claim).some(({ standing }) => standing !== 'false')
  }

  /** Layers that are shown because they are believed, and of which this claim says something else. */
  believedRivals(claim: NameClaim): NameClaim[] {
    return this.#rivals(claim).flatMap((each) => (isBelieved(each) && !each.withheld ? [each.claim] : []))
  }

  /** Whether a layer is known to have no right to a DiffID, or lost it to a rival for now. */
  statusOf(layer: Claimant, diffId: Digest): 'false' | 'withheld' | undefined {
    const found = this.#byName.get(diffId)?.find(({ claim }) => isOf(claim, layer, diffId))
    if (found?.standing === 'false') return 'false'
    return found?.withheld ? 'withheld' : undefined
  }

  /** The claim of a layer that is shown under a DiffID, and not proven to have it. */
  believed(layer: Claimant, diffId: Digest): NameClaim | undefined {
    return this.#byName.get(diffId)?.find((each) => isBelieved(each) && isOf(each.claim, layer, diffId))?.claim
  }

  /** Takes the files of a layer that is shown away until it is proven. @returns whether that is news */
  withhold(claim: NameClaim): boolean {
    const kept = this.#find(claim)
    if (kept === undefined || !isBelieved(kept) || kept.withheld) return false
    kept.withheld = true
    for (const door of this.#doors) door.hide(kept.claim, 'withheld')
    return true
  }

  /** A whole blob was read. @returns the claims about it that were decided by that */
  judged(of: Claim, verdict: Verdict): NameClaim[] {
    const isAbout = ({ blob, together }: NameClaim) => blob === of.blob && together === (of.together === true)
    const decided: NameClaim[] = []
    for (const kept of (this.#byName.get(of.blob) ?? []).filter(({ claim }) => isAbout(claim))) {
      const { tree, diffId } = kept.claim
      const isTree = tree === of.tree
      // whatever a tree shows, the DiffID of the blob is known by now
      const standing = verdict.diffId !== diffId || (isTree && verdict.verdict === 'refuted') ? 'false' : 'proven'
      if (standing === 'proven' && !isTree) continue
      if (this.#found(kept, standing)) decided.push(kept.claim)
    }
    return decided
  }

  /** @returns whether that is news */
  #found(kept: Kept, standing: 'proven' | 'false'): boolean {
    if (kept.standing === standing) return false
    kept.standing = standing
    kept.withheld = false
    for (const door of this.#doors) {
      if (standing === 'proven') door.prove(kept.claim)
      else door.hide(kept.claim, 'false')
    }
    return true
  }

  #rivals(claim: NameClaim): Kept[] {
    const about = new Set([...(this.#byName.get(claim.diffId) ?? []), ...(this.#byName.get(claim.blob) ?? [])])
    return [...about].filter((each) => areRivals(each.claim, claim))
  }

  #find(claim: NameClaim): Kept | undefined {
    return this.#byName.get(claim.diffId)?.find((each) => isSame(each.claim, claim))
  }

  #keep(claim: NameClaim): Kept | undefined {
    const found = this.#find(claim)
    if (claim.tree !== undefined) this.#openedAs(claim, found)
    if (found !== undefined) {
      // it is the latest again, and its tree is known by now
      found.claim = { ...found.claim, tree: found.claim.tree ?? claim.tree }
      this.#all.delete(found)
      this.#all.add(found)
      return found
    }
    const crowded = namesOf(claim).filter((each) => (this.#byName.get(each)?.length ?? 0) >= RIVALS_MAX)
    for (const name of crowded) this.#crowd(name)
    if (crowded.length > 0 || (this.#all.size >= this.#max && !this.#dropOldest())) return undefined
    const kept: Kept = { claim, standing: 'said', shown: false, withheld: false }
    this.#all.add(kept)
    for (const name of namesOf(claim)) this.#byName.set(name, [...(this.#byName.get(name) ?? []), kept])
    return kept
  }

  #crowd(name: Digest): void {
    if (this.#crowded.size >= this.#max) this.#crowded.delete(this.#crowded.values().next().value as Digest) // it has some
    this.#crowded.add(name)
  }

  /** What was said before the tree was known is not said by anybody else. */
  #openedAs(opened: NameClaim, found: Kept | undefined): void {
    const unopened = { ...opened, tree: undefined }
    const isIt = ({ claim }: Kept) => claim.tree === undefined && isSame(claim, unopened)
    const before = this.#byName.get(opened.diffId)?.find(isIt)
    if (before !== undefined && before !== found) this.#drop(before)
  }

  /** Forgets the oldest that may be. @returns whether there was one */
  #dropOldest(): boolean {
    for (const kept of this.#all) {
      if (isBelieved(kept) || kept.withheld) continue
      this.#drop(kept)
      return true
    }
    return false
  }

  #drop(kept: Kept): void {
    this.#all.delete(kept)
    for (const name of namesOf(kept.claim)) {
      const others = (this.#byName.get(name) ?? []).filter((each) => each !== kept)
      if (others.length > 0) this.#byName.set(name, others)
      else this.#byName.delete(name)
    }
  }
}

function isBelieved({ shown, standing }: Kept): boolean {
  return shown && standing === 'said'
}
