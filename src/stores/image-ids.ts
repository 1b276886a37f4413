// What engines call an image: the digest of its config, unless they know one of its layers by an index. Up to containers/image 5.39
// (Podman 5, CRI-O 1.37) the ID is then a digest over those indexes and their places alone, whatever the config and the other layers
// are (docs/upstream-image-ids.md). Of two images with one ID the second has its config replace the first one's, or is not pulled at
// all. So the indexes of an image name its layers only while no other image would get its ID by them. This keeps images apart that the
// agent is shown as the engine is; a registry can show it something else.
import { engineIndex } from '../format/engine-index.ts'
import type { Digest } from '../image/digest.ts'
import { referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { Identity } from './chain.ts'
import type { Link } from './image-chain.ts'

type Named = Pick<ResolvedImage, 'reference' | 'manifest'>

/** What engines may know each layer of an image by, the lowest first: an index; undefined: a DiffID. */
export type KnownBy = readonly (readonly (Digest | undefined)[])[]

interface Bearer {
  reference: string
  config: Digest
  /** It has each ID that this makes. */
  known: KnownBy
}

/** Layers that may be known by an index, of all images. Who pulls that many chooses their indexes; from here on DiffIDs alone tell images apart. */
const PLACES_MAX = 100_000
/** Of the blobs that engines pulled the latest are remembered: some thousand images. */
const LEFT_MAX = 100_000

export class ImageIds {
  /** By how many layers they have, the place of one, and an index that it may be known by. */
  readonly #bearers = new Map<string, Bearer[]>()
  #places = 0
  /** At most as many as layers were ever listed. */
  readonly #ambiguous = new Set<Digest>()
  readonly #left = new Set<Digest>()
  readonly #byIndex: boolean

  /** @param byIndex whether indexes name layers at all */
  constructor(byIndex: boolean) {
    this.#byIndex = byIndex
  }

  /** Whether images that an index is part of cannot be told apart by it; then it names no layer any more. */
  isAmbiguous(index: Digest): boolean {
    return !this.#byIndex || this.#ambiguous.has(index)
  }

  /** Engines pull these blobs themselves, and may know them by their DiffIDs from then on. */
  leave(blobs: Iterable<Digest>): void {
    for (const blob of blobs) {
      this.#left.delete(blob)
      this.#left.add(blob)
      if (this.#left.size > LEFT_MAX) this.#left.delete(this.#left.values().next().value as Digest) // it has some
    }
  }

  /** What engines may know the layers of an image by. @param listed all layers that are, those of the image included */
  predict({ manifest }: Pick<Named, 'manifest'>, listed: Iterable<Link>): KnownBy {
    const [indexes, blobs] = [new Set<Digest>(), new Set<Digest>()]
    for (const { identity, descriptor } of listed) {
      if (identity.by === 'diffid') blobs.add(descriptor.digest)
      else if (!this.isAmbiguous(identity.digest)) indexes.add(identity.digest)
    }
    return manifest.layers.map((descriptor) => {
      const index = engineIndex(manifest, descriptor)
      // what they find by its blob they do not look for by its index
      if (index === undefined || !indexes.has(index) || blobs.has(descriptor.digest)) return [undefined]
      return this.#left.has(descriptor.digest) ? [index, undefined] : [index]
    })
  }

  /**
   * Gives an image the IDs that engines may give it.
   * @returns whether they are new to it; or why one would be another's: a clause
   */
  claim({ reference, manifest }: Named, known: KnownBy): boolean | string {
    const config = manifest.config.digest
    const places = placesOf(known)
    for (const place of places) {
      for (const other of this.#bearers.get(place) ?? []) {
        if (other.config !== config && mayMeet(other.known, known)) {
          return `engines before Podman 6 would give it the ID of ${other.reference}`
        }
      }
    }
    if (places.length === 0 || this.#bearers.get(places[0] as string)?.some((each) => isSame(each, config, known))) {
      return false
    }
    if (this.#places + places.length > PLACES_MAX) {
      return `${PLACES_MAX} layers are kept apart already, until the agent is restarted`
    }
    this.#places += places.length
    const bearer = { reference: referenceText(reference), config, known }
    for (const place of places) {
      const bearers = this.#bearers.get(place)
      if (bearers === undefined) this.#bearers.set(place, [bearer])
      else bearers.push(bearer)
    }
    return true
  }

  /** Takes a claim back that no engine acted on. */
  release({ manifest }: Pick<Named, 'manifest'>, known: KnownBy): void {
    const places = placesOf(known)
    for (const place of places) {
      const others = this.#bearers.get(place)?.filter((each) => !isSame(each, manifest.config.digest, known)) ?? []
      if (others.length > 0) this.#bearers.set(place, others)
      else this.#bearers.delete(place)
    }
    this.#places -= places.length
  }

  /** An image that was listed in an earlier life. @param identities of those of its layers that were; engines may have found others, too */
  recall(image: Named, identities: readonly Identity['by'][]): void {
    const { manifest } = image
    const known = manifest.layers.map((descriptor, i) => {
      const index = engineIndex(manifest, descriptor)
      if (index === undefined || identities[i] === 'diffid') return [undefined]
      return identities[i] === 'index' ? [index] : [index, undefined]
    })
    if (typeof this.claim(image, known) === 'string') this.blur(known.flat())
    this.leave(manifest.layers.slice(identities.length).map(({ digest }) => digest))
  }

  /** From here on these indexes name no layer. */
  blur(indexes: Iterable<Digest | undefined>): void {
    for (const index of indexes) if (index !== undefined) this.#ambiguous.add(index)
  }
}

function placesOf(known: KnownBy): string[] {
  return known.flatMap((each, i) =>
    each.flatMap((index) => (index === undefined ? [] : `${known.length} ${i} ${index}`)),
  )
}

/** Whether engines may know each layer of two images by the same. The uppermost differ first. */
function mayMeet(one: KnownBy, other: KnownBy): boolean {
  for (let i = one.length - 1; i >= 0; i--) if (!one[i]?.some((by) => other[i]?.includes(by))) return false
  return true
}

function isSame(bearer: Bearer, config: Digest, known: KnownBy): boolean {
  return bearer.config === config && JSON.stringify(bearer.known) === JSON.stringify(known)
}
