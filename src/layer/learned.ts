// Has fetched first what starts of an image are known to read: by this node, from its last start of the image or of another version of it;
// else by what its repository has about it, which is looked for beside everything else and never waited for.
//
// What was learned goes before what the image itself wants first: it is what was read, where the other is what its maker thought of. What
// comes from a registry later than that goes behind it. A profile that is false costs bytes, at most a quarter of the image's. Of the very image
// that it is of, it says where what is wanted is stored: that is asked for before the index says so.
import { describe } from '../errors.ts'
import { prefetch } from '../fetch/prefetch.ts'
import type { Range } from '../image/blob.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor, Manifest } from '../image/manifest.ts'
import type { Profile, ProfileFile } from '../image/profile.ts'
import { type Reference, repositoryText } from '../image/reference.ts'
import type { KeptProfile, Profiles } from '../store/profiles.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import type { ResolvedImage } from './image.ts'
import type { OpenLayer } from './layer.ts'
import { readImage } from './layer-image.ts'

export interface LearnedParts {
  profiles: Pick<Profiles, 'keep' | 'of' | 'newest'>
  platform: string
  /** As wantedChunks (tree/), off the main thread. */
  chunksOf(
    image: Uint8Array,
    chunks: ChunkTable,
    files: readonly ProfileFile[],
    signal: AbortSignal,
  ): Promise<Iterable<number>>
  /** What the repository of an image says of its starts; undefined: nothing. Throws what asking it throws. */
  published(reference: Reference, manifest: Digest, signal: AbortSignal): Promise<Profile | undefined>
  /** Aborts when the cache has no room, or the agent stops; where there is room again, it is another one. */
  signal(): AbortSignal
  log(message: string): void
}

/** What is started. */
export type LearnedImage = Pick<ResolvedImage, 'reference' | 'digest' | 'manifest'>
/** What of it is open. */
export type LearnedLayer = Pick<OpenLayer, 'descriptor' | 'tree' | 'chunks' | 'filler' | 'openImage' | 'prefetch'>

/** Of an image's stored bytes, what others may have us fetch. */
const FOREIGN_SHARE = 0.25
/** What a repository said is asked for again after that long. */
const PUBLISHED_MS = 24 * 60 * 60 * 1000

export class Learned {
  readonly #parts: LearnedParts
  /** By manifest and tree, while it is under way. */
  readonly #running = new Map<string, Promise<void>>()
  /** By manifest, while it is asked for. */
  readonly #asking = new Map<Digest, Promise<KeptProfile | undefined>>()
  /** Of images that are about to be opened: what their repositories say. */
  readonly #expected = new WeakMap<Manifest, Promise<KeptProfile | undefined>>()
  /** Of images that are open: what is known on this node, looked up once for all of their layers. */
  readonly #kept = new WeakMap<Manifest, Promise<KeptProfile | undefined>>()
  /** Of the same: bytes that foreign profiles may still want. */
  readonly #allowances = new WeakMap<Manifest, number>()
  /** Of the same, by blob: what was said to be wanted before the index was there. */
  readonly #early = new WeakMap<Manifest, Map<Digest, readonly Range[]>>()
  #chunks = 0

  constructor(parts: LearnedParts) {
    this.#parts = parts
  }

  /** Chunks that were fetched ahead because of profiles, those that were there already included. */
  get chunks(): number {
    return this.#chunks
  }

  /** An image's layers will be opened: what is known of its starts is looked for while their indexes come. */
  expect(image: LearnedImage): void {
    const expected = this.#known(image).then((known) => (isFresh(known, image) ? undefined : this.#published(image)))
    this.#expected.set(image.manifest, expected) // neither rejects
  }

  /**
   * Fetches ahead what is wanted of an image's layer, which stays open until this resolves: that is when what is known now has come. Never
   * rejects for what profiles are like. @throws what OpenLayer.prefetch throws
   */
  prefetch(image: LearnedImage, layer: LearnedLayer): Promise<void> {
    const key = `${image.digest} ${layer.tree}`
    const running = this.#running.get(key) ?? this.#prefetch(image, layer).finally(() => this.#running.delete(key))
    this.#running.set(key, running)
    return running
  }

  /** Where in a layer's blob what is wanted first is stored, as far as that is known of this very image. Never rejects. */
  async early(image: LearnedImage, { digest }: Descriptor): Promise<readonly Range[]> {
    const { manifest } = image
    const kept = await this.#known(image)
    const known = kept?.manifest === image.digest ? kept : await this.#expected.get(manifest)
    const ranges = known?.profile.stored.find(({ layer }) => layer === digest)?.ranges ?? []
    if (known === undefined || known.from === 'start' || ranges.length === 0) return ranges
    const allowed = this.#allowed(manifest, ranges, (range) => range)
    const early = this.#early.get(manifest) ?? new Map<Digest, readonly Range[]>()
    this.#early.set(manifest, early.set(digest, allowed))
    return allowed
  }

  async #prefetch(image: LearnedImage, layer: LearnedLayer): Promise<void> {
    const known = await this.#known(image)
    const first = known === undefined ? undefined : await this.#begin(image, layer, known)
    const rest = layer.prefetch()
    const late = isFresh(known, image) ? undefined : this.#late(image, layer)
    await Promise.all([first?.done, rest, late])
  }

  async #late(image: LearnedImage, layer: LearnedLayer): Promise<void> {
    const found = await (this.#expected.get(image.manifest) ?? this.#published(image))
    if (found !== undefined) await (await this.#begin(image, layer, found))?.done
  }

  #known(image: LearnedImage): Promise<KeptProfile | undefined> {
    const { reference, digest, manifest } = image
    const { profiles, platform } = this.#parts
    const find = async () => {
      const of = { repository: repositoryText(reference), platform }
      return (await profiles.of({ ...of, manifest: digest })) ?? (await profiles.newest(of))
    }
    const known = this.#kept.get(manifest) ?? find().catch((error) => this.#failed(image, error))
    this.#kept.set(manifest, known)
    return known
  }

  /** Once for all layers; what is found is kept. */
  #published(image: LearnedImage): Promise<KeptProfile | undefined> {
    const { digest, reference } = image
    const { profiles, platform, published, signal } = this.#parts
    const ask = async () => {
      const profile = await published(reference, digest, signal())
      if (profile === undefined) return undefined
      const of = { repository: repositoryText(reference), platform: platform, manifest: digest }
      await profiles.keep(of, 'registry', profile)
      return { ...of, from: 'registry' as const, at: Date.now(), profile }
    }
    const asking =
      this.#asking.get(digest) ??
      ask()
        .catch((error) => this.#failed(image, error))
        .finally(() => this.#asking.delete(digest))
    this.#asking.set(digest, asking)
    return asking
  }

  /** @returns when it is asked for, what resolves when it has come; undefined: nothing of it is here, or it cannot be told */
  async #begin(
    image: LearnedImage,
    layer: LearnedLayer,
    known: KeptProfile,
  ): Promise<{ done: Promise<unknown> } | undefined> {
    const files = filesIn(known, image.manifest, layer.descriptor.digest)
    if (files.length === 0) return undefined
    const { chunksOf } = this.#parts
    const signal = this.#parts.signal()
    try {
      const wanted = await chunksOf(await readImage(layer), layer.chunks, files, signal)
      const early = this.#early.get(image.manifest)?.get(layer.descriptor.digest) ?? []
      const isEarly = ({ start, end }: Range) => early.some((each) => each.start <= start && end <= each.end)
      const costs = (chunk: number) => {
        const stored = layer.chunks.storedRange(chunk)
        return isEarly(stored) ? { start: 0, end: 0 } : stored
      }
      const chunks = known.from === 'start' ? [...wanted] : this.#allowed(image.manifest, wanted, costs)
      this.#chunks += chunks.length
      return { done: prefetch(layer.filler, chunks, signal) } // never rejects
    } catch (error) {
      this.#failed(image, error)
      return undefined
    }
  }

  /** As much of it, from its beginning, as others may have us fetch of the image. */
  #allowed<T>(manifest: Manifest, wanted: Iterable<T>, costs: (each: T) => Range): T[] {
    const all = manifest.layers.reduce((sum, { size }) => sum + size, 0)
    let left = this.#allowances.get(manifest) ?? all * FOREIGN_SHARE
    const allowed: T[] = []
    for (const each of wanted) {
      const { start, end } = costs(each)
      if (end - start > left) break
      left -= end - start
      allowed.push(each)
    }
    this.#allowances.set(manifest, left)
    return allowed
  }

  #failed({ digest }: LearnedImage, error: unknown): undefined {
    if (!this.#parts.signal().aborted) this.#parts.log(`profile of ${digest}: ${describe(error)}`)
    return undefined
  }
}

/** Whether a repository need not be asked. */
function isFresh(known: KeptProfile | undefined, { digest }: LearnedImage): boolean {
  if (known?.manifest !== digest) return false
  return known.from !== 'registry' || Date.now() - known.at < PUBLISHED_MS
}

/**
 * What a profile says of a layer: of one that it names, what it says of that; of one that it does not know, what it says of layers that
 * the image does not have any more.
 */
function filesIn({ profile: { files } }: KeptProfile, { layers }: Manifest, layer: Digest): ProfileFile[] {
  if (files.some((each) => each.layer === layer)) return files.filter((each) => each.layer === layer)
  const still = new Set(layers.map(({ digest }) => digest))
  return files.filter((each) => !still.has(each.layer))
}
