// An image in a registry, through its mirrors where registries.conf names some.
import { Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { type Descriptor, MANIFEST_MAX_BYTES, MANIFEST_TYPES, type Manifest, type Platform } from '../image/manifest.ts'
import { type RegistryReference, referenceText, repositoryText } from '../image/reference.ts'
import { RegistryBlob, sizeIn } from './blob.ts'
import { readAll } from './body.ts'
import { type Documents, type Image, type ResolveOptions, resolveImage, resolveManifest } from './manifests.ts'
import type { Repository, Wanted } from './repository.ts'
import type { ImageSource, StoredBlob } from './source.ts'

/** Failures of one endpoint after which the next may do better. */
const TRY_NEXT = new Set(['missing', 'denied', 'unavailable', 'timeout', 'unsupported', 'corrupt'])

/** Asks mirrors first and the origin last; whoever answered is asked first the next time. */
export class RegistrySource implements ImageSource {
  readonly #reference: RegistryReference
  readonly #repositories: () => Promise<Repository[]>
  #found: Promise<Repository[]> | undefined
  /** The one that answered last is asked first. */
  #preferred: Repository | undefined

  /** @param repositories is asked when they are wanted for the first time, and again after it has failed */
  constructor(reference: RegistryReference, repositories: () => Promise<Repository[]>) {
    this.#reference = reference
    this.#repositories = repositories
  }

  async resolve(platform: Platform, options: ResolveOptions = {}): Promise<Image> {
    return await this.#ask((each) => resolveImage(this.#reference, this.#documents(each), platform, options))
  }

  async manifest(platform: Platform, options: { signal?: AbortSignal } = {}): Promise<Manifest> {
    const found = await this.#ask((each) => resolveManifest(this.#reference, this.#documents(each), platform, options))
    return found.manifest
  }

  /** A manifest of the same repository under a tag of its own; undefined where there is none. @throws Failure as resolve */
  async tagged(tag: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const what = referenceText({
      transport: 'docker',
      host: this.#reference.host,
      repository: this.#reference.repository,
      tag,
    })
    const headers = () => ({ accept: MANIFEST_TYPES.join(', ') })
    return await this.#optional({ path: `manifests/${tag}`, what, headers, priority: 'demand', signal }, maxBytes)
  }

  /** Of the same repository, behind all that somebody waits for; undefined where there is none. @throws Failure as resolve */
  async document(path: string, accept: string, maxBytes: number, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const what = `${this.name}: ${path}`
    return await this.#optional({ path, what, headers: () => ({ accept }), priority: 'prefetch', signal }, maxBytes)
  }

  /** The repository, with its host. */
  get name(): string {
    return repositoryText(this.#reference)
  }

  async #optional(wanted: Omit<Wanted, 'lasting'>, maxBytes: number): Promise<Uint8Array | undefined> {
    try {
      return await this.#ask((each) =>
        each.fetch({ ...wanted, lasting: false }, (answer) => readAll(answer, maxBytes, wanted.what)),
      )
    } catch (error) {
      if (error instanceof Failure && error.code === 'missing') return undefined
      throw error
    }
  }

  #documents(repository: Repository): Documents {
    const reference = this.#reference
    const name = referenceText(reference)
    const get = (path: string, max: number, accept: string, what: string, signal: AbortSignal | undefined) =>
      repository.fetch(
        { path, what, lasting: false, headers: () => ({ accept }), priority: 'demand', signal },
        async (answer) => ({ bytes: await readAll(answer, max, what), mediaType: answer.header('content-type') }),
      )
    const manifests = MANIFEST_TYPES.join(', ')
    return {
      root: (signal) => {
        const version = reference.digest ?? reference.tag ?? 'latest'
        return get(`manifests/${version}`, MANIFEST_MAX_BYTES, manifests, name, signal)
      },
      manifest: async (descriptor, signal) => {
        const what = `${name}: manifest ${descriptor.digest}`
        return (await get(`manifests/${descriptor.digest}`, descriptor.size, manifests, what, signal)).bytes
      },
      config: async (descriptor, signal) => {
        const what = `${name}: config ${descriptor.digest}`
        return (await get(`blobs/${descriptor.digest}`, descriptor.size, '*/*', what, signal)).bytes
      },
    }
  }

  blob(descriptor: Descriptor): StoredBlob {
    const { host, repository } = this.#reference
    return new RegistryBlob(descriptor, host, repository, (...asked) => this.#ask(...asked))
  }

  async sizeOf(digest: Digest, { signal }: { signal?: AbortSignal } = {}): Promise<number | undefined> {
    const what = `blob ${digest}`
    const headers = () => ({ range: 'bytes=0-0' })
    try {
      return await this.#ask((each) =>
        each.fetch({ path: `blobs/${digest}`, what, lasting: true, headers, priority: 'demand', signal }, (answer) =>
          sizeIn(answer, digest),
        ),
      )
    } catch (error) {
      if (error instanceof Failure && error.code === 'missing') return undefined
      throw error
    }
  }

  async #ask<T>(ask: (repository: Repository, left: number, all: number) => Promise<T>, doubted = false): Promise<T> {
    this.#found ??= this.#repositories().catch((error) => {
      this.#found = undefined // a file that is repaired counts at once
      throw error
    })
    const all = await this.#found
    const preferred = all.filter((each) => each === this.#preferred)
    const others = all.filter((each) => each !== this.#preferred)
    const order = doubted ? [...others, ...preferred] : [...preferred, ...others]
    let first: Failure | undefined
    for (const [i, repository] of order.entries()) {
      try {
        const result = await ask(repository, order.length - i, order.length)
        this.#preferred = repository
        return result
      } catch (error) {
        if (!(error instanceof Failure) || !TRY_NEXT.has(error.code)) throw error
        // the origin's word counts, a mirror's does not
        first = repository === all.at(-1) ? error : (first ?? error)
      }
    }
    throw first ?? Failure.usage(`${referenceText(this.#reference)}: nobody to ask`)
  }
}
