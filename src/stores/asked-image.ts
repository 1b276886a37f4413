// The image behind a reference that engines ask for: as kept on disk, or as the registry has it now; and its layers, opened all at once
// when the first of them is wanted. A failure is not kept for good: it answers whoever asks within ASK_AGAIN_MS, which is one pull.
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { Reference } from '../image/reference.ts'
import { type Images, type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import { closeLayer, type EagerLayer, type LayerLease, type OpenLayer } from '../layer/layer.ts'
import type { Dialect } from './identity.ts'

/** A registry is not asked for the same image again within this time: a pull looks its layers up one after the other, and each lookup would wait. */
export const ASK_AGAIN_MS = 3_000

/** Called for each layer whose opening has begun. */
export type OpeningWatcher = (
  image: ResolvedImage,
  descriptor: Descriptor,
  layer: Promise<OpenLayer | EagerLayer>,
) => void

/** The two methods of Images that find an image. */
export type Resolver = Pick<Images, 'kept' | 'resolve'>

interface Attempt {
  listing: Promise<ImageLayers | undefined>
  /** When the registry had answered, or failed; undefined while it has not, and for what disk says, which is never the last word. */
  endedAt: number | undefined
}

export class AskedImage {
  readonly #reference: Reference
  readonly #images: Resolver
  readonly #layers: LayerOpener
  readonly #opening: OpeningWatcher
  #attempt: Attempt | undefined

  constructor(reference: Reference, images: Resolver, layers: LayerOpener, opening: OpeningWatcher) {
    this.#reference = reference
    this.#images = images
    this.#layers = layers
    this.#opening = opening
  }

  /**
   * The image that has a layer of this digest, or, where neither disk nor registry knows one, the image that the reference names.
   * @throws Failure as Images.resolve
   */
  async listing(digest: Digest): Promise<ImageLayers | undefined> {
    const recent = performance.now() - ASK_AGAIN_MS
    for (;;) {
      this.#attempt ??= this.#ask(this.#images.kept(this.#reference), false)
      const attempt = this.#attempt
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
      if (this.#attempt === attempt) {
        letGo(attempt)
        this.#attempt = this.#ask(this.#images.resolve(this.#reference), true)
      }
    }
  }

  /** Closes what was opened and nobody has asked for. The image is asked for anew by whoever comes next. */
  close(): void {
    if (this.#attempt !== undefined) letGo(this.#attempt)
    this.#attempt = undefined
  }

  #ask(image: Promise<ResolvedImage | undefined>, registry: boolean): Attempt {
    const listing = image.then((found) => found && new ImageLayers(found, this.#layers, this.#opening))
    const attempt: Attempt = { listing, endedAt: undefined }
    const ended = () => {
      if (registry) attempt.endedAt = performance.now()
    }
    listing.then(ended, ended)
    return attempt
  }
}

function letGo({ listing }: Attempt): void {
  // what fails is told to whoever asked
  listing.then(
    (found) => found?.close(),
    () => {},
  )
}

/** A layer of an image, and what it was found by. */
export interface AskedLayer {
  index: number
  descriptor: Descriptor
  dialect: Dialect
}

interface OpenedOnce {
  readonly layer: Promise<LayerLease | EagerLayer>
  failedAt: number | undefined
}

export class ImageLayers {
  readonly image: ResolvedImage
  readonly #layers: LayerOpener
  readonly #opening: OpeningWatcher
  #opened: OpenedOnce[] | undefined
  #closed = false

  constructor(image: ResolvedImage, layers: LayerOpener, opening: OpeningWatcher) {
    this.image = image
    this.#layers = layers
    this.#opening = opening
  }

  /** The layer that bears `digest` itself, or whose index claims it (opening the layer proves that). */
  find(digest: Digest): AskedLayer | undefined {
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

  /** Opens a layer, which the caller closes, and with the first all the others. @throws Failure as Layers.open; tried again after a while */
  async open({ index, descriptor }: AskedLayer): Promise<LayerLease | EagerLayer> {
    if (this.#closed) return await openLayer(this.image, descriptor, this.#layers)
    this.#opened ??= this.image.manifest.layers.map((each) => this.#begin(each))
    let opened = this.#opened[index] as OpenedOnce // one a layer
    if (opened.failedAt !== undefined && opened.failedAt <= performance.now() - ASK_AGAIN_MS) {
      opened = this.#begin(descriptor)
      this.#opened[index] = opened
    }
    const layer = await opened.layer
    if ('why' in layer) return layer
    return this.#closed ? await openLayer(this.image, descriptor, this.#layers) : layer.again()
  }

  /** The layers' trees, by their places; undefined: it is not lazy, or cannot be opened now. */
  async trees(): Promise<({ tree: Digest } | undefined)[]> {
    const treeOf = async (descriptor: Descriptor, index: number) => {
      const layer = await this.open({ index, descriptor, dialect: 'layer' })
      if ('why' in layer) return undefined
      const { tree } = layer
      await layer.close()
      return { tree }
    }
    // what fails is told to whoever asks for it
    return await Promise.all(this.image.manifest.layers.map((each, i) => treeOf(each, i).catch(() => undefined)))
  }

  /** Closes what it opened. */
  close(): void {
    this.#closed = true
    // what fails to open was told to whoever asked
    for (const { layer } of this.#opened ?? []) void layer.then(closeLayer, () => {})
    this.#opened = undefined
  }

  #begin(descriptor: Descriptor): OpenedOnce {
    const layer = openLayer(this.image, descriptor, this.#layers)
    const opened: OpenedOnce = { layer, failedAt: undefined }
    layer.catch(() => {
      opened.failedAt = performance.now()
    })
    this.#opening(this.image, descriptor, layer)
    return opened
  }
}
