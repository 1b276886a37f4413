// The additional layer store: what Podman and CRI-O look into before they pull a layer.
//
//   ROOT/layers/<base64 of reference>/<digest>/diff    the layer's tree, as a lower directory of overlayfs
//                                              info    what the engine needs to know of it (JSON)
//                                              blob    the exact compressed layer, fetched when read
//                                              use     never exists; creating it fails with ENOENT, as removing <digest> does
//
// A layer that is found to lie loses its files at once: nothing is left of it but an empty file as its `diff`.
//
// Two dialects stand side by side: <digest> is the layer's (Podman up to 5.0) or its index's (after).
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import { hex } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import { type EagerLayer, type Layers, type OpenLayer, refusal } from '../layer/layer.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { type ControlTree, controlNode, type LateFile } from '../mount/session.ts'
import { isOf, type Quarantine } from '../proof/quarantine.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import { AskedImage, type Found, type Listing, type Resolver } from './asked-image.ts'
import type { Asker } from './asker.ts'
import { compressionOf, tarSizeOf } from './facts.ts'
import { type Believe, diffIdOf } from './identity.ts'
import { decodeDigest, decodeReference } from './names.ts'
import { LOOKUP_PATIENCE, patiently } from './patience.ts'

/** The part of a mount that the store builds. */
export interface StoreMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  graft(parent: bigint, name: string, slot: number): void
  remove(parent: bigint, name: string): void
}

export interface StoreParts {
  images: Resolver
  layers: LayerOpener & Pick<Layers, 'prove' | 'everProven' | 'everRefuted'>
  quarantine: Pick<Quarantine, 'of' | 'watch'>
  /** Makes a layer's tree answer in the mount at this path from the root. @returns its slot there */
  attach(layer: OpenLayer, path: readonly string[]): Promise<number>
  /** The whole verified blob of a layer in a file. */
  wholeBlob(layer: OpenLayer, blob: StoredBlob): Promise<LateFile>
  /**
   * Mounts a layer that was just grafted at this path from the root in the kernel, where that is done; resolves when it is, or when
   * it is not, which is logged. Undefined: it is not done here.
   */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void
  /**
   * An engine says that it takes the layer at this path into use, or drops it; after the latter the kernel has detached what was
   * mounted there.
   */
  hint(op: 'use' | 'drop', path: readonly string[]): void
  /** Bytes in a file. */
  fileOf(bytes: Uint8Array): Promise<LateFile>
  /** Whose lookup of what is not known yet it is: registries may be asked for that. */
  asker: Asker
  /** Puts what engines see of a layer when this agent does not run, below the mount, at this path from the root. */
  standIn(path: readonly string[]): Promise<void>
  /** Whether that was done, in this life or an earlier one. */
  hasStandIn(path: readonly string[]): Promise<boolean>
  /** Grows with every byte and request: tells a slow registry from a dead one. */
  progress(): number
  believe: Believe
  /** Whether layers are found by their indexes; if not, those that were in an earlier life still are. */
  byIndex: boolean
  log(message: string): void
}

/** A layer's directory: `name` in that of a reference. */
interface Shown {
  known: Known
  name: Digest
  /** Undefined: it is quarantined, and has no files. */
  layer: OpenLayer | undefined
}

/** A reference that an engine asked for. */
interface Known {
  node: bigint
  /** Of its directory, as the engine wrote it. */
  name: string
  /** The reference, for messages. */
  text: string
  asked: AskedImage
}

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
/** References are chosen by whoever may look into the store; each costs a directory. */
const REFERENCES_MAX = 10_000
/** Whoever is not root leaves root this much room. */
const REFERENCES_MAX_OF_OTHERS = REFERENCES_MAX / 2
/** Messages that are not repeated. Local users choose the digests they are about, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalLayerStore implements ControlTree {
  static readonly DIRECTORY = 'layers'
  readonly #parts: StoreParts
  readonly #top = controlNode(AdditionalLayerStore.DIRECTORY)
  #mount: StoreMount | undefined
  readonly #references = new Map<bigint, Known>()
  readonly #blobs = new Map<bigint, { layer: OpenLayer; blob: StoredBlob }>()
  readonly #infos = new Map<bigint, { bytes: Uint8Array; covered: Promise<void> }>()
  /** By the node of its directory. */
  readonly #shownLayers = new Map<bigint, Shown>()
  /** What was logged: once is enough. */
  readonly #told = new Set<string>()

  constructor(parts: StoreParts) {
    this.#parts = parts
    parts.quarantine.watch((claim) => this.#withdraw(claim))
  }

  /** Puts the store into a mount that asks this object for what it does not know. */
  show(mount: StoreMount): void {
    this.#mount = mount
    mount.addDirectory(this.#top, ROOT_NODE, AdditionalLayerStore.DIRECTORY, DIRECTORY, true)
  }

  async lookup(parent: bigint, name: string, uid: number): Promise<void> {
    if (parent === this.#top) {
      await this.#lookupReference(name, uid)
      return
    }
    // The directory of a layer is filled by several calls: who looked in between has us look again, now that it is whole.
    if (this.#shownLayers.has(parent)) return
    const known = this.#references.get(parent)
    const digest = decodeDigest(name)
    if (known === undefined || digest === undefined) throw Failure.missing(`${name} is not in the store`)
    this.#admit(uid)
    await this.#lookupLayer(known, digest)
  }

  async late(node: bigint): Promise<LateFile> {
    const info = this.#infos.get(node)
    if (info !== undefined) {
      await info.covered
      return await this.#parts.fileOf(info.bytes)
    }
    const found = this.#blobs.get(node)
    if (found === undefined) throw Failure.missing('no such blob')
    try {
      return await this.#parts.wholeBlob(found.layer, found.blob)
    } catch (error) {
      this.#parts.log(`blob ${found.blob.digest}: ${describe(error)}`)
      throw error
    }
  }

  /**
   * Engines say when they take a layer into use and drop it; they do not repeat it after a restart, so it is only a hint. But the
   * kernel takes the answer to a removal at its word.
   */
  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void {
    if (op === 'create') {
      const shown = name === 'use' ? this.#shownLayers.get(parent) : undefined
      if (shown !== undefined) this.#parts.hint('use', diffOf(shown.known, shown.name))
      return
    }
    const known = this.#references.get(parent)
    if (known !== undefined) this.#parts.hint('drop', diffOf(known, name))
  }

  /** What is refused is logged by whoever counts. */
  #admit(uid: number): 'root' | 'user' {
    const asker = this.#parts.asker(uid)
    if (asker === 'refused') throw Failure.missing(`user ${uid} asks too often`)
    return asker
  }

  async #lookupReference(name: string, uid: number): Promise<void> {
    const reference = decodeReference(name)
    if (reference === undefined) throw Failure.missing(`${name} is no reference`)
    const node = controlNode(AdditionalLayerStore.DIRECTORY, name)
    if (this.#references.has(node)) return
    const most = this.#admit(uid) === 'root' ? REFERENCES_MAX : REFERENCES_MAX_OF_OTHERS
    if (this.#references.has(node)) return // another lookup came first
    if (this.#references.size >= most) {
      this.#tell(`more than ${most} references were asked for; those that come now are left to the engine`)
      throw Failure.missing(`${name} is one reference too many`)
    }
    const { images, layers } = this.#parts
    const asked = new AskedImage(reference, images, layers, (...opening) => void this.#opened(...opening)) // logs its own errors
    this.#shown.addDirectory(node, this.#top, name, DIRECTORY, true)
    this.#references.set(node, { node, name, text: referenceText(reference), asked })
  }

  async #lookupLayer(known: Known, digest: Digest): Promise<void> {
    try {
      await patiently(this.#showLayer(known, digest), this.#parts.progress, LOOKUP_PATIENCE)
    } catch (error) {
      // what came of it was told, or will be; that it takes too long is known only here
      if (error instanceof Failure && error.code === 'timeout') this.#leave(known.text, digest, error)
      throw Failure.missing(`layer ${digest} is not served`, { cause: error })
    }
  }

  /** Also goes on when nobody waits any more. @throws Failure missing; why was logged */
  async #showLayer(known: Known, digest: Digest): Promise<void> {
    let layer = digest
    try {
      const listing = await known.asked.listing(digest)
      const found = listing?.find(digest)
      if (listing === undefined || found === undefined) {
        throw Failure.missing('the image has no such layer', {
          why: `manifest ${listing?.image.digest} lists no layer or index of that digest`,
        })
      }
      layer = found.descriptor.digest
      await this.#showFound(known, digest, found, listing)
    } catch (error) {
      this.#leave(known.text, layer, error)
      if (await this.#wasWithdrawn(known, digest, layer, error)) this.#showEmpty(known, digest)
      else throw Failure.missing(`layer ${digest} is not served`, { cause: error })
    }
  }

  /** Whether a layer that is not served for its quarantine was shown before it: engines may hold on to that. */
  async #wasWithdrawn(known: Known, name: Digest, blob: Digest, error: unknown): Promise<boolean> {
    if (!(error instanceof Failure) || error.code !== 'corrupt') return false
    if (!(await this.#parts.layers.everRefuted(blob).catch(() => false))) return false
    return await this.#parts.hasStandIn(layerPath(known, name))
  }

  async #showFound(known: Known, digest: Digest, found: Found, listing: Listing): Promise<void> {
    const { descriptor, index, dialect } = found
    const { layers } = this.#parts
    const byDiffId = dialect === 'layer'
    const believed = byDiffId ? await this.#parts.believe(listing.image) : 'it is asked for by its index'
    const wasShown = await this.#parts.hasStandIn(layerPath(known, digest))
    if (!byDiffId && !this.#parts.byIndex && !wasShown) {
      throw nameless('no layer is named by its index here (serve --diffid-only)')
    }
    if (byDiffId && believed !== true && !wasShown && !(await layers.everProven(descriptor.digest))) {
      // said before anything is opened: the engine will fetch all of it
      throw nameless(believed)
    }
    let layer = await listing.open(found)
    // what an engine took into use in an earlier life, and what was made of its bytes is lost, is read whole again
    if (byDiffId && wasShown && 'why' in layer) {
      layer = await openLayer(listing.image, descriptor, layers, { fetchWhole: true })
    }
    if ('why' in layer) throw notLazy(layer)
    if (byDiffId && wasShown && believed !== true && (await layer.verdict()) === undefined) {
      await layers.prove(layer, listing.image.blob(descriptor))
    }
    // it may have been opened with the rest of its image before it was read whole
    const verdict = await layer.verdict()
    if (verdict?.verdict === 'refuted') throw refusal(descriptor, verdict)
    if (byDiffId) {
      const diffId = listing.image.config.diffIds[index] as Digest // parseConfig: one a layer
      const name = await diffIdOf(layer, diffId, believed)
      if ('why' in name) throw nameless(name.why)
    }
    const size = await tarSizeOf(layer)
    await this.#parts.standIn(layerPath(known, digest))
    const slot = await this.#parts.attach(layer, diffOf(known, digest))
    this.#graft(known, digest, found, layer, listing.image, slot, size)
  }

  /** Has what a layer wants ready first fetched as soon as its index is there. */
  async #opened(image: ResolvedImage, descriptor: Descriptor, opening: Promise<OpenLayer | EagerLayer>): Promise<void> {
    try {
      const layer = await opening
      if ('why' in layer) throw notLazy(layer)
      await layer.prefetch()
    } catch (error) {
      this.#leave(referenceText(image.reference), descriptor.digest, error)
    }
  }

  #graft(
    known: Known,
    digest: Digest,
    found: Found,
    layer: OpenLayer,
    image: ResolvedImage,
    slot: number,
    size: number,
  ): void {
    const mount = this.#shown
    const { descriptor } = found
    // the verdict may have fallen since the layer was opened; from here on it is withdrawn
    const refutation = this.#parts.quarantine.of(layer)
    if (refutation !== undefined) throw refusal(descriptor, refutation)
    const node = layerNodeOf(known, digest)
    if (this.#shownLayers.has(node)) return // another lookup came first
    const info = new TextEncoder().encode(JSON.stringify(infoOf(found, layer, image, size)))
    const path = diffOf(known, digest)
    this.#shownLayers.set(node, { known, name: digest, layer }) // from here on nothing fails but by a fault of ours
    const blob = blobNodeOf(node)
    this.#blobs.set(blob, { layer, blob: image.blob(descriptor) })
    mount.addDirectory(node, known.node, digest, DIRECTORY, true)
    mount.graft(node, 'diff', slot)
    const infoNode = infoNodeOf(node)
    if (!this.#hasInfo(digest, layer)) {
      void this.#parts.cover?.(layer, path)
    } else if (this.#parts.cover === undefined) {
      mount.addFile(infoNode, node, 'info', FILE, info)
    } else {
      // The engine's lookup of this very directory still waits for us, so the mount, which walks the same path, is made behind it;
      // the engine reads `info` before it takes the layer, and that waits for the mount.
      this.#infos.set(infoNode, { bytes: info, covered: this.#parts.cover(layer, path) })
      mount.addLate(infoNode, node, 'info', FILE, info.length)
    }
    mount.addLate(blob, node, 'blob', FILE, descriptor.size)
  }

  /** A layer without `info` is none to whoever would take it into use; who does already reads it no more. */
  #hasInfo(name: Digest, { indexDigest }: OpenLayer): boolean {
    return this.#parts.byIndex || name !== indexDigest
  }

  /** Takes the files of a layer that lies away, in every reference and dialect. */
  #withdraw(claim: Claim): void {
    for (const [node, { known, name, layer }] of this.#shownLayers) {
      if (layer === undefined || !isOf(claim, layer)) continue
      this.#shownLayers.set(node, { known, name, layer: undefined })
      this.#blobs.delete(blobNodeOf(node))
      this.#infos.delete(infoNodeOf(node))
      for (const each of ['diff', 'blob', ...(this.#hasInfo(name, layer) ? ['info'] : [])]) {
        this.#shown.remove(node, each)
      }
      this.#putFile(node)
      this.#parts.uncover(diffOf(known, name))
    }
  }

  /** Shows a quarantined layer as the one that it was withdrawn from, for engines that took it into use in an earlier life. */
  #showEmpty(known: Known, name: Digest): void {
    const node = layerNodeOf(known, name)
    if (this.#shownLayers.has(node)) return
    this.#shownLayers.set(node, { known, name, layer: undefined })
    this.#shown.addDirectory(node, known.node, name, DIRECTORY, true)
    this.#putFile(node)
  }

  /**
   * Engines sum up sizes of images by walking `diff`, and fail as a whole where it is missing; a file is what no overlay mounts. A layer
   * without `info` is none to whoever would take it into use, and is pulled.
   */
  #putFile(node: bigint): void {
    this.#shown.addFile(controlNode(String(node), 'no files'), node, 'diff', FILE, new Uint8Array())
  }

  #leave(reference: string, layer: Digest, error: unknown): void {
    this.#tell(`${reference}: layer ${layer} is left to the engine: ${describe(error)}`)
  }

  #tell(message: string): void {
    if (this.#told.has(message)) return
    if (this.#told.size >= TOLD_MAX) this.#told.clear()
    this.#told.add(message)
    this.#parts.log(message)
  }

  get #shown(): StoreMount {
    if (this.#mount === undefined) throw new TypeError('a lookup before the store was mounted')
    return this.#mount
  }
}

/**
 * Field names are containers/storage's. A DiffID is given only to who asks by it. Whatever is a claim is this image's own, not that of
 * another image with the same layer.
 */
function infoOf({ index, descriptor, dialect }: Found, layer: OpenLayer, image: ResolvedImage, size: number): object {
  const diffId = image.config.diffIds[index] as Digest // parseConfig: one a layer
  const info = { id: hex(descriptor.digest), 'diff-size': size, compression: compressionOf(descriptor) }
  if (dialect === 'index') {
    // no digest of the blob: an engine that finds the layer by it in another image wants a DiffID with it, and fails without
    return {
      ...info,
      'compressed-size': descriptor.size,
      'toc-digest': layer.indexDigest,
      flags: { 'expected-layer-diffid': diffId },
    }
  }
  return {
    ...info,
    'compressed-diff-digest': descriptor.digest,
    'compressed-size': descriptor.size,
    'diff-digest': diffId,
  }
}

function layerNodeOf({ node }: Known, name: Digest): bigint {
  return controlNode(AdditionalLayerStore.DIRECTORY, String(node), name)
}

function blobNodeOf(layer: bigint): bigint {
  return controlNode(String(layer), 'blob')
}

function infoNodeOf(layer: bigint): bigint {
  return controlNode(String(layer), 'info')
}

/** From the root. */
function layerPath(known: Known, name: string): string[] {
  return [AdditionalLayerStore.DIRECTORY, known.name, name]
}

function diffOf(known: Known, name: string): string[] {
  return [...layerPath(known, name), 'diff']
}

function nameless(why: string): Failure {
  return Failure.unsupported('its identity is not proven', { why })
}

function notLazy({ why }: EagerLayer): Failure {
  return Failure.unsupported('it is not lazy', { why })
}
