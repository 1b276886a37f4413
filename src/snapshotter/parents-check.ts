// Before a container stands on layers: what each of them shows is compared with what every image that is there says of its chain. A layer
// that is only believed is given to no container while an image says otherwise, or when no image says the same any more.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Contents } from './content-store.ts'
import type { ImageWatch } from './image-watch.ts'
import type { LayerNames } from './names.ts'
import type { PresentImages, Saying } from './present-images.ts'
import type { Pulls } from './pulls.ts'
import type { Replacements } from './replacements.ts'
import { isOther } from './said-layers.ts'
import { type LazyLayer, namespaceOf, type Snapshot, TARGET } from './snapshot.ts'
import type { Snapshots } from './snapshots.ts'

export interface ParentsCheckParts {
  snapshots: Pick<Snapshots, 'get' | 'chain'>
  images: Pick<ImageWatch, 'caughtUp'>
  present: Pick<PresentImages, 'saying'>
  /** To see whether a manifest is there that no image has. */
  contents: Pick<Contents, 'labels'>
  pulls: Pick<Pulls, 'open'>
  replacements: Pick<Replacements, 'replace' | 'settled'>
  names: Pick<LayerNames, 'isBelieved' | 'prove'>
  log(message: string): void
}

/** What is said of a layer that is only believed. */
interface Doubt {
  layer: LazyLayer
  /** Undefined: no image is there that says the same. */
  otherwise: Saying | undefined
}

/** Proofs of a conflict are waited for as long as the guard waits for them (guard.ts); kubelet asks again. */
const DECIDED_MS = 10_000

export class ParentsCheck {
  readonly #parts: ParentsCheckParts

  constructor(parts: ParentsCheckParts) {
    this.#parts = parts
  }

  /**
   * A container is to stand on a snapshot.
   * @param namespace the container's
   * @throws Failure unavailable: a layer may be another image's
   */
  async check(namespace: string, parent: string): Promise<void> {
    const { snapshots, images, replacements, names } = this.#parts
    const chain = () => {
      const snapshot = snapshots.get(parent)
      return snapshot === undefined ? [] : snapshots.chain(snapshot) // whoever uses it is told
    }
    const isBelieved = ({ layer }: Snapshot) => layer !== undefined && names.isBelieved(layer)
    if (chain().some(isBelieved)) {
      await images.caughtUp(namespace)
      const before = await this.#doubts(namespace, chain().filter(isBelieved))
      if (before.length > 0) await this.#decide(namespace, before)
    }
    await replacements.settled(chain())
    const [left] = await this.#doubts(namespace, chain().filter(isBelieved))
    if (left === undefined) return
    const { layer, otherwise } = left
    throw Failure.unavailable(
      `layer ${layer.blob} of ${layer.reference} is not given to containers before it is proven`,
      {
        why:
          otherwise === undefined
            ? 'no image is there any more that says what it is'
            : `image ${otherwise.name} says otherwise of its chain`,
        fix: `Have it proven: lazylayer pull --prove ${layer.reference}`,
      },
    )
  }

  async #doubts(namespace: string, chain: readonly Snapshot[]): Promise<Doubt[]> {
    const doubts: Doubt[] = []
    for (const { layer, labels, key } of chain) {
      if (layer === undefined) continue
      const all = this.#parts.present.saying(namespace, labels[TARGET] ?? '')
      const otherwise = all.find(({ said }) => isOther(layer, said))
      if (otherwise !== undefined) doubts.push({ layer, otherwise })
      else if (all.length === 0 && !(await this.#isThere(namespaceOf(key), layer.manifest)))
        doubts.push({ layer, otherwise: undefined })
    }
    return doubts
  }

  /** BuildKit names no images, and keeps the manifests of those that it builds on. */
  async #isThere(namespace: string, manifest: Digest): Promise<boolean> {
    return (await this.#parts.contents.labels(namespace, manifest)) !== undefined
  }

  /** Has both sides proven, and whoever is true take the other's place, as far as that is done soon. */
  async #decide(namespace: string, doubts: readonly Doubt[]): Promise<void> {
    const others = new Map(doubts.flatMap(({ otherwise }) => (otherwise ? [[otherwise.image, otherwise]] : [])))
    const proving = doubts.map(({ layer }) => this.#parts.names.prove(layer)) // never reject
    const meeting = [...others.values()].map((each) => this.#meet(namespace, each))
    const over = new AbortController()
    const late = sleep(DECIDED_MS, undefined, { signal: over.signal, ref: false }).catch(() => {}) // it was decided first
    await Promise.race([Promise.all([...proving, ...meeting]), late])
    over.abort()
  }

  /** Never rejects. */
  async #meet(namespace: string, { image, name }: Saying): Promise<void> {
    const { pulls, replacements, log } = this.#parts
    try {
      await replacements.replace(namespace, await pulls.open(namespace, image.digest, name), image.chain)
    } catch (error) {
      log(`image ${name}: ${describe(error)}`)
    }
  }
}
