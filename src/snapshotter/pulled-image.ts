// An image that a client pulls: all of its layers are opened as soon as it asks for one. Those that are not lazy are fetched whole, side by
// side, and served from their tars, because a client that has to fetch one layer fetches all above it, too.
import { Failure } from '../errors.ts'
import type { Units } from '../format/formats.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import { keepForIndex } from '../layer/ahead.ts'
import { type AllLayersOpener, openOrEager, openWhole } from '../layer/all-layers.ts'
import type { ResolvedImage } from '../layer/image.ts'
import { closeLayer, type EagerLayer, type LayerLease, WHOLE } from '../layer/layer.ts'
import type { Layers } from '../layer/layers.ts'
import type { LayerNames } from './names.ts'
import { type SaidLayer, saidLayers } from './said-layers.ts'
import type { LazyLayer } from './snapshot.ts'

export interface PulledImageParts {
  layers: AllLayersOpener & Pick<Layers, 'prove' | 'keep' | 'everProven'>
  names: LayerNames
  /** Has fetched ahead what is wanted first of a layer. @throws what that throws */
  prefetch(image: ResolvedImage, layer: LayerLease): Promise<void>
  log(message: string): void
}

/** A layer that may be shown. */
export interface ReadyLayer {
  readonly lease: LayerLease
  readonly layer: LazyLayer
}

/** What failed is tried again by whoever asks after that long. */
const AGAIN_MS = 10_000

export class PulledImage {
  readonly image: ResolvedImage
  readonly said: readonly SaidLayer[]
  readonly #parts: PulledImageParts
  /** By place; none is waited for by another. */
  readonly #opened: readonly Promise<LayerLease>[]
  readonly #ready: readonly Promise<ReadyLayer>[]
  readonly #using = new Set<Promise<unknown>>()
  #failedAt: number | undefined

  /** @param toProve places of layers that are shown to nobody before they were read whole */
  constructor(image: ResolvedImage, parts: PulledImageParts, toProve: ReadonlySet<number> = new Set()) {
    this.image = image
    this.#parts = parts
    this.said = saidLayers(image.manifest, parts.layers.plan(image.manifest))
    const { layers } = image.manifest
    const lazy = layers.map((each) => this.#open(each))
    this.#opened = lazy.map((each, place) => this.#whole(each, place))
    const trees = () => Promise.all(lazy.map((each) => each.then((open) => ('why' in open ? undefined : open), ignore)))
    const met = parts.names.meet(image, trees)
    this.#ready = this.#opened.map((each, place) => this.#name(each, place, met, toProve.has(place)))
    for (const each of [...lazy, ...this.#opened, met]) each.catch(ignore) // whoever asks for one is told
    const failed = () => {
      this.#failedAt ??= performance.now()
    }
    for (const each of this.#ready) each.catch(failed)
  }

  /** Does some work with a layer that may be shown, which is open until then. @throws Failure why it may not be; what `work` throws */
  use<T>(place: number, work: (ready: ReadyLayer) => Promise<T>): Promise<T> {
    const using = (this.#ready[place] as Promise<ReadyLayer>).then(work) // of one of its layers
    this.#using.add(using)
    const ended = () => this.#using.delete(using)
    using.then(ended, ended)
    return using
  }

  /** Whether some layer could not be shown, so long ago that another try may bring more. */
  get isStale(): boolean {
    return this.#failedAt !== undefined && performance.now() - this.#failedAt > AGAIN_MS
  }

  /** As the function of this name has it. */
  whyNeverUnpacked(place: number): string | undefined {
    const { manifest } = this.image
    return whyNeverUnpacked(this.#parts.layers.plan(manifest), manifest.layers[place] as Descriptor) // one of its own
  }

  /** Closes what it opened; what shows a layer holds it open. Never rejects. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#ready, ...this.#using])
    await Promise.all(this.#opened.map((each) => each.then(closeLayer, ignore)))
  }

  async #open(descriptor: Descriptor): Promise<LayerLease | EagerLayer> {
    await keepForIndex(this.image, descriptor, this.#parts.layers)
    return await openOrEager(this.image, descriptor, this.#parts.layers)
  }

  async #whole(opening: Promise<LayerLease | EagerLayer>, place: number): Promise<LayerLease> {
    const layer = await opening
    if (!('why' in layer)) {
      this.#parts.prefetch(this.image, layer).catch(ignore) // it logs what it could not fetch
      return layer
    }
    const what = `${referenceText(this.image.reference)}: layer ${place + 1}, ${layer.descriptor.digest},`
    if (layer.refused) throw Failure.unsupported(`${what} cannot be shown`, { why: layer.why })
    this.#parts.log(`${what} is fetched whole: ${layer.why}`)
    return await openWhole(this.image, layer, this.#parts.layers)
  }

  async #name(
    opening: Promise<LayerLease>,
    place: number,
    met: Promise<void>,
    isProvenFirst: boolean,
  ): Promise<ReadyLayer> {
    const { names, layers } = this.#parts
    const { image } = this
    const lease = await opening
    await met
    const open = async (at: number) => (await (this.#opened[at] as Promise<LayerLease>)).again()
    // where all of it is at hand nothing is believed
    if (lease.format === WHOLE || isProvenFirst) await layers.prove(lease, image.blob(lease.descriptor))
    let why = await names.take(image, place, lease, open)
    if (why !== undefined && lease.together === undefined && lease.format !== WHOLE) {
      await layers.prove(lease, image.blob(lease.descriptor))
      why = await names.take(image, place, lease, open)
    }
    if (why !== undefined) throw Failure.unsupported(`layer ${lease.descriptor.digest} has no name here`, { why })
    return { lease, layer: this.#record(place, lease) }
  }

  #record(place: number, { tree, together, format }: LayerLease): LazyLayer {
    const { reference, digest, manifest, config } = this.image
    // the lease may have been opened for another image, whose descriptor is not in this plan
    const descriptor = manifest.layers[place] as Descriptor // one of its own
    const unit = this.#parts.layers.plan(manifest).get(descriptor)
    const index = format === WHOLE || unit === undefined || 'why' in unit ? {} : { index: unit.index }
    const diffId = config.diffIds[place] as LazyLayer['diffId'] // parseConfig: one a layer
    const { digest: _, ...named } = reference
    const text = referenceText(named)
    return {
      reference: text,
      manifest: digest,
      place,
      diffId,
      blob: descriptor.digest,
      ...index,
      tree,
      together: together !== undefined,
    }
  }
}

/** Whether a client that unpacked a layer itself would run something else than the image, or fail: why, a sentence. */
export function whyNeverUnpacked(plan: Units, layer: Descriptor): string | undefined {
  const unit = plan.get(layer)
  if (unit === undefined) return undefined
  if ('why' in unit) return unit.refused ? unit.why : undefined
  return unit.layers.length > 1
    ? 'its image shows one tree for several layers together, which none of them unpacks to'
    : undefined
}

function ignore(): undefined {
  return undefined
}
