// The images that clients pull just now: a client asks for one layer after the other, and each finds the others under way.

import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import type { Images, ResolvedImage } from '../layer/image.ts'
import type { FoundImage, ImageFinder } from './image-finder.ts'
import { PulledImage, type PulledImageParts, whyNeverUnpacked } from './pulled-image.ts'
import type { Labels } from './snapshot.ts'

export interface PullsParts extends PulledImageParts {
  finder: Pick<ImageFinder, 'find' | 'open'>
  images: Pick<Images, 'kept' | 'begin'>
  /** Keeps a manifest or a config for the next start. @throws Failure system */
  keepObject(digest: Digest, bytes: Uint8Array): Promise<void>
}

/** What a pull wants. */
export interface Wanted {
  readonly pulled: PulledImage
  readonly place: number
  readonly chain: readonly string[]
}

/** Why an image must not be pulled: nobody can show it, and whoever unpacked its layers would run something else. */
export interface Refused {
  readonly refused: string
}

/** A client asks for an image's layers one after the other; what it has not asked for by then it will not. */
const PULL_MS = 120_000
/** More than a node pulls at once: each holds its layers open. */
const PULLS_MAX = 64

export class Pulls {
  readonly #parts: PullsParts
  /** By reference with digest, and what of it is to be proven; the one asked for last comes last. */
  readonly #pulls = new Map<string, { pulled: PulledImage; timer: NodeJS.Timeout }>()

  constructor(parts: PullsParts) {
    this.#parts = parts
  }

  /** The image that has a layer for this target; all its layers are being opened. @throws Failure as ImageFinder.find */
  async find(namespace: string, target: string, labels: Labels): Promise<Wanted | Refused> {
    const found = await this.#parts.finder.find(namespace, target, labels)
    const { place, chain, manifest } = found
    const refused = [...this.#parts.layers.plan(manifest).values()].find((unit) => 'why' in unit && unit.refused)
    if (refused !== undefined && 'why' in refused) return { refused: refused.why } // whichever layer is asked for first
    return { pulled: await this.#pulled(found), place, chain }
  }

  /** Why a client that unpacks the layer of a chain itself cannot have what its image means; undefined: it can. @throws Failure as ImageFinder.find */
  async whyNeverUnpacked(namespace: string, target: string): Promise<string | undefined> {
    const { manifest, place } = await this.#parts.finder.find(namespace, target, {})
    return whyNeverUnpacked(this.#parts.layers.plan(manifest), manifest.layers[place] as Descriptor) // one of its own
  }

  /** The same of an image that is there. @throws Failure as ImageFinder.open */
  async open(namespace: string, manifest: Digest, said: string): Promise<PulledImage> {
    return await this.#pulled(await this.#parts.finder.open(namespace, manifest, said))
  }

  async #pulled(found: Omit<FoundImage, 'place'>): Promise<PulledImage> {
    const { reference, manifest, toProve = new Set() } = found
    const key = [referenceText(reference), ...toProve].join(' ')
    const known = this.#pulls.get(key)
    if (known?.pulled.isStale)
      void this.#end(key) // never rejects
    else if (known !== undefined) {
      known.timer.refresh()
      this.#pulls.delete(key)
      this.#pulls.set(key, known)
      return known.pulled
    }
    this.#parts.images.begin(reference, reference.digest, manifest) // while it is kept
    return this.#begin(key, await this.resolve(found), toProve)
  }

  /** The image that was found, kept for the next start. @throws Failure missing, system */
  async resolve(found: Omit<FoundImage, 'place'>): Promise<ResolvedImage> {
    const { keepObject, images } = this.#parts
    const { reference, manifest, manifestBytes, configBytes } = found
    await Promise.all([keepObject(reference.digest, manifestBytes), keepObject(manifest.config.digest, configBytes)])
    const image = await images.kept(reference)
    if (image === undefined) throw Failure.missing(`${referenceText(reference)} cannot be read back from the cache`)
    return image
  }

  /** Never rejects. */
  async close(): Promise<void> {
    await Promise.all([...this.#pulls.keys()].map((key) => this.#end(key)))
  }

  #begin(key: string, image: ResolvedImage, toProve: ReadonlySet<number>): PulledImage {
    const found = this.#pulls.get(key)
    if (found !== undefined) return found.pulled // meanwhile
    const [oldest] = this.#pulls.keys()
    if (this.#pulls.size >= PULLS_MAX && oldest !== undefined) void this.#end(oldest)
    const timer = setTimeout(() => void this.#end(key), PULL_MS).unref()
    const pulled = new PulledImage(image, this.#parts, toProve)
    this.#pulls.set(key, { pulled, timer })
    return pulled
  }

  async #end(key: string): Promise<void> {
    const found = this.#pulls.get(key)
    if (found === undefined) return
    this.#pulls.delete(key)
    clearTimeout(found.timer)
    await found.pulled.close()
  }
}
