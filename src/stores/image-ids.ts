// What engines call an image: the digest of its config, unless they know one of its layers by an index. Up to containers/image 5.39
// (Podman 5, CRI-O 1.37) the ID is then a digest over those indexes and their places alone, whatever the config and the other layers
// are (docs/upstream-image-ids.md). Of two images with one ID the second has its config replace the first one's, or is not pulled at
// all. So the indexes of an image name its layers only while no other image would get its ID by them.
import { type Digest, digestOf } from '../image/digest.ts'
import type { LayerOpener } from '../mount/image.ts'
import { type Chain, indexOf, type Link } from './image-chain.ts'

/** An image that has an ID. */
export interface Bearer {
  /** For messages. */
  reference: string
  /** Digest of its config, which tells all of its layers, too. */
  config: Digest
}

/** What engines know an image's layers by, the lowest first: an index; undefined: a DiffID. */
export type KnownBy = readonly (Digest | undefined)[]

/** Everything that engines find layers by: digests of indexes, and of the blobs of those that bear their DiffIDs. */
export interface Names {
  indexes: ReadonlySet<Digest>
  blobs: ReadonlySet<Digest>
}

/** What engines will know the layers of an image by when its chain is listed, also those that they pull. They prefer DiffIDs. */
export function knownBy(
  { image, links }: Pick<Chain, 'image' | 'links'>,
  { indexes, blobs }: Names,
  layers: Pick<LayerOpener, 'format'>,
): KnownBy {
  return image.manifest.layers.map((descriptor, i) => {
    const { identity } = links[i] ?? {}
    if (identity?.by === 'diffid' || blobs.has(descriptor.digest)) return undefined
    const index = identity?.digest ?? indexOf(descriptor, layers)
    return index !== undefined && (identity !== undefined || indexes.has(index)) ? index : undefined
  })
}

/** Who pulls that many images chooses their indexes; from here on they are told apart by DiffIDs alone. */
const IDS_MAX = 20_000

export class ImageIds {
  readonly #bearers = new Map<Digest, Bearer>()
  readonly #ambiguous = new Set<Digest>()

  /** Whether images that an index is part of cannot be told apart by it; then it names no layer any more. */
  isAmbiguous(index: Digest): boolean {
    return this.#ambiguous.has(index)
  }

  /** Gives an image the ID that engines will give it. @returns why it would be another's: a clause; undefined: it has it */
  claim(image: Bearer, by: KnownBy): string | undefined {
    if (by.every((index) => index === undefined)) return undefined
    const id = digestOf(new TextEncoder().encode(by.map((index) => index ?? '').join(' ')))
    const bearer = this.#bearers.get(id)
    if (bearer?.config === image.config) return undefined
    if (bearer !== undefined) return `${bearer.reference} has layers with the same indexes, and another configuration`
    if (this.#bearers.size >= IDS_MAX) return `${IDS_MAX} images are told apart already`
    this.#bearers.set(id, image)
    return undefined
  }

  /** Of all layers that are listed. */
  namesOf(links: Iterable<Pick<Link, 'identity' | 'descriptor'>>): Names {
    const [indexes, blobs] = [new Set<Digest>(), new Set<Digest>()]
    for (const { identity, descriptor } of links) {
      if (identity.by === 'diffid') blobs.add(descriptor.digest)
      else if (!this.#ambiguous.has(identity.digest)) indexes.add(identity.digest)
    }
    return { indexes, blobs }
  }

  /** From here on these indexes name no layer. */
  blur(by: KnownBy): void {
    for (const index of by) if (index !== undefined) this.#ambiguous.add(index)
  }
}
