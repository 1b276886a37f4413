// A source that was asked for its image before anybody had a use for the answer: the first who resolves it is given what came.
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest, Platform } from '../image/manifest.ts'
import type { Image, ResolveOptions } from './manifests.ts'
import type { ImageSource, StoredBlob } from './source.ts'

export class BegunSource implements ImageSource {
  readonly #source: ImageSource
  /** When what was begun has ended, however it did. Never rejects. */
  readonly ended: Promise<void>
  #begun: { manifest: Promise<[Manifest, Digest]>; image: Promise<Image> } | undefined

  /** @param platform of which the image is resolved, whatever who resolves it wants */
  constructor(source: ImageSource, platform: Platform, kept: NonNullable<ResolveOptions['kept']>) {
    this.#source = source
    const { promise: manifest, resolve } = Promise.withResolvers<[Manifest, Digest]>()
    const image = source.resolve(platform, { kept, onManifest: (...came) => resolve(came) })
    const over = () => {} // who resolves it is told, if anybody does
    this.ended = image.then(over, over)
    this.#begun = { manifest, image }
  }

  async resolve(platform: Platform, options: ResolveOptions = {}): Promise<Image> {
    const begun = this.#begun
    this.#begun = undefined
    if (begun === undefined) return await this.#source.resolve(platform, options)
    void begun.manifest.then(([manifest, digest]) => options.onManifest?.(manifest, digest))
    return await begun.image
  }

  manifest(platform: Platform, options?: { signal?: AbortSignal }): Promise<Manifest> {
    return this.#source.manifest(platform, options)
  }

  blob(descriptor: Descriptor): StoredBlob {
    return this.#source.blob(descriptor)
  }

  sizeOf(digest: Digest, options?: { signal?: AbortSignal }): Promise<number | undefined> {
    return this.#source.sizeOf(digest, options)
  }
}
