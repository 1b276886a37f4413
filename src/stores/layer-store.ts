// The additional layer store: what Podman and CRI-O look into before they pull a layer.
//
//   ROOT/layers/<base64 of reference>/<digest>/diff    the layer's tree, as a lower directory of overlayfs
//                                              info    what the engine needs to know of it (JSON)
//                                              blob    the exact compressed layer, fetched when read
//                                              use     never exists; creating it fails with ENOENT, as removing <digest> does
//
// A layer that is found to lie loses its files at once: nothing is left of it but an empty file as its `diff`.
// References and layers that nobody uses leave, and are there again when somebody looks: IDs of their nodes follow from their names.
//
// Two dialects stand side by side: <digest> is the layer's (Podman up to 5.0) or its index's (after).
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import { referenceText } from '../image/reference.ts'
import { type LayerOpener, openLayer, type ResolvedImage } from '../layer/image.ts'
import { type EagerLayer, type LayerLease, type OpenLayer, refusal } from '../layer/layer.ts'
import type { Layers } from '../layer/layers.ts'
import { mapLimited } from '../limit.ts'
import type { Door } from '../mount/doors.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { controlNode, type LateFile } from '../mount/session.ts'
import { isOf, type Quarantine } from '../proof/quarantine.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Claim } from '../store/proofs.ts'
import { AskedImage, type AskedLayer, type ImageLayers, type Resolver } from './asked-image.ts'
import { decodeDigest, decodeReference } from './asked-names.ts'
import type { Asker } from './asker.ts'
import { tarSizeOf } from './facts.ts'
import { diffIdOf, type TrustsDiffIds } from './identity.ts'
import { infoOf } from './layer-info.ts'
import { LOOKUP_PATIENCE, patiently } from './patience.ts'
import { type Known, References } from './references.ts'

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
  /** Makes a layer's tree answer in the mount at this path from the root, and holds the layer open. @returns its slot there */
  attach(layer: LayerLease, path: readonly string[]): Promise<number>
  /** Ends that: nothing shows that slot any more. */
  release(slot: number): void
  /** The paths from the root of layers that overlays are made of. */
  inUse(): Promise<Set<string>>
  /** Whether nobody uses a layer that is shown in this directory, overlays or others; then it is not covered any more. */
  isFree(slot: number, directory: bigint): Promise<boolean>
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
  trustsDiffIds: TrustsDiffIds
  /** Whether layers are found by their indexes; if not, those that were in an earlier life still are. */
  byIndex: boolean
  /** Milliseconds of a clock that only goes forward. */
  now(): number
  log(message: string): void
}

/** A layer's directory: `name` in that of a reference. */
interface Shown {
  readonly known: Known
  readonly name: Digest
  /** Undefined: it is quarantined, and has no files. */
  layer: OpenLayer | undefined
  /** In which its files are; undefined: it has none. */
  slot: number | undefined
  /** When it was last known to be used. */
  usedAt: number
  /** Lets its reference leave. */
  readonly end: () => void
}

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
/** Layers that are shown, all in use: a node runs some hundred containers, and an image has some ten layers. */
const SHOWN_MAX = 10_000
/** Of those, so many stay though nobody uses them: what is pulled and not run, what engines walk through to list their images. */
const UNUSED_MAX = 500
/** An engine that pulls has not yet made an overlay of what it was shown. */
const YOUNG_MS = 120_000
/** Nobody came back for it. */
const OLD_MS = 24 * 3_600_000
/** A reference of which nothing is shown: its next lookup costs no more than the first. */
const IDLE_MS = 3_600_000
/** That many are looked at at once. */
const FREED_AT_ONCE = 8
/** Messages that are not repeated. Local users choose the digests they are about, so they are forgotten from time to time. */
const TOLD_MAX = 10_000

export class AdditionalLayerStore implements Door {
  static readonly DIRECTORY = 'layers'
  readonly #parts: StoreParts
  readonly #shownMax: number
  readonly #top = controlNode(AdditionalLayerStore.DIRECTORY)
  #mount: StoreMount | undefined
  readonly #references: References
  readonly #blobs = new Map<bigint, { layer: OpenLayer; blob: StoredBlob }>()
  readonly #infos = new Map<bigint, { bytes: Uint8Array; covered: Promise<void> }>()
  /** By the node of its directory. */
  readonly #shownLayers = new Map<bigint, Shown>()
  /** What was logged: once is enough. */
  readonly #told = new Set<string>()
  /** Whether it was said that no more layers are shown, since there was room. */
  #isFull = false

  /** @param shownMax layers that are shown at a time */
  constructor(parts: StoreParts, shownMax = SHOWN_MAX) {
    this.#parts = parts
    this.#shownMax = shownMax
    this.#references = new References((known) => this.#shown.remove(this.#top, known.name), parts.now)
    parts.quarantine.watch((claim) => this.#withdraw(claim))
  }

  /** Puts the store into a mount that asks this object for what it does not know. */
  show(mount: StoreMount): void {
    this.#mount = mount
    mount.addDirectory(this.#top, ROOT_NODE, AdditionalLayerStore.DIRECTORY, DIRECTORY, true)
  }

  owns(node: bigint): boolean {
    if (node === this.#top || this.#references.get(node) !== undefined || this.#shownLayers.has(node)) return true
    return this.#blobs.has(node) || this.#infos.has(node)
  }

  async lookup(parent: bigint, name: string, pid: number): Promise<void> {
    if (parent === this.#top) {
      await this.#lookupReference(name, pid)
      return
    }
    // The directory of a layer is filled by several calls: who looked in between has us look again, now that it is whole.
    if (this.#shownLayers.has(parent)) return
    const known = this.#references.get(parent)
    const digest = decodeDigest(name)
    if (known === undefined || digest === undefined) throw Failure.missing(`${name} is not in the store`)
    const end = this.#references.use(known)
    try {
      await this.#admit(pid)
      await this.#lookupLayer(known, digest)
    } finally {
      end()
    }
  }

  /** References and layers that are here. */
  get size(): { references: number; layers: number } {
    return { references: this.#references.size, layers: this.#shownLayers.size }
  }

  /**
   * Has references and layers leave that nobody uses: those beyond what is kept, the least recently used first, and those that nobody
   * came back for. To be called from time to time.
   * @throws what reading the mount table throws
   */
  async letGo(): Promise<void> {
    const { now } = this.#parts
    this.#references.expire(IDLE_MS, YOUNG_MS)
    const used = await this.#parts.inUse()
    const unused: [bigint, Shown][] = []
    for (const [node, shown] of this.#shownLayers) {
      if (used.has(diffOf(shown.known, shown.name).join('/'))) shown.usedAt = now()
      else unused.push([node, shown])
    }
    unused.sort(([, one], [, other]) => one.usedAt - other.usedAt)
    const beyond = unused.length - UNUSED_MAX
    const leaving = unused.filter(([, { usedAt }], i) => now() - usedAt > (i < beyond ? YOUNG_MS : OLD_MS))
    await mapLimited(leaving, FREED_AT_ONCE, async ([node, shown]) => {
      try {
        await this.#letGoOf(node, shown)
      } catch (error) {
        this.#tell(`a layer that nobody uses stays: ${describe(error)}`)
      }
    })
  }

  async #letGoOf(node: bigint, shown: Shown): Promise<void> {
    const { slot, usedAt } = shown
    if (slot !== undefined && !(await this.#parts.isFree(slot, node))) {
      shown.usedAt = this.#parts.now()
      return
    }
    if (this.#shownLayers.get(node) !== shown || shown.slot !== slot) return // it was withdrawn meanwhile
    if (shown.usedAt !== usedAt) {
      if (shown.layer !== undefined) void this.#parts.cover?.(shown.layer, diffOf(shown.known, shown.name))
      return
    }
    this.#forgetFiles(node)
    this.#shownLayers.delete(node)
    this.#shown.remove(shown.known.node, shown.name)
    if (slot !== undefined) this.#parts.release(slot)
    shown.end()
    this.#isFull = false
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
      if (shown === undefined) return
      shown.usedAt = this.#parts.now()
      this.#parts.hint('use', diffOf(shown.known, shown.name))
      return
    }
    const known = this.#references.get(parent)
    if (known !== undefined) this.#parts.hint('drop', diffOf(known, name))
  }

  /** Who asks. What is refused is logged by whoever counts. */
  async #admit(pid: number): Promise<number> {
    const asker = await this.#parts.asker(pid)
    if (asker === 'refused') throw Failure.missing(`process ${pid} is of a user who asks too often`)
    return asker
  }

  async #lookupReference(name: string, pid: number): Promise<void> {
    const reference = decodeReference(name)
    if (reference === undefined) throw Failure.missing(`${name} is no reference`)
    const node = controlNode(AdditionalLayerStore.DIRECTORY, name)
    if (this.#references.get(node) !== undefined) return
    const user = await this.#admit(pid)
    if (this.#references.get(node) !== undefined) return // another lookup came first
    const { images, layers } = this.#parts
    const asked = new AskedImage(reference, images, layers, (...opening) => void this.#opened(...opening)) // logs its own errors
    this.#shown.addDirectory(node, this.#top, name, DIRECTORY, true)
    this.#references.add({ node, name, text: referenceText(reference), asked, user })
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
    const end = this.#references.use(known)
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
    } finally {
      end()
    }
  }

  /** Whether a layer that is not served for its quarantine was shown before it: engines may hold on to that. */
  async #wasWithdrawn(known: Known, name: Digest, blob: Digest, error: unknown): Promise<boolean> {
    if (!(error instanceof Failure) || error.code !== 'corrupt') return false
    if (!(await this.#parts.layers.everRefuted(blob).catch(() => false))) return false
    return await this.#parts.hasStandIn(layerPath(known, name))
  }

  async #showFound(known: Known, digest: Digest, found: AskedLayer, listing: ImageLayers): Promise<void> {
    const { descriptor, index, dialect } = found
    const { layers } = this.#parts
    const byDiffId = dialect === 'layer'
    const believed = byDiffId ? await this.#parts.trustsDiffIds(listing.image) : 'it is asked for by its index'
    const wasShown = await this.#parts.hasStandIn(layerPath(known, digest))
    if (!byDiffId && !this.#parts.byIndex && !wasShown) {
      throw nameless('no layer is named by its index here (serve --diffid-only)')
    }
    if (byDiffId && believed !== true && !wasShown && !(await layers.everProven(descriptor.digest))) {
      // said before anything is opened: the engine will fetch all of it
      throw nameless(believed)
    }
    const layer = await this.#open(found, listing, byDiffId && wasShown)
    try {
      if (byDiffId && wasShown && believed !== true && (await layer.verdict()) === undefined) {
        await layers.prove(layer, listing.image.blob(descriptor))
      }
      // it may have been opened with the rest of its image before it was read whole
      const verdict = await layer.verdict()
      if (verdict?.verdict === 'refuted') throw refusal(descriptor, verdict)
      if (byDiffId) {
        const diffId = listing.image.config.diffIds[index] as Digest // parseConfig: one a layer
        const name = diffIdOf({ verdict, together: layer.together }, diffId, believed)
        if ('why' in name) throw nameless(name.why)
      }
      const size = await tarSizeOf(layer)
      await this.#parts.standIn(layerPath(known, digest))
      const slot = await this.#parts.attach(layer, diffOf(known, digest))
      let isShown = false
      try {
        isShown = this.#graft(known, digest, found, layer, listing.image, slot, size)
      } finally {
        if (!isShown) this.#parts.release(slot)
      }
    } finally {
      await layer.close() // what is shown is held by the mount
    }
  }

  /** @param whole whether it is read whole if need be. @throws Failure as Layers.open; unsupported: it is not lazy */
  async #open(found: AskedLayer, listing: ImageLayers, whole: boolean): Promise<LayerLease> {
    const layer = await listing.open(found)
    if (!('why' in layer)) return layer
    // what an engine took into use in an earlier life, and what was made of its bytes is lost, is read whole again
    if (!whole) throw notLazy(layer)
    const again = await openLayer(listing.image, found.descriptor, this.#parts.layers, { fetchWhole: true })
    if ('why' in again) throw notLazy(again)
    return again
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

  /** @returns false when it is shown already. @throws Failure corrupt, limit: it is not to be shown */
  #graft(
    known: Known,
    digest: Digest,
    found: AskedLayer,
    layer: OpenLayer,
    image: ResolvedImage,
    slot: number,
    size: number,
  ): boolean {
    const mount = this.#shown
    const { descriptor } = found
    const node = layerNodeOf(known, digest)
    if (this.#shownLayers.has(node)) return false // another lookup came first
    this.#throwIfNot(layer, descriptor)
    const path = diffOf(known, digest)
    const end = this.#references.use(known)
    // from here on nothing fails but by a fault of ours
    this.#shownLayers.set(node, { known, name: digest, layer, slot, usedAt: this.#parts.now(), end })
    const blob = blobNodeOf(node)
    this.#blobs.set(blob, { layer, blob: image.blob(descriptor) })
    mount.addDirectory(node, known.node, digest, DIRECTORY, true)
    mount.graft(node, 'diff', slot)
    if (!this.#hasInfo(digest, layer)) void this.#parts.cover?.(layer, path)
    else this.#putInfo(node, infoOf(found, layer, image, size), layer, path)
    mount.addLate(blob, node, 'blob', FILE, descriptor.size)
    return true
  }

  /** The verdict may have fallen since the layer was opened; from here on it is withdrawn. */
  #throwIfNot(layer: OpenLayer, descriptor: Descriptor): void {
    const refutation = this.#parts.quarantine.of(layer)
    if (refutation !== undefined) throw refusal(descriptor, refutation)
    if (this.#shownLayers.size < this.#shownMax) return
    const what = `${this.#shownMax} layers are shown already`
    if (!this.#isFull)
      this.#parts.log(`${what}: what engines ask for now is left to them until some are not used any more`)
    this.#isFull = true
    throw Failure.limit(what)
  }

  #putInfo(layerNode: bigint, info: Uint8Array, layer: OpenLayer, path: readonly string[]): void {
    const node = infoNodeOf(layerNode)
    if (this.#parts.cover === undefined) {
      this.#shown.addFile(node, layerNode, 'info', FILE, info)
      return
    }
    // The engine's lookup of this very directory still waits for us, so the mount, which walks the same path, is made behind it;
    // the engine reads `info` before it takes the layer, and that waits for the mount.
    this.#infos.set(node, { bytes: info, covered: this.#parts.cover(layer, path) })
    this.#shown.addLate(node, layerNode, 'info', FILE, info.length)
  }

  /**
   * Whether the layer's directory has an `info`: an engine that finds none does not take the layer into use, and one that uses the layer
   * already does not read it.
   */
  #hasInfo(name: Digest, { indexDigest }: OpenLayer): boolean {
    return this.#parts.byIndex || name !== indexDigest
  }

  /** Takes the files of a layer that lies away, in every reference and dialect. */
  #withdraw(claim: Claim): void {
    for (const [node, shown] of this.#shownLayers) {
      const { known, name, layer, slot } = shown
      if (layer === undefined || !isOf(claim, layer)) continue
      shown.layer = undefined
      shown.slot = undefined
      shown.usedAt = this.#parts.now()
      this.#forgetFiles(node)
      for (const each of ['diff', 'blob', ...(this.#hasInfo(name, layer) ? ['info'] : [])]) {
        this.#shown.remove(node, each)
      }
      this.#putFile(node)
      this.#parts.uncover(diffOf(known, name))
      if (slot !== undefined) this.#parts.release(slot)
    }
  }

  #forgetFiles(node: bigint): void {
    this.#blobs.delete(blobNodeOf(node))
    this.#infos.delete(infoNodeOf(node))
  }

  /** Shows a quarantined layer as the one that it was withdrawn from, for engines that took it into use in an earlier life. */
  #showEmpty(known: Known, name: Digest): void {
    const node = layerNodeOf(known, name)
    if (this.#shownLayers.has(node)) return
    const end = this.#references.use(known)
    this.#shownLayers.set(node, { known, name, layer: undefined, slot: undefined, usedAt: this.#parts.now(), end })
    this.#shown.addDirectory(node, known.node, name, DIRECTORY, true)
    this.#putFile(node)
  }

  /**
   * Shows `diff` as an empty file: engines sum up sizes of images by walking `diff` and fail as a whole where it is missing, and no overlay
   * mounts a file. There is no `info`, so an engine that looks for the layer does not take it into use, and pulls it.
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
