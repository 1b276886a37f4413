// The images that containerd has, and what each says of the layers that it is made of, by their chains. Pure state; image-watch.ts keeps it.
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { SaidLayer } from './said-layers.ts'

export interface PresentImage {
  /** Of its manifest. */
  readonly digest: Digest
  /** Chain IDs of its layers, the base first. */
  readonly chain: readonly string[]
  /** Of each of them. */
  readonly said: readonly SaidLayer[]
}

/** What an image says of one chain. */
export interface Saying {
  readonly image: PresentImage
  /** One of those that it has: that by which it was pulled, where there is one. */
  readonly name: string
  readonly said: SaidLayer | undefined
}

/** Of all namespaces; each has a name or three an image. */
const NAMES_MAX = 100_000

export class PresentImages {
  /** By namespace, then by name; undefined: it is no image that could be served. */
  readonly #byName = new Map<string, Map<string, PresentImage | undefined>>()
  /** By namespace and chain ID: the images that have it, and their names. */
  readonly #byChain = new Map<string, Map<Digest, { image: PresentImage; names: Set<string> }>>()
  #names = 0

  /** An image has this name now. @throws Failure limit */
  put(namespace: string, name: string, image: PresentImage | undefined): void {
    this.drop(namespace, name)
    if (this.#names >= NAMES_MAX) throw Failure.limit(`containerd has over ${NAMES_MAX} images`)
    const names = this.#byName.get(namespace) ?? new Map()
    this.#byName.set(namespace, names.set(name, image))
    this.#names++
    for (const target of new Set(image?.chain)) {
      const key = keyOf(namespace, target)
      if (image === undefined) continue
      const all = this.#byChain.get(key) ?? new Map()
      const known = all.get(image.digest) ?? { image, names: new Set() }
      known.names.add(name)
      this.#byChain.set(key, all.set(image.digest, known))
    }
  }

  drop(namespace: string, name: string): void {
    const names = this.#byName.get(namespace)
    const image = names?.get(name)
    if (names?.delete(name)) this.#names--
    if (names?.size === 0) this.#byName.delete(namespace)
    for (const target of new Set(image?.chain)) {
      const all = this.#byChain.get(keyOf(namespace, target))
      const known = image && all?.get(image.digest)
      known?.names.delete(name)
      if (known?.names.size === 0) all?.delete(known.image.digest)
      if (all?.size === 0) this.#byChain.delete(keyOf(namespace, target))
    }
  }

  namesIn(namespace: string): string[] {
    return [...(this.#byName.get(namespace)?.keys() ?? [])]
  }

  /** What images of a namespace say of a chain, each once. */
  saying(namespace: string, target: string): Saying[] {
    const all = [...(this.#byChain.get(keyOf(namespace, target))?.values() ?? [])]
    return all.map(({ image, names }) => {
      const [first = ''] = names
      const name = [...names].find((each) => each.includes('/')) ?? first // CRI has the config's digest for a name, too
      return { image, name, said: image.said[image.chain.indexOf(target)] }
    })
  }
}

function keyOf(namespace: string, target: string): string {
  return `${namespace} ${target}` // a namespace has no space
}
