// The additional layer store: what Podman and CRI-O look into before they pull a layer.
//
//   ROOT/layers/<base64 of reference>/<digest>/diff    the layer's tree, as a lower directory of overlayfs
//                                              info    what the engine needs to know of it (JSON)
//                                              blob    the exact compressed layer, fetched when read
//                                              use     never exists; creating it fails with ENOENT, as removing <digest> does
//
// Two dialects stand side by side: <digest> is the layer's (Podman up to 5.0) or its index's (after).
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { hex } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { type RegistryReference, referenceText } from '../image/reference.ts'
import { type Images, openLayers, type ResolvedImage } from '../mount/image.ts'
import type { EagerLayer, Layers, OpenLayer } from '../mount/layer.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { type ControlTree, controlNode } from '../mount/session.ts'
import { type Dialect, type DiffIdPolicy, whyHidden } from './identity.ts'
import { decodeDigest, decodeReference, encodeReference } from './names.ts'
import { LOOKUP_PATIENCE, patiently } from './patience.ts'

/** The part of a mount that the store builds. */
export interface StoreMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  graft(parent: bigint, name: string, slot: number): void
}

export interface StoreParts {
  images: Images
  layers: Layers
  /** Makes a layer's tree answer in the mount. @returns its slot */
  attach(layer: OpenLayer): number
  /** The whole verified blob of a layer in a file. */
  wholeBlob(image: ResolvedImage, descriptor: Descriptor): Promise<{ fd: number; close(): Promise<void> }>
  /**
   * Mounts a layer that was just grafted at this path from the root in the kernel, where that is done; resolves when it is, or when
   * it is not, which is logged. Undefined: it is not done here.
   */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Bytes in a file. */
  fileOf(bytes: Uint8Array): Promise<{ fd: number; close(): Promise<void> }>
  /** Puts what engines see of a layer when this agent does not run, below the mount, at this path from the root. */
  standIn(path: readonly string[]): Promise<void>
  /** Grows with every byte and request: tells a slow registry from a dead one. */
  progress(): number
  diffId: DiffIdPolicy
  log(message: string): void
}

/** What is known of a reference that an engine asked for. */
interface Known {
  reference: RegistryReference
  node: bigint
  image?: Promise<Listing>
  /** When `image` failed: asked again only after a while, so that a pull of many layers does not wait for each of them. */
  failedAt?: number
}

interface Listing {
  image: ResolvedImage
  layers: readonly Promise<OpenLayer | EagerLayer>[]
}

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
/** References are chosen by local users of the engines; each costs a directory. */
const REFERENCES_MAX = 10_000
/** How long a failure answers for later lookups of the same pull; transient errors must not stick. */
const FAILURE_TTL_MS = 3_000
/** The engine's numbers for compression (containers/storage archive.Compression). */
const GZIP = 2
const ZSTD = 4

export class AdditionalLayerStore implements ControlTree {
  static readonly DIRECTORY = 'layers'
  readonly #parts: StoreParts
  readonly #top = controlNode(AdditionalLayerStore.DIRECTORY)
  #mount: StoreMount | undefined
  readonly #references = new Map<bigint, Known>()
  readonly #blobs = new Map<bigint, { image: ResolvedImage; descriptor: Descriptor }>()
  readonly #infos = new Map<bigint, { bytes: Uint8Array; covered: Promise<void> }>()
  readonly #shownLayers = new Set<bigint>()
  /** Layers whose reason was logged: once is enough. */
  readonly #told = new Set<string>()

  constructor(parts: StoreParts) {
    this.#parts = parts
  }

  /** Puts the store into a mount that asks this object for what it does not know. */
  show(mount: StoreMount): void {
    this.#mount = mount
    mount.addDirectory(this.#top, ROOT_NODE, AdditionalLayerStore.DIRECTORY, DIRECTORY, true)
  }

  async lookup(parent: bigint, name: string): Promise<void> {
    if (parent === this.#top) {
      this.#lookupReference(name)
      return
    }
    // The directory of a layer is filled by several calls: who looked in between has us look again, now that it is whole.
    if (this.#shownLayers.has(parent)) return
    const known = this.#references.get(parent)
    const digest = decodeDigest(name)
    if (known === undefined || digest === undefined) throw Failure.missing(`${name} is not in the store`)
    await this.#lookupLayer(known, digest)
  }

  async late(node: bigint): Promise<{ fd: number; close(): Promise<void> }> {
    const info = this.#infos.get(node)
    if (info !== undefined) {
      await info.covered
      return await this.#parts.fileOf(info.bytes)
    }
    const blob = this.#blobs.get(node)
    if (blob === undefined) throw Failure.missing('no such blob')
    try {
      return await this.#parts.wholeBlob(blob.image, blob.descriptor)
    } catch (error) {
      this.#parts.log(`blob ${blob.descriptor.digest}: ${describe(error)}`)
      throw error
    }
  }

  /** Engines say when they take a layer into use and drop it; they do not repeat it after a restart, so it is only a hint. */
  hint(): void {}

  #lookupReference(name: string): void {
    const reference = decodeReference(name)
    if (reference === undefined) throw Failure.missing(`${name} is no reference`)
    if (this.#references.size >= REFERENCES_MAX) throw Failure.limit(`more than ${REFERENCES_MAX} references`)
    const node = controlNode(AdditionalLayerStore.DIRECTORY, name)
    if (!this.#references.has(node)) {
      this.#references.set(node, { reference, node })
      this.#shown.addDirectory(node, this.#top, name, DIRECTORY, true)
    }
  }

  async #lookupLayer(known: Known, digest: Digest): Promise<void> {
    const text = referenceText(known.reference)
    try {
      await patiently(this.#showLayer(known, digest), this.#parts.progress, LOOKUP_PATIENCE)
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#tell(`${text} ${digest}`, `${text}: layer ${digest} is left to the engine: ${describe(error)}`)
      throw Failure.missing(`layer ${digest} is not served`, { cause: error })
    }
  }

  async #showLayer(known: Known, digest: Digest): Promise<void> {
    const { image, layers } = await this.#listing(known, digest)
    const found = findLayer(image, digest, this.#parts.layers)
    if (found === undefined) {
      throw Failure.missing(`${referenceText(known.reference)} has no layer ${digest}`, {
        why: `manifest ${image.digest} lists no layer or index of that digest`,
      })
    }
    const hidden = whyHidden(found.dialect, this.#parts.diffId)
    const layer = await (layers[found.index] as Promise<OpenLayer | EagerLayer>) // as many as the manifest has
    if ('why' in layer) throw Failure.unsupported('it is not lazy', { why: layer.why })
    if (hidden !== undefined) throw Failure.unsupported('its identity is not proven', { why: hidden })
    await this.#parts.standIn([AdditionalLayerStore.DIRECTORY, encodeReference(known.reference), digest])
    this.#graft(known, digest, found, layer, image)
  }

  /** The image that has this layer: as kept on disk, or, where that does not list the digest, as the registry has it now. */
  async #listing(known: Known, digest: Digest): Promise<Listing> {
    const { images, layers } = this.#parts
    const failing = known.failedAt !== undefined && performance.now() - known.failedAt < FAILURE_TTL_MS
    if (known.image !== undefined) {
      const current = await known.image.catch((error) => {
        if (failing) throw error
        return undefined
      })
      if (current !== undefined && findLayer(current.image, digest, layers) !== undefined) return current
    }
    const kept = known.image === undefined ? await images.kept(known.reference) : undefined
    if (kept !== undefined && findLayer(kept, digest, layers) !== undefined) {
      known.image = Promise.resolve(this.#list(kept))
      return known.image
    }
    if (failing && known.image !== undefined) return known.image
    delete known.failedAt
    const resolving = images.resolve(known.reference).then((image) => this.#list(image))
    known.image = resolving
    resolving.catch(() => {
      known.failedAt = performance.now()
    })
    return resolving
  }

  /** Starts all layers at once, and what each wants ready first as soon as its index is there. */
  #list(image: ResolvedImage): Listing {
    const layers = openLayers(image, this.#parts.layers)
    for (const [i, opening] of layers.entries()) {
      opening.then(
        (layer) => {
          if ('why' in layer) {
            const text = referenceText(image.reference)
            this.#tell(
              `${text} ${layer.descriptor.digest}`,
              `${text}: layer ${layer.descriptor.digest} is not lazy: ${layer.why}`,
            )
          } else {
            layer
              .prefetch()
              .catch((error) => this.#parts.log(`prefetch of ${layer.descriptor.digest}: ${describe(error)}`))
          }
        },
        (error) => this.#parts.log(`layer ${image.manifest.layers[i]?.digest}: ${describe(error)}`),
      )
    }
    return { image, layers }
  }

  #graft(known: Known, digest: Digest, found: Found, layer: OpenLayer, image: ResolvedImage): void {
    const mount = this.#shown
    const node = controlNode(AdditionalLayerStore.DIRECTORY, String(known.node), digest)
    if (this.#shownLayers.has(node)) return // another lookup came first
    this.#shownLayers.add(node)
    const blob = controlNode(String(node), 'blob')
    this.#blobs.set(blob, { image, descriptor: layer.descriptor })
    const slot = this.#parts.attach(layer)
    const info = new TextEncoder().encode(JSON.stringify(this.#info(found, layer, image)))
    mount.addDirectory(node, known.node, digest, DIRECTORY, true)
    mount.graft(node, 'diff', slot)
    const infoNode = controlNode(String(node), 'info')
    if (this.#parts.cover === undefined) {
      mount.addFile(infoNode, node, 'info', FILE, info)
    } else {
      // The engine's lookup of this very directory still waits for us, so the mount, which walks the same path, is made behind it;
      // the engine reads `info` before it takes the layer, and that waits for the mount.
      const path = [AdditionalLayerStore.DIRECTORY, encodeReference(known.reference), digest, 'diff']
      this.#infos.set(infoNode, { bytes: info, covered: this.#parts.cover(layer, path) })
      mount.addLate(infoNode, node, 'info', FILE, info.length)
    }
    mount.addLate(blob, node, 'blob', FILE, layer.descriptor.size)
  }

  /** Field names are containers/storage's. An unproven DiffID is given only where the policy believes it. */
  #info(found: Found, layer: OpenLayer, image: ResolvedImage): Record<string, unknown> {
    const diffId = image.config.diffIds[found.index] as Digest // parseConfig: one a layer
    const info: Record<string, unknown> = {
      id: hex(layer.descriptor.digest),
      'compressed-diff-digest': layer.descriptor.digest,
      'compressed-size': layer.descriptor.size,
      'diff-size': layer.tarSize ?? layer.chunks.deviceSize,
      compression: layer.descriptor.mediaType.endsWith('zstd') ? ZSTD : GZIP,
    }
    if (found.dialect === 'layer') return { ...info, 'diff-digest': diffId }
    return { ...info, 'toc-digest': layer.indexDigest, flags: { 'expected-layer-diffid': diffId } }
  }

  #tell(key: string, message: string): void {
    if (this.#told.has(key)) return
    this.#told.add(key)
    this.#parts.log(message)
  }

  get #shown(): StoreMount {
    if (this.#mount === undefined) throw new TypeError('a lookup before the store was mounted')
    return this.#mount
  }
}

interface Found {
  index: number
  dialect: Dialect
}

/** The layer that bears `digest` itself, or whose index claims it (opening the layer proves that). */
function findLayer(image: ResolvedImage, digest: Digest, layers: Layers): Found | undefined {
  for (const [index, descriptor] of image.manifest.layers.entries()) {
    if (descriptor.digest === digest) return { index, dialect: 'layer' }
    const format = layers.format(descriptor)
    if (!('why' in format) && format.indexDigest({ descriptor }) === digest) return { index, dialect: 'index' }
  }
  return undefined
}
