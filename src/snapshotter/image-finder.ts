// Finds the image that a client of containerd wants a layer of. The client has fetched its manifest and config into containerd's content
// store by then, so that the agent asks no registry for them. Labels say which image it is, where clients send any; but an image can write
// labels, too. So they only choose among manifests that are in the client's own namespace: the layer must stand there, in a chain of
// DiffIDs that comes to the target; and its repository is one that the client fetched the manifest from.
import { createHash } from 'node:crypto'
import { Failure } from '../errors.ts'
import { type Digest, isDigest } from '../image/digest.ts'
import {
  CONFIG_MAX_BYTES,
  type ImageIndex,
  MANIFEST_MAX_BYTES,
  type Manifest,
  parseConfig,
  parseManifest,
} from '../image/manifest.ts'
import { parseRegistryReference, type RegistryReference } from '../image/reference.ts'
import type { Contents } from './content-store.ts'
import type { Labels } from './snapshot.ts'

/** A manifest of the content store that has a layer for the target. */
export interface FoundImage {
  readonly reference: RegistryReference & { digest: Digest }
  readonly manifest: Manifest
  readonly manifestBytes: Uint8Array
  readonly configBytes: Uint8Array
  /** Chain IDs of its layers, the base first. */
  readonly chain: readonly string[]
  /** Of the layer among them. */
  readonly place: number
}

export type KnownImage = Pick<FoundImage, 'manifest' | 'chain'>

type ReadImage = Omit<FoundImage, 'reference' | 'place'>

interface Known {
  readonly image: KnownImage | undefined
  readonly bytes: number
}

const IMAGE_REF = 'containerd.io/snapshot/cri.image-ref'
const MANIFEST_DIGEST = 'containerd.io/snapshot/cri.manifest-digest'
const LAYER_DIGEST = 'containerd.io/snapshot/cri.layer-digest'
/** Of a manifest's content: behind it the host, without its port; the value is repositories, comma separated. */
const SOURCE = 'containerd.io/distribution.source.'
/** Manifests that are remembered; each has some KiB. */
const KNOWN_MAX = 4_096
/** Of all of them as they were read: nobody's manifests fill the memory. */
const KNOWN_MAX_BYTES = 32 << 20

export class ImageFinder {
  readonly #contents: Contents
  /** By digest, which their bytes had; an image of undefined: it is none. The one used last comes last. */
  readonly #known = new Map<Digest, Known>()
  #knownBytes = 0

  constructor(contents: Contents) {
    this.#contents = contents
  }

  /**
   * The image with a layer for this target.
   * @param labels as the client sent them
   * @throws Failure missing: there is none; unsupported: two differ in that layer, or those below; as Contents
   */
  async find(namespace: string, target: string, labels: Labels): Promise<FoundImage> {
    const named = labels[MANIFEST_DIGEST]
    const isThere = isDigest(named) && (await this.#contents.labels(namespace, named)) !== undefined
    const candidates = isThere ? [named] : await this.#contents.manifests(namespace)
    const found: { digest: Digest; image: KnownImage; place: number }[] = []
    for (const digest of candidates) {
      const image = await this.#image(namespace, digest)
      const place = image?.chain.indexOf(target) ?? -1
      if (image === undefined || place < 0) continue
      const layer = labels[LAYER_DIGEST]
      if (layer === undefined || image.manifest.layers[place]?.digest === layer) found.push({ digest, image, place })
    }
    const [first] = found
    if (first === undefined) throw Failure.missing(`no image in namespace ${namespace} has a layer for ${target}`)
    if (found.some(({ image }) => !isSameUpTo(first.place, image, first.image)))
      throw Failure.unsupported(`images in namespace ${namespace} have different layers for ${target}`)
    const { digest, place } = found.at(-1) ?? first
    const whole = await this.#whole(namespace, digest)
    const reference = await this.#referenceOf(namespace, digest, labels[IMAGE_REF])
    return { ...whole, place, reference: { ...reference, digest } }
  }

  /**
   * The manifest that an image means, with the chain IDs of its layers; undefined: it is none that could be served.
   * @param choose of an index the manifest; undefined: it has none
   * @throws as Contents
   */
  async manifestOf(
    namespace: string,
    digest: Digest,
    choose: (index: ImageIndex) => Digest | undefined,
  ): Promise<(KnownImage & { digest: Digest }) | undefined> {
    const image = await this.#image(namespace, digest)
    if (image !== undefined) return { ...image, digest }
    const bytes = await this.#contents.read(namespace, digest, MANIFEST_MAX_BYTES)
    const index = bytes && parseManifest(bytes, `image ${digest}`)
    const chosen = index !== undefined && 'manifests' in index ? choose(index) : undefined
    const found = chosen && (await this.#image(namespace, chosen))
    return found && chosen && { ...found, digest: chosen }
  }

  /** An image with a manifest that is there. @param said what may be its reference. @throws Failure missing; as Contents */
  async open(namespace: string, digest: Digest, said: string): Promise<Omit<FoundImage, 'place'>> {
    const whole = await this.#whole(namespace, digest)
    return { ...whole, reference: { ...(await this.#referenceOf(namespace, digest, said)), digest } }
  }

  async #image(namespace: string, digest: Digest): Promise<KnownImage | undefined> {
    const known = this.#known.get(digest)
    if (known !== undefined) {
      this.#known.delete(digest)
      this.#known.set(digest, known)
      return known.image
    }
    const read = await this.#read(namespace, digest)
    // of a pull under way some of it is not there yet, and of another namespace's none may be
    if (read === 'absent') return undefined
    const image = read && { manifest: read.manifest, chain: read.chain }
    this.#remember(digest, { image, bytes: read === undefined ? 0 : read.manifestBytes.length })
    return image
  }

  #remember(digest: Digest, known: Known): void {
    if (this.#known.has(digest)) return // meanwhile
    this.#known.set(digest, known)
    this.#knownBytes += known.bytes
    for (const [oldest, { bytes }] of this.#known) {
      if (this.#known.size <= KNOWN_MAX && this.#knownBytes <= KNOWN_MAX_BYTES) return
      this.#known.delete(oldest)
      this.#knownBytes -= bytes
    }
  }

  /** Undefined: it is no image that the agent could serve: an artifact, or another tool's. */
  async #read(namespace: string, digest: Digest): Promise<ReadImage | 'absent' | undefined> {
    try {
      const manifestBytes = await this.#contents.read(namespace, digest, MANIFEST_MAX_BYTES)
      if (manifestBytes === undefined) return 'absent'
      const manifest = parseManifest(manifestBytes, `manifest ${digest}`)
      if (!('layers' in manifest)) return undefined
      const configBytes = await this.#contents.read(namespace, manifest.config.digest, CONFIG_MAX_BYTES)
      if (configBytes === undefined) return 'absent'
      const { diffIds } = parseConfig(configBytes, manifest.layers.length, `config ${manifest.config.digest}`)
      return { manifest, manifestBytes, configBytes, chain: chainOf(diffIds) }
    } catch (error) {
      if (error instanceof Failure && error.code !== 'unavailable') return undefined
      throw error
    }
  }

  /** @throws Failure missing */
  async #whole(namespace: string, digest: Digest): Promise<ReadImage> {
    const read = await this.#read(namespace, digest)
    if (read !== undefined && read !== 'absent') return read
    throw Failure.missing(`manifest ${digest} is gone from namespace ${namespace}`)
  }

  /** Where the client fetched a manifest from. @param said by a label, or a name: it counts if it is one of these. */
  async #referenceOf(namespace: string, digest: Digest, said: string | undefined): Promise<RegistryReference> {
    const labels = (await this.#contents.labels(namespace, digest)) ?? {}
    const sources = Object.entries(labels).flatMap(([key, value]) =>
      key.startsWith(SOURCE) ? value.split(',').map((repository) => `${key.slice(SOURCE.length)}/${repository}`) : [],
    )
    const reference = said === undefined ? undefined : parsed(said)
    if (reference !== undefined && sources.includes(`${withoutPort(reference.host)}/${reference.repository}`))
      return reference
    const [source] = sources.flatMap((each) => parsed(each) ?? [])
    if (source === undefined) throw Failure.missing(`nothing says where manifest ${digest} was fetched from`)
    const { host, repository } = source
    return { transport: 'docker', host, repository }
  }
}

/** Chain IDs, the base first: each is the digest of the one below and a DiffID (OCI image specification, "Layer ChainID"). */
export function chainOf(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) {
    const below = chain.at(-1)
    const text = `${below} ${diffId}`
    chain.push(below === undefined ? diffId : `sha256:${createHash('sha256').update(text).digest('hex')}`)
  }
  return chain
}

function isSameUpTo(place: number, { manifest: one }: KnownImage, { manifest: other }: KnownImage): boolean {
  const layers = ({ layers }: Manifest) => JSON.stringify(layers.slice(0, place + 1))
  return layers(one) === layers(other)
}

function parsed(text: string): RegistryReference | undefined {
  try {
    return parseRegistryReference(text)
  } catch (error) {
    if (error instanceof Failure) return undefined // a label may hold anything
    throw error
  }
}

function withoutPort(host: string): string {
  return host.replace(/:\d+$/, '')
}
