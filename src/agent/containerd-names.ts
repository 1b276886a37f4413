// What the snapshotters ask of the guard that all doors share: whether a layer may bear its chain ID.

import { describe } from '../errors.ts'
import type { Units } from '../format/formats.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Claimant } from '../layer/claim.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import type { Layers } from '../layer/layers.ts'
import type { Quarantine } from '../proof/quarantine.ts'
import type { LayerNames } from '../snapshotter/names.ts'
import type { LazyLayer } from '../snapshotter/snapshot.ts'
import type { Guard } from '../stores/guard.ts'
import { diffIdOf, type TrustsDiffIds } from '../stores/identity.ts'
import { nameClaimOf, nameClaimsOf } from '../stores/name-claim.ts'
import { checkTogether } from '../stores/together.ts'
import { whyNotTogether } from '../stores/together-names.ts'

export interface ContainerdNamesParts {
  guard: Pick<Guard, 'meet' | 'shown' | 'whyNot' | 'whyHidden' | 'isBelieved' | 'hurry'>
  quarantine: Pick<Quarantine, 'of'>
  trustsDiffIds: TrustsDiffIds
  layers: Pick<Layers, 'plan' | 'prove'>
  log(message: string): void
}

export class ContainerdNames implements LayerNames {
  readonly #parts: ContainerdNamesParts
  /** Layers of an earlier life that were read whole since, and have other DiffIDs; as many as were shown then. */
  readonly #false = new Set<string>()

  constructor(parts: ContainerdNamesParts) {
    this.#parts = parts
  }

  async meet(image: ResolvedImage, trees: Parameters<LayerNames['meet']>[1]): Promise<void> {
    const { guard, trustsDiffIds } = this.#parts
    const plan = this.#plan(image)
    await guard.meet({
      image,
      said: nameClaimsOf(image, plan, []),
      claims: async () => nameClaimsOf(image, plan, await trees()),
      isBelieved: async () => (await trustsDiffIds(image)) === true,
    })
  }

  async take(
    image: ResolvedImage,
    place: number,
    layer: OpenLayer,
    open: (place: number) => Promise<LayerLease>,
  ): Promise<string | undefined> {
    const { guard, quarantine, trustsDiffIds, layers } = this.#parts
    const trusted = await trustsDiffIds(image)
    const claimAt = (at: number, { tree }: OpenLayer) => nameClaimOf(image, at, this.#plan(image), tree)
    const believed = (at: number, each: OpenLayer) => {
      return trusted === true ? (guard.whyNot(claimAt(at, each)) ?? true) : trusted
    }
    const { together } = layer
    if (together !== undefined) {
      const never = whyNotTogether(image, together)
      if (never !== undefined) return never
      try {
        await checkTogether(image, together, open, layers, { trusted: believed, all: trusted !== true })
      } catch (error) {
        return describe(error)
      }
    }
    const verdict = await layer.verdict()
    // from here on in one turn with what shows it
    const lie = quarantine.of(layer)
    if (lie !== undefined) return lie.why
    const diffId = image.config.diffIds[place] as LazyLayer['diffId'] // parseConfig: one a layer
    const name = diffIdOf({ verdict, together }, diffId, believed(place, layer))
    if ('why' in name) return name.why
    this.#shown(image, place, layer, verdict?.verdict === 'proven')
    return undefined
  }

  async restore(image: ResolvedImage, place: number, layer: OpenLayer): Promise<void> {
    const verdict = await layer.verdict()
    const diffId = image.config.diffIds[place] as LazyLayer['diffId'] // parseConfig: one a layer
    if (verdict !== undefined && verdict.diffId !== diffId) this.#false.add(keyOf(layer.descriptor.digest, diffId))
    else this.#shown(image, place, layer, verdict?.verdict === 'proven')
  }

  whyHidden(layer: LazyLayer): string | undefined {
    const { guard, quarantine } = this.#parts
    const { blob, diffId } = layer
    if (this.#false.has(keyOf(blob, diffId))) return 'its bytes are found not to have the DiffID that its image claims'
    return quarantine.of(claimantOf(layer))?.why ?? guard.whyHidden(claimantOf(layer), diffId)
  }

  isBelieved(layer: LazyLayer): boolean {
    return this.#parts.guard.isBelieved(claimantOf(layer), layer.diffId)
  }

  async prove(layer: LazyLayer): Promise<void> {
    await this.#parts.guard.hurry(claimantOf(layer), layer.diffId)
  }

  #shown(image: ResolvedImage, place: number, layer: OpenLayer, isProven: boolean): void {
    const claim = nameClaimOf(image, place, this.#plan(image), layer.tree)
    const descriptor = image.manifest.layers[place] as Descriptor // one of its own
    this.#parts.guard.shown({ image, descriptor, claim }, isProven)
  }

  #plan({ manifest }: ResolvedImage): Units {
    return this.#parts.layers.plan(manifest)
  }
}

function claimantOf({ blob, tree, together }: LazyLayer): Claimant {
  return { descriptor: { digest: blob }, tree, ...(together ? { together } : {}) }
}

function keyOf(blob: Digest, diffId: Digest): string {
  return `${blob} ${diffId}`
}
