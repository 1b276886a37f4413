// Finds the image that a client of containerd wants a layer of. The client has fetched its manifest and config into containerd's content
// store by then, so that the agent asks no registry for them. Labels say which image it is, where clients send any; but an image can write
// labels, too. So they only choose among manifests that are in the client's own namespace: the layer must stand there, in a chain of
// DiffIDs that comes to the target; and its repository is one that the client fetched the manifest from.
import { Failure } from '../errors.ts'
import { BUILDKIT_LAYER_DIGEST } from '../format/engine-index.ts'
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
import { type RegistryPorts, withoutPort } from './registry-ports.ts'
import type { Labels } from './snapshot.ts'
import { buildKitTargetsOf, chainOf, unboundIn } from './targets.ts'

/** A manifest of the content store that has a layer for the target. */
export interface FoundImage {
  readonly reference: RegistryReference & { digest: Digest }
  readonly manifest: Manifest
  readonly manifestBytes: Uint8Array
  readonly configBytes: Uint8Array
  /** What the client calls its layers, the base first: chain IDs, if nothing else is known. */
  readonly chain: readonly string[]
  /** Of the layer among them. */
  readonly place: number
  /** Places of layers that the client knows by their DiffIDs alone, and compares with nobody's: none is shown before it is proven. */
  readonly toProve?: ReadonlySet<number>
}

export type KnownImage = Pick<FoundImage, 'manifest' | 'chain'>

interface NamedImage extends KnownImage {
  /** What BuildKit may call its layers instead. */
  readonly buildKit: readonly string[]
}

type ReadImage = Omit<FoundImage, 'reference' | 'place'>

interface Known {
  readonly image: NamedImage | undefined
  readonly bytes: number
}

const IMAGE_REF = 'containerd.io/snapshot/cri.image-ref'
const MANIFEST_DIGEST = 'containerd.io/snapshot/cri.manifest-digest'
const LAYER_DIGEST = 'containerd.io/snapshot/cri.layer-digest'
/** Manifests of an index; images for all platforms that there are have some dozens. */
const PLATFORMS_MAX = 100
/** Of a manifest's content: behind it the host, without its port; the value is repositories, comma separated. */
export const SOURCE = 'containerd.io/distribution.source.'
/** Manifests that are remembered; each has some KiB. */
const KNOWN_MAX = 4_096
/** Of all of them as they were read: nobody's manifests fill the memory. */
const KNOWN_MAX_BYTES = 32 << 20

export class ImageFinder {
  readonly #contents: Contents
  readonly #ports: Pick<RegistryPorts, 'hostOf'>
  /** By digest, which their bytes had; an image of undefined: it is none. The one used last comes last. */
  readonly #known = new Map<Digest, Known>()
  #knownBytes = 0

  constructor(contents: Contents, ports: Pick<RegistryPorts, 'hostOf'>) {
    this.#contents = contents
    this.#ports = ports
  }

  /**
   * The image with a layer for this target.
   * @param labels as the client sent them
   * @throws Failure missing: there is none; unsupported: two differ in that layer, or those below; as Contents
   */
  async find(namespace: string, target: string, labels: Labels): Promise<FoundImage> {
    const candidates = (await this.#named(namespace, labels)) ?? (await this.#contents.manifests(namespace))
    const found: { digest: Digest; image: NamedImage; chain: readonly string[]; place: number }[] = []
    for (const digest of candidates) {
      const image = await this.#image(namespace, digest)
      const chain = [image?.chain, image?.buildKit].find((each) => each?.includes(target))
      if (image === undefined || chain === undefined) continue
      const place = chain.indexOf(target)
      const layer = labels[LAYER_DIGEST] ?? labels[BUILDKIT_LAYER_DIGEST]
      if (layer === undefined || image.manifest.layers[place]?.digest === layer)
        found.push({ digest, image, chain, place })
    }
    const [first] = found
    if (first === undefined) throw Failure.missing(`no image in namespace ${namespace} has a layer for ${target}`)
    if (found.some(({ image }) => !isSameUpTo(first.place, image, first.image)))
      throw Failure.unsupported(`images in namespace ${namespace} have different layers for ${target}`)
    const { digest, place, chain } = found.at(-1) ?? first
    const whole = await this.#whole(namespace, digest)
    const reference = await this.#referenceOf(namespace, digest, labels[IMAGE_REF])
    const byBuildKit = found.some(({ image }) => chain === image.buildKit)
    const toProve = byBuildKit ? { toProve: unboundIn(whole.manifest) } : {}
    return { ...whole, ...toProve, chain, place, reference: { ...reference, digest } }
  }

  /** Manifests that labels name, as far as they are there; undefined: none is. */
  async #named(namespace: string, labels: Labels): Promise<Digest[] | undefined> {
    const isThere = async (digest: unknown): Promise<Digest | undefined> =>
      isDigest(digest) && (await this.#contents.labels(namespace, digest)) !== undefined ? digest : undefined
    const manifest = await isThere(labels[MANIFEST_DIGEST])
    if (manifest !== undefined) return [manifest]
    // BuildKit sends no digest but that of what the reference means, which may be an index
    const target = await isThere(parsed(labels[IMAGE_REF] ?? '')?.digest)
    if (target === undefined) return undefined
    const bytes = await this.#contents.read(namespace, target, MANIFEST_MAX_BYTES)
    const index = bytes && parseManifest(bytes, `image ${target}`)
    if (index === undefined || !('manifests' in index)) return [target]
    const there = await Promise.all(index.manifests.slice(0, PLATFORMS_MAX).map(({ digest }) => isThere(digest)))
    return there.filter((each) => each !== undefined)
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

  async #image(namespace: string, digest: Digest): Promise<NamedImage | undefined> {
    const known = this.#known.get(digest)
    if (known !== undefined) {
      this.#known.delete(digest)
      this.#known.set(digest, known)
      return known.image
    }
    const read = await this.#read(namespace, digest)
    // of a pull under way some of it is not there yet, and of another namespace's none may be
    if (read === 'absent') return undefined
    const image = read && { manifest: read.manifest, chain: read.chain, buildKit: read.buildKit }
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
  async #read(namespace: string, digest: Digest): Promise<(ReadImage & NamedImage) | 'absent' | undefined> {
    try {
      const manifestBytes = await this.#contents.read(namespace, digest, MANIFEST_MAX_BYTES)
      if (manifestBytes === undefined) return 'absent'
      const manifest = parseManifest(manifestBytes, `manifest ${digest}`)
      if (!('layers' in manifest)) return undefined
      const configBytes = await this.#contents.read(namespace, manifest.config.digest, CONFIG_MAX_BYTES)
      if (configBytes === undefined) return 'absent'
      const { diffIds } = parseConfig(configBytes, manifest.layers.length, `config ${manifest.config.digest}`)
      const targets = { chain: chainOf(diffIds), buildKit: buildKitTargetsOf(manifest, diffIds) }
      return { manifest, manifestBytes, configBytes, ...targets }
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
    return { transport: 'docker', host: await this.#ports.hostOf(host, repository), repository }
  }
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
