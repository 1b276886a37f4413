// An image: resolved from its source or from what is kept of it on disk, and its layers opened in parallel.
import type { FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'
import { Failure } from '../errors.ts'
import type { Source } from '../format/format.ts'
import type { ReadOptions } from '../image/blob.ts'
import { type Digest, digestOf } from '../image/digest.ts'
import { type Descriptor, type Platform, parseConfig, parseManifest, platformText } from '../image/manifest.ts'
import { type Reference, referenceText } from '../image/reference.ts'
import type { Image } from '../registry/manifests.ts'
import type { ImageSource, StoredBlob } from '../registry/source.ts'
import type { TreeNumbers } from '../store/numbers.ts'
import type { Store } from '../store/store.ts'
import type { EagerLayer, LayerLease, OpenLayer } from './layer.ts'
import { readImage } from './layer-image.ts'
import type { From, Layers } from './layers.ts'

export interface ResolvedImage extends Image {
  /** The registry or the layout: what one of them says of blobs counts for its own. */
  origin: string
  /** Where in it, as a Giver has it. */
  repository: string
  blob(descriptor: Descriptor): StoredBlob
  sizeOf: Source['sizeOf']
  /** As a format's Source wants it; asked once, however many layers ask: the signal of the first ends it. */
  companion: Source['companion']
}

/** An image whose manifest is there, and nothing else yet. */
export type EarlyImage = Omit<ResolvedImage, 'manifestBytes' | 'configBytes' | 'config'>

/** Where images come from. */
export interface Sources {
  source(reference: Reference): ImageSource
}

/** More than are pulled at once, with their companions; of what is used again later, a blob may be asked for as if it were another copy. */
const SOURCES_MAX = 256

export class Images {
  readonly #registries: Sources
  readonly #store: Store
  readonly #platform: Platform
  /** One a reference, and of it one blob a layer: Layers tells copies of a blob apart by that. The one used last comes last. */
  readonly #sources = new Map<string, ImageSource>()
  readonly #log: (message: string) => void
  readonly #early: (image: EarlyImage) => void
  readonly #gathered: Gathers | undefined

  /**
   * @param early is given each image that a registry or layout is asked for, or that is begun, as soon as its manifest is there
   * @param gathered keeps what is read of registries' blobs; default: nothing does
   */
  constructor(
    registries: Sources,
    store: Store,
    platform: Platform,
    log: (message: string) => void,
    early: (image: EarlyImage) => void = () => {},
    gathered?: Gathers,
  ) {
    this.#registries = registries
    this.#store = store
    this.#platform = platform
    this.#log = log
    this.#early = early
    this.#gathered = gathered
  }

  /**
   * The image as its source has it now, kept for restarts: what a tag means is asked each time, and no more than that where the rest is
   * kept. By digest, what is kept is as good. Where the source does not answer, the image is what it was the last time.
   * @throws Failure
   */
  async resolve(reference: Reference, signal?: AbortSignal): Promise<ResolvedImage> {
    if (reference.digest !== undefined) {
      const kept = await this.kept(reference)
      if (kept !== undefined) return kept
    }
    const source = this.#source(reference)
    try {
      const reach = this.#reach(reference)
      const onManifest = (manifest: ResolvedImage['manifest'], digest: Digest) =>
        this.#early({ reference, digest, manifest, ...reach })
      const kept = (digest: Digest) => this.#store.getObject(digest)
      const options = { onManifest, kept, ...(signal === undefined ? {} : { signal }) }
      const image = await source.resolve(this.#platform, options)
      await Promise.all([
        this.#store.putObject(image.digest, image.manifestBytes),
        this.#store.putObject(image.manifest.config.digest, image.configBytes),
      ])
      await this.#store.tags.keep(referenceText(reference), platformText(this.#platform), image.digest)
      return { ...image, ...reach }
    } catch (error) {
      if (!(error instanceof Failure) || (error.code !== 'unavailable' && error.code !== 'timeout')) throw error
      const kept = await this.kept(reference)
      if (kept === undefined) throw error
      this.#log(`${referenceText(reference)}: ${error.message}; using ${kept.digest}, as resolved the last time`)
      return kept
    }
  }

  /** Has what a start of an image needs begin to come, where somebody else has its manifest. */
  begin(reference: Reference, digest: Digest, manifest: EarlyImage['manifest']): void {
    this.#early({ reference, digest, manifest, ...this.#reach(reference) })
  }

  /** The image as resolved the last time, from disk alone; undefined when it never was or its objects are gone. */
  async kept(reference: Reference): Promise<ResolvedImage | undefined> {
    const record = await this.#store.tags.of(referenceText(reference), platformText(this.#platform))
    // a digest needs no record of what it meant, unless it is an index's
    const digest = record?.manifest ?? reference.digest
    const manifestBytes = digest && (await this.#store.getObject(digest))
    if (digest === undefined || manifestBytes === undefined) return undefined
    const manifest = parseManifest(manifestBytes, `manifest ${digest}`)
    if (!('layers' in manifest)) return undefined
    const configBytes = await this.#store.getObject(manifest.config.digest)
    if (configBytes === undefined) return undefined
    const config = parseConfig(configBytes, manifest.layers.length, `config ${manifest.config.digest}`)
    return { reference, digest, manifestBytes, manifest, configBytes, config, ...this.#reach(reference) }
  }

  #reach(reference: Reference): Pick<ResolvedImage, 'origin' | 'repository' | 'blob' | 'sizeOf' | 'companion'> {
    const source = this.#source(reference)
    const companions = new Map<string, ReturnType<Source['companion']>>()
    return {
      ...placeOf(reference),
      blob: (descriptor) => source.blob(descriptor),
      sizeOf: (digest, signal) => source.sizeOf(digest, signal ? { signal } : {}),
      companion: (suffix, signal) => {
        const sourceOf = (each: Reference) => this.#source(each)
        const found = companions.get(suffix) ?? companion(sourceOf, reference, this.#platform, suffix, signal)
        companions.set(suffix, found)
        // what is not there now, or failed, is asked for again by whoever comes next
        const forget = () => companions.delete(suffix)
        found.then((layers) => layers ?? forget(), forget)
        return found
      },
    }
  }

  #source(reference: Reference): ImageSource {
    const text = referenceText(reference)
    const source =
      this.#sources.get(text) ??
      withBlobsKept(this.#registries.source(reference), reference.transport === 'oci' ? undefined : this.#gathered)
    this.#sources.delete(text)
    this.#sources.set(text, source)
    const [oldest] = this.#sources.keys()
    if (this.#sources.size > SOURCES_MAX && oldest !== undefined) this.#sources.delete(oldest)
    return source
  }
}

/** Where an image of this reference is. */
export function placeOf(reference: Reference): Pick<ResolvedImage, 'origin' | 'repository'> {
  if (reference.transport === 'docker') {
    return { origin: reference.host, repository: `${reference.host}/${reference.repository}` }
  }
  const layout = `oci:${resolve(reference.dir)}`
  return { origin: layout, repository: layout }
}

/** As Source.companion has it, of an image with this reference. */
export async function companion(
  sourceOf: (reference: Reference) => ImageSource,
  reference: Reference,
  platform: Platform,
  suffix: string,
  signal: AbortSignal | undefined,
): ReturnType<Source['companion']> {
  if (reference.tag === undefined) return undefined
  const { digest: _, ...tagged } = reference
  const source = sourceOf({ ...tagged, tag: `${reference.tag}${suffix}` })
  try {
    const { layers } = await source.manifest(platform, signal === undefined ? {} : { signal })
    return layers.map((descriptor) => ({ descriptor, blob: source.blob(descriptor) }))
  } catch (error) {
    if (error instanceof Failure && error.code === 'missing') return undefined
    throw error
  }
}

/** Keeps what is read of blobs, for who wants one whole later. */
export interface Gathers {
  /** @param bytes stay as they are until it resolves. Never rejects. */
  add(of: StoredBlob, at: number, bytes: Uint8Array): Promise<void>
}

/** Of what is read of it nothing need be read again. */
function gathering(blob: StoredBlob, gathered: Gathers | undefined): StoredBlob {
  if (gathered === undefined) return blob
  const { digest, size, origin } = blob
  return {
    digest,
    size,
    origin,
    async read(range, options = {}) {
      let came: Uint8Array = new Uint8Array()
      const onPart: ReadOptions['onPart'] = (part, at) => {
        came = new Uint8Array(part.buffer, part.byteOffset - at, at + part.length)
        return options.onPart?.(part, at)
      }
      try {
        came = await blob.read(range, { ...options, onPart })
        return came
      } finally {
        // also what came of one that was given up; whoever waits for its parts has them
        await gathered.add(blob, range.start, came)
      }
    },
    stream: (take, options) => blob.stream(take, options),
  }
}

function withBlobsKept(source: ImageSource, gathered: Gathers | undefined): ImageSource {
  const blobs = new Map<string, StoredBlob>()
  return {
    resolve: (platform, options) => source.resolve(platform, options),
    manifest: (platform, options) => source.manifest(platform, options),
    sizeOf: (digest, options) => source.sizeOf(digest, options),
    blob(descriptor) {
      const key = `${descriptor.digest} ${descriptor.size}`
      const blob = blobs.get(key) ?? gathering(source.blob(descriptor), gathered)
      blobs.set(key, blob)
      return blob
    },
  }
}

/** What of Layers opens layers. */
export type LayerOpener = Pick<Layers, 'plan' | 'open' | 'openEmpty' | 'openWhole'>

/** Opens a layer of an image, which the caller closes; what cannot be served comes back with its reason. @throws Failure as Layers.open, Layers.openWhole */
export async function openLayer(
  image: ResolvedImage,
  descriptor: Descriptor,
  layers: LayerOpener,
  { fetchWhole = false, from = 'anywhere' }: { fetchWhole?: boolean; from?: From } = {},
): Promise<LayerLease | EagerLayer> {
  const unit = layers.plan(image.manifest).get(descriptor) ?? { why: 'it is no layer of its image' }
  if ('why' in unit) {
    if (unit.refused) return { descriptor, ...unit }
    return (
      (await layers.openWhole(descriptor, image.blob(descriptor), fetchWhole, from, image.repository)) ?? {
        descriptor,
        ...unit,
      }
    )
  }
  const layer = await layers.open(unit, sourceOf(image), image.origin, from)
  if (descriptor === unit.shown) return layer
  try {
    // only when the unit could be opened: engines get all of its layers or none, since parts of it are another image
    return await layers.openEmpty(unit, descriptor, layer)
  } finally {
    await layer.close()
  }
}

/** Where units of an image are read from. */
export function sourceOf({
  manifest,
  repository,
  blob,
  sizeOf,
  companion,
}: Pick<ResolvedImage, 'manifest' | 'repository' | 'blob' | 'sizeOf' | 'companion'>): Source {
  // a layer's descriptor may say more of where it is
  const descriptorOf = ({ digest, size }: Parameters<Source['blob']>[0]): Descriptor =>
    manifest.layers.find((each) => each.digest === digest && each.size === size) ?? {
      mediaType: 'application/octet-stream',
      digest,
      size,
      annotations: {},
    }
  return { repository, blob: (of) => blob(descriptorOf(of)), sizeOf, companion }
}

/** Puts images of trees together, lowest first, off the main thread. */
export interface Merger {
  merge(images: Uint8Array[]): Promise<Uint8Array>
}

/**
 * One tree of all layers, open and intact: as merged before, or merged now (also where the one on disk was damaged).
 * @throws Failure corrupt when it cannot be kept
 */
export async function openMerged(all: readonly OpenLayer[], store: Store, merger: Merger): Promise<Merged> {
  // of layers that show one tree together, the one that shows it
  const layers = all.filter(({ together }) => together === undefined || together.shows)
  const [whole, ...others] = layers
  if (whole?.together !== undefined && others.length === 0) {
    return await numbered(await whole.openImage(), whole.tree, layers, store)
  }
  const trees = layers.map((each) => each.tree)
  const key = digestOf(new TextEncoder().encode(trees.join(' ')))
  const kept = await store.merged(key)
  let image = kept && (await store.openImage(kept.image))
  if (kept !== undefined && image !== undefined) return await numbered(image, kept.image, layers, store)
  const bytes = await merger.merge(await Promise.all(layers.map((each) => readImage(each))))
  const digest = digestOf(bytes)
  await store.keepMerged(key, bytes, { image: digest, trees })
  image = await store.openImage(digest)
  if (image === undefined) {
    throw Failure.corrupt('the merged image cannot be read back from the cache', {
      fix: 'Check the disk below the cache directory.',
    })
  }
  return await numbered(image, digest, layers, store)
}

async function numbered(
  image: FileHandle,
  digest: Digest,
  layers: readonly OpenLayer[],
  store: Store,
): Promise<Merged> {
  try {
    return { image, layers, ...(await store.numbersOf(digest)) }
  } catch (error) {
    await image.close()
    throw error
  }
}

export interface Merged extends TreeNumbers {
  /** The caller closes it. */
  image: FileHandle
  /** Those whose devices it is on, in their order. */
  layers: readonly OpenLayer[]
}
