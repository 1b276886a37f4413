// What containerd has under a chain is its image's claim, and containerd never asks again. When another image comes that means something else
// by the chain, and the layer that is shown for it has no right to it, then the other's layer is shown in its place: under the same name, on
// the same parents, for every container from then on.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe } from '../errors.ts'
import { mapLimited } from '../limit.ts'
import type { LayerNames } from './names.ts'
import type { PulledImage } from './pulled-image.ts'
import { isOther, type SaidLayer } from './said-layers.ts'
import type { ShownTrees } from './shown-trees.ts'
import { isSameLayer, type LazyLayer, namespaceOf, type Snapshot } from './snapshot.ts'
import type { Snapshots } from './snapshots.ts'

export interface ReplacementsParts {
  snapshots: Snapshots
  trees: Pick<ShownTrees, 'hold' | 'letGo'>
  names: Pick<LayerNames, 'whyHidden'>
  log(message: string): void
}

/** As long as the guard has images be read whole. */
const DECIDED_MS = 10_000
/** Each holds an image's layers open. What is not replaced stays hidden. */
const RUNNING_MAX = 64

export class Replacements {
  readonly #parts: ReplacementsParts
  /** By namespace, image, and how many of its chains. */
  readonly #running = new Map<string, Promise<void>>()

  constructor(parts: ReplacementsParts) {
    this.#parts = parts
  }

  /** Namespaces that have a lazy layer. */
  namespaces(): Set<string> {
    const lazy = [...this.#parts.snapshots.all()].filter(({ layer }) => layer !== undefined)
    return new Set(lazy.map(({ key }) => namespaceOf(key)))
  }

  /** Whether an image means something else by one of these chains than the layer that is shown for it. */
  differs(namespace: string, chain: readonly string[], said: readonly SaidLayer[]): boolean {
    return chain.some((target, place) => this.#shownFor(namespace, target).some((each) => isOther(each, said[place])))
  }

  /** Has layers of an image take the place of those that lost these chains. Waits until it is known which did; never rejects. */
  async replace(namespace: string, pulled: PulledImage, chain: readonly string[]): Promise<void> {
    const { digest } = pulled.image
    const key = `${namespace} ${digest} ${chain.length}`
    const known = this.#running.get(key)
    if (known !== undefined) return await known
    if (this.#running.size >= RUNNING_MAX) {
      this.#parts.log(`${digest} takes nobody's place: too many others are about to`)
      return
    }
    const running = mapLimited([...chain.entries()], 1, ([place, target]) =>
      this.#replaceAt(namespace, pulled, place, target),
    )
      .catch((error) => this.#parts.log(`${digest} takes nobody's place: ${describe(error)}`))
      .then(() => void this.#running.delete(key))
    this.#running.set(key, running)
    await running
  }

  /** Where a layer was taken away that is about to be replaced, waits for that as long as proofs may take. */
  async settled(chain: readonly Snapshot[]): Promise<void> {
    const { names } = this.#parts
    const isHidden = chain.some(({ layer }) => layer !== undefined && names.whyHidden(layer) !== undefined)
    if (!isHidden || this.#running.size === 0) return
    await Promise.race([Promise.all(this.#running.values()), sleep(DECIDED_MS, undefined, { ref: false })])
  }

  async #replaceAt(namespace: string, pulled: PulledImage, place: number, target: string): Promise<void> {
    const { snapshots, trees, names, log } = this.#parts
    await pulled.use(place, async ({ layer, lease }) => {
      for (const { key, layer: before } of snapshots.madeFor(target)) {
        if (namespaceOf(key) !== namespace || before === undefined || isSameLayer(before, layer)) continue
        if (names.whyHidden(before) === undefined) continue
        await trees.hold(lease, pulled.image)
        const what = `layer ${layer.blob} of ${layer.reference}`
        try {
          await snapshots.reshow(key, before, layer)
        } catch (error) {
          trees.letGo(layer.tree)
          log(`${what} is not shown in the place of ${before.blob}: ${describe(error)}`)
          continue
        }
        trees.letGo(before.tree)
        log(`${what} is shown in the place of ${before.blob} of ${before.reference}`)
      }
    })
  }

  #shownFor(namespace: string, target: string): LazyLayer[] {
    const made = this.#parts.snapshots.madeFor(target).filter(({ key }) => namespaceOf(key) === namespace)
    return made.flatMap(({ layer }) => layer ?? [])
  }
}
