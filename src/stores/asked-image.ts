// The image behind a reference that engines ask for: as kept on disk, or as the registry has it now; and its layers, opened all at once
// when the first of them is wanted. Failures do not stick, but they answer for as long as one pull lasts.
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Reference } from '../image/reference.ts'
import { type Images, type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import type { EagerLayer, OpenLayer } from '../layer/layer.ts'
import type { Dialect } from './identity.ts'

/** What was asked less long ago is not asked again: a pull looks its layers up one after the other, and each would wait. */
export const ASK_AGAIN_MS = 3_000

/** Is told of each layer that is being opened. */
export type Opening = (image: ResolvedImage, descriptor: Descriptor, layer: Promise<OpenLayer | EagerLayer>) => void

/** What of Images finds an image. */
export type Resolver = Pick<Images, 'kept' | 'resolve'>

interface Attempt {
  listing: Promise<Listing | undefined>
  /** When the registry had answered, or failed; undefined while it has not, and for what disk says, which is never the last word. */
  endedAt: number | undefined
}

export class AskedImage {
  readonly #reference: Reference
  readonly #images: Resolver
  readonly #layers: LayerOpener
  readonly #opening: Opening
  #attempt: Attempt | undefined

  constructor(reference: Reference, images: Resolver, layers: LayerOpener, opening: Opening) {
    this.#reference = reference
    this.#images = images
    this.#layers = layers
    this.#opening = opening
  }

  /**
   * The image that has a layer of this digest, or, where neither disk nor registry knows one, the image that the reference names.
   * @throws Failure as Images.resolve
   */
  async listing(digest: Digest): Promise<Listing | undefined> {
    const recent = performance.now() - ASK_AGAIN_MS
    this.#attempt ??= this.#ask(this.#images.kept(this.#reference), false)
    for (let attempt = this.#attempt; ; attempt = this.#attempt) {
      const [listing, error] = await attempt.listing.then(
        (found) => [found, undefined] as const,
        (error: unknown) => [undefined, error] as const,
      )
      if (listing?.find(digest) !== undefined) return listing
      if (attempt.endedAt !== undefined && attempt.endedAt > recent) {
        if (error !== undefined) throw error
        return listing
      }
      // whoever comes here first asks the registry; the others wait for the same answer
      if (this.#attempt === attempt) this.#attempt = this.#ask(this.#images.resolve(this.#reference), true)
    }
  }

  #ask(image: Promise<ResolvedImage | undefined>, registry: boolean): Attempt {
    const listing = image.then((found) => found && new Listing(found, this.#layers, this.#opening))
    const attempt: Attempt = { listing, endedAt: undefined }
    const ended = () => {
      if (registry) attempt.endedAt = performance.now()
    }
    listing.then(ended, ended)
    return attempt
  }
}

/** A layer of an image, and what it was found by. */
export interface Found {
  index: number
  descriptor: Descriptor
  dialect: Dialect
}

export class Listing {
  readonly image: ResolvedImage
  readonly #layers: LayerOpener
  readonly #opening: Opening
  #opened: { layer: Promise<OpenLayer | EagerLayer>; failedAt: number | undefined }[] | undefined

  constructor(image: ResolvedImage, layers: LayerOpener, opening: Opening) {
    this.image = image
    this.#layers = layers
    this.#opening = opening
  }

  /** The layer that bears `digest` itself, or whose index claims it (opening the layer proves that). */
  find(digest: Digest): Found | undefined {
    const plan = this.#layers.plan(this.image.manifest)
    for (const [index, descriptor] of this.image.manifest.layers.entries()) {
      if (descriptor.digest === digest) return { index, descriptor, dialect: 'layer' }
      const unit = plan.get(descriptor)
      if (unit !== undefined && 'identity' in unit && unit.identity === digest) {
        return { index, descriptor, dialect: 'index' }
      }
    }
    return undefined
  }

  /** Opens a layer, and with the first all the others. @throws Failure as Layers.open; tried again after a while */
  open({ index, descriptor }: Found): Promise<OpenLayer | EagerLayer> {
    this.#opened ??= this.image.manifest.layers.map((each) => this.#begin(each))
    const opened = this.#opened[index]
    if (opened !== undefined && (opened.failedAt ?? Infinity) > performance.now() - ASK_AGAIN_MS) return opened.layer
    const again = this.#begin(descriptor)
    this.#opened[index] = again
    return again.layer
  }

  #begin(descriptor: Descriptor) {
    const layer = openLayer(this.image, descriptor, this.#layers)
    const opened = { layer, failedAt: undefined as number | undefined }
    layer.catch(() => {
      opened.failedAt = performance.now()
    })
    this.#opening(this.image, descriptor, layer)
    return opened
  }
}
