// Watches over layers that bear a DiffID because their image is believed. Each is to be proven as soon as the link is idle. With
// `serve --diffid guarded` images are also kept apart until then: who comes with something else under one DiffID, or one blob, is not given
// the other's files. Both are read whole at once; who is not proven when the engine cannot be kept waiting any longer is shown to nobody
// until it is. What is proven is never taken away.
import { describe } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Claimant } from '../layer/claim.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { ContestedName } from '../store/contested.ts'
import type { Believed, BelievedProofs } from './believed-proofs.ts'
import { isSame, type NameClaim } from './name-claim.ts'
import type { NameClaims, NameDoor } from './name-claims.ts'
import { type Patience, patiently } from './patience.ts'

export interface GuardParts {
  /** Whether images that are believed are kept apart. */
  keepsApart: boolean
  claims: NameClaims
  proofs: Pick<BelievedProofs, 'now' | 'later' | 'of'>
  /** Keeps what lost, for the next process. */
  contested: { keep(name: ContestedName): Promise<void>; forget(name: ContestedName): Promise<void> }
  /** Grows with every byte and request: a proof that stands still is not waited for. */
  progress(): number
  log(message: string): void
}

/** What an image says of its layers. Nothing is asked where images are not kept apart. */
export interface Told {
  image: ResolvedImage
  /** Of each layer, the lowest first, when none is open. */
  said: readonly NameClaim[]
  /** The same, of those that could be opened with their trees. Asked for at once. */
  claims(): Promise<readonly NameClaim[]>
  /** Whether the image is believed: then its lazy layers are shown without a proof. */
  isBelieved(): Promise<boolean>
}

export interface Met {
  /** Whether some of the image's own layers were contested: what they may bear is to be found out anew. */
  isNews: boolean
  /** Those of them that were not proven in time; doors are told when they are. */
  left: readonly NameClaim[]
}

/** Shorter than an engine waits for whoever asks the guard (patience.ts), so that a loser is hidden before the engine looks. */
const MEETING: Patience = { stallMs: 1_500, totalMs: 8_000 }
/**
 * Of the layers that are read whole while an engine waits, those of the image that comes, and as much of those that were there: 8 s at
 * 250 Mbit/s. Each side has its own, so that nobody's many keep another's few from being proven. What is more is proven later.
 */
const SIDE_MAX_BYTES = 128 << 20

const FALSE = 'its bytes are found not to have the DiffID that its image claims for them'
const CONTESTED =
  'another image says otherwise of its DiffID or its blob, and it is not proven yet (lazylayer pull --prove has it proven)'
const CROWDED = 'so many layers are only believed that no more can be kept apart'

export class Guard {
  readonly #parts: GuardParts
  readonly #claims: NameClaims
  /** What is kept for the next process; by its key. */
  readonly #kept = new Set<string>()

  /** @param before what lost in an earlier life, and was not proven since */
  constructor(parts: GuardParts, before: readonly ContestedName[]) {
    const { claims, log } = parts
    this.#parts = parts
    this.#claims = claims
    for (const each of before) {
      claims.withheldBefore({ index: undefined, ...each })
      this.#kept.add(keyOf(each))
    }
    claims.watch({
      hide: (claim, why) => {
        log(`layer ${claim.blob} is not shown as ${claim.diffId} any more: ${why === 'false' ? FALSE : CONTESTED}`)
        if (why === 'false') void this.#forget(claim) // never rejects
      },
      prove: (claim) => void this.#forget(claim), // never rejects
    })
  }

  /** Has a door told of names that are lost and found. */
  watch(door: NameDoor): void {
    this.#claims.watch(door)
  }

  /** Why a layer that is only believed must not be shown under its DiffID; undefined: it may be. To be asked in the turn that shows it. */
  whyNot(claim: NameClaim): string | undefined {
    if (this.#claims.standing(claim) === 'false') return FALSE
    if (this.#parts.keepsApart && this.#claims.isContested(claim)) return CONTESTED
    return this.#claims.tell(claim) ? undefined : CROWDED
  }

  /** Why a layer has no files under a DiffID any more; undefined: it has. */
  whyHidden(layer: Claimant, diffId: Digest): string | undefined {
    const status = this.#claims.statusOf(layer, diffId)
    if (status === undefined) return undefined
    return status === 'false' ? FALSE : CONTESTED
  }

  /** Whether a layer is shown under a DiffID because it is believed, and images are kept apart. */
  isBelieved(layer: Claimant, diffId: Digest): boolean {
    return this.#parts.keepsApart && this.#claims.believed(layer, diffId) !== undefined
  }

  /** Has a layer that is only believed be read whole at once; resolves when it is, or an engine cannot wait any longer. Never rejects. */
  async hurry(layer: Claimant, diffId: Digest): Promise<void> {
    const claim = this.#claims.believed(layer, diffId)
    if (claim === undefined) return
    await patiently(Promise.all(this.#readAtOnce([claim])), this.#parts.progress, MEETING).catch(() => {}) // it is only believed still
  }

  /** A door shows a layer under its DiffID. What is only believed is proven later. */
  shown(believed: Believed, isProven: boolean): void {
    const { claim } = believed
    this.#claims.show(claim, isProven)
    if (isProven) return
    this.#parts.proofs.later(believed)
    // somebody who said otherwise may have come since it was asked for, while that was being kept on disk
    if (this.#parts.keepsApart && this.#claims.isContested(claim)) void this.withhold(claim) // never rejects
  }

  /** Hides a layer that is shown until it is proven; resolves when the next process will, too. Never rejects. */
  async withhold(claim: NameClaim): Promise<void> {
    if (!this.#claims.withhold(claim)) return
    const { contested, log } = this.#parts
    const failed = (error: unknown) => log(`layer ${claim.blob} will be shown again by a restart: ${describe(error)}`)
    for (const name of contestedName(claim)) {
      this.#kept.add(keyOf(name))
      await contested.keep(name).catch(failed)
    }
  }

  /** It is decided whether a layer may bear its DiffID. Never rejects. */
  async #forget(claim: NameClaim): Promise<void> {
    const { contested, log } = this.#parts
    const failed = (error: unknown) => log(`layer ${claim.blob} will be hidden again by a restart: ${describe(error)}`)
    for (const name of contestedName(claim))
      if (this.#kept.delete(keyOf(name))) await contested.forget(name).catch(failed)
  }

  /**
   * An image comes. Where it says otherwise of a layer than another image, those of the two that are only believed are read whole; who is
   * not proven in time is hidden. That begins before the image's layers are open, which may take longer than an engine waits.
   * @throws what `told` does
   */
  async meet(told: Told): Promise<Met> {
    const { proofs, progress, keepsApart } = this.#parts
    if (!keepsApart) return { isNews: false, left: [] }
    const opened = told.claims()
    for (const claim of told.said) this.#claims.tell(claim)
    const contested = told.said.map((each) => this.#claims.isContested(each))
    const rivals = this.#believedRivals(told.said)
    const reading = this.#readAtOnce(rivals)
    if (rivals.length > 0) await this.#withholdUnless(opened, rivals)
    const claims = await opened
    for (const claim of claims) this.#claims.tell(claim)
    const own = await this.#toRead(told, claims, contested)
    const more = this.#believedRivals(claims).filter((each) => !rivals.some((known) => isSame(known, each)))
    reading.push(...this.#readAtOnce(more), ...withinBytes(own).map((each) => proofs.now(each)))
    if (reading.length > 0) await patiently(Promise.all(reading), progress, MEETING).catch(() => {}) // who is not proven by now loses
    await this.#withholdUndecided([...rivals, ...more, ...claims])
    const left = own.filter(({ claim }) => this.#isUndecided(claim))
    for (const each of left) proofs.later(each)
    return { isNews: own.length > 0, left: left.map(({ claim }) => claim) }
  }

  /** Hides them if the image that they differ from is not open when its engine looks. */
  async #withholdUnless(opened: Promise<unknown>, rivals: readonly NameClaim[]): Promise<void> {
    const isOpen = opened.then(
      () => true,
      () => true, // whoever opens it is told
    )
    const isInTime = await patiently(isOpen, this.#parts.progress, MEETING).catch(() => false)
    if (!isInTime) await this.#withholdUndecided(rivals)
  }

  #believedRivals(claims: readonly NameClaim[]): NameClaim[] {
    return [...new Set(claims.flatMap((each) => this.#claims.believedRivals(each)))]
  }

  #readAtOnce(rivals: readonly NameClaim[]): Promise<boolean>[] {
    const { proofs } = this.#parts
    return withinBytes(rivals.flatMap((each) => proofs.of(each) ?? [])).map((each) => proofs.now(each)) // never reject
  }

  async #withholdUndecided(claims: readonly NameClaim[]): Promise<void> {
    await Promise.all(claims.filter((each) => this.#isUndecided(each)).map((each) => this.withhold(each)))
  }

  /** Those of an image's layers that must be proven before they bear their DiffIDs. @param before whether they were contested when it came */
  async #toRead({ image, isBelieved }: Told, claims: readonly NameClaim[], before: boolean[]): Promise<Believed[]> {
    const contested = claims.flatMap((claim, i): Believed[] => {
      const descriptor = image.manifest.layers[i] as Descriptor // a claim a layer
      // what has no index is read by the engine itself
      if (claim.index === undefined || this.#claims.standing(claim) !== 'said') return []
      return before[i] || this.#claims.isContested(claim) ? [{ image, descriptor, claim }] : []
    })
    return contested.length > 0 && (await isBelieved()) ? contested : []
  }

  /** Whether a layer must be proven first. */
  #isUndecided(claim: NameClaim): boolean {
    return this.#claims.standing(claim) === 'said' && this.#claims.isContested(claim)
  }
}

function keyOf({ diffId, blob, tree, together }: ContestedName): string {
  return `${diffId} ${blob} ${tree} ${together}`
}

/** As it is kept; a layer that is shown has a tree. */
function contestedName({ diffId, blob, index, tree, together }: NameClaim): ContestedName[] {
  if (tree === undefined) return []
  return [{ diffId, blob, tree, together, ...(index === undefined ? {} : { index }) }]
}

/** Those that are read at once, the smallest first. */
function withinBytes(layers: readonly Believed[]): Believed[] {
  const chosen: Believed[] = []
  let left = SIDE_MAX_BYTES
  for (const each of [...layers].sort((a, b) => a.descriptor.size - b.descriptor.size)) {
    left -= each.descriptor.size
    if (left < 0) break
    chosen.push(each)
  }
  return chosen
}
