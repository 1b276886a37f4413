// What engines call an image: the digest of its config, unless they know one of its layers by an index. Up to containers/image 5.39
// (Podman 5, CRI-O 1.37) the ID is then a digest over those indexes and their places alone, whatever the config and the other layers
// are (docs/upstream-image-ids.md). Of two images with one ID the second has its config replace the first one's, or is not pulled at
// all. So the indexes of an image name its layers only while no other image would get its ID by them. This keeps images apart that the
// agent is shown as the engine is; a registry can show it something else.
import { engineIndex } from '../format/engine-index.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import { referenceText } from '../image/reference.ts'
import type { ResolvedImage } from '../mount/image.ts'
import type { Identity } from './chain.ts'
import type { Link } from './image-chain.ts'

type Named = Pick<ResolvedImage, 'reference' | 'manifest'>

/** What engines know an image's layers by, the lowest first: an index; undefined: a DiffID. */
export type KnownBy = readonly (Digest | undefined)[]

export interface Prediction {
  /** Each that is possible. */
  known: readonly KnownBy[]
  /** Indexes that engines may know a layer by, or may not, beside those in which the possibilities differ. */
  unsure: ReadonlySet<Digest>
}

/** Who pulls that many images chooses their indexes; from here on they are told apart by DiffIDs alone. */
const IDS_MAX = 20_000
/** Of the blobs that engines pulled the latest are remembered: some thousand images. */
const LEFT_MAX = 100_000
/** Layers of one image that engines may know by their indexes, or may not: each doubles what is possible. */
const UNSURE_MAX = 4

export class ImageIds {
  /** Reference and config of the image that has an ID, by that. */
  readonly #bearers = new Map<Digest, { reference: string; config: Digest }>()
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

  /** What engines will know the layers of an image by. @param listed all layers that are, those of the image included */
  predict({ manifest }: Pick<Named, 'manifest'>, listed: Iterable<Link>): Prediction {
    const [indexes, blobs] = [new Set<Digest>(), new Set<Digest>()]
    for (const { identity, descriptor } of listed) {
      if (identity.by === 'diffid') blobs.add(descriptor.digest)
      else if (!this.isAmbiguous(identity.digest)) indexes.add(identity.digest)
    }
    const unsure = new Set<Digest>()
    let doubled = 0
    const possible = manifest.layers.map((descriptor): KnownBy => {
      const index = engineIndex(manifest, descriptor)
      // what they find by its blob they do not look for by its index
      if (index === undefined || !indexes.has(index) || blobs.has(descriptor.digest)) return [undefined]
      if (!this.#left.has(descriptor.digest)) return [index]
      if (++doubled <= UNSURE_MAX) return [index, undefined]
      unsure.add(index)
      return [index]
    })
    return { known: combined(possible), unsure }
  }

  /** Gives an image the IDs that engines may give it. @returns why one would be another's: a clause; undefined: it has them */
  claim({ reference, manifest }: Named, known: readonly KnownBy[]): string | undefined {
    const config = manifest.config.digest
    const ids = known.flatMap((by) => (by.every((index) => index === undefined) ? [] : idOf(by)))
    for (const id of ids) {
      const bearer = this.#bearers.get(id)
      if (bearer === undefined && this.#bearers.size >= IDS_MAX) {
        return `${IDS_MAX} IDs of images are kept apart already, until the agent is restarted`
      }
      if (bearer !== undefined && bearer.config !== config) {
        return `engines before Podman 6 would give it the ID of ${bearer.reference}`
      }
    }
    for (const id of ids) this.#bearers.set(id, { reference: referenceText(reference), config })
    return undefined
  }

  /** An image that was listed in an earlier life. @param identities of those of its layers that were; engines may have found others, too */
  recall(image: Named, identities: readonly Identity['by'][]): void {
    const { manifest } = image
    let doubled = 0
    const possible = manifest.layers.map((descriptor, i): KnownBy => {
      const index = engineIndex(manifest, descriptor)
      if (index === undefined || identities[i] === 'diffid') return [undefined]
      if (identities[i] === 'index') return [index]
      return ++doubled <= UNSURE_MAX ? [index, undefined] : [undefined]
    })
    const known = combined(possible)
    if (this.claim(image, known) !== undefined) this.blur(known.flat())
    this.leave(manifest.layers.slice(identities.length).map(({ digest }) => digest))
  }

  /** From here on these indexes name no layer. */
  blur(indexes: Iterable<Digest | undefined>): void {
    for (const index of indexes) if (index !== undefined) this.#ambiguous.add(index)
  }
}

/** Every combination of what is possible for each layer. */
function combined(possible: readonly KnownBy[]): KnownBy[] {
  let all: KnownBy[] = [[]]
  for (const layer of possible) all = all.flatMap((below) => layer.map((each) => [...below, each]))
  return all
}

function idOf(by: KnownBy): Digest {
  return digestOf(new TextEncoder().encode(by.map((index) => index ?? '').join(' ')))
}
