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
import type { Door } from '../mount/doors.ts'
import { ROOT_NODE } from '../mount/native.ts'
import { controlNode, type LateFile } from '../mount/session.ts'
import { AskedImage, type AskedLayer, type ImageLayers, type Resolver } from './asked-image.ts'
import { decodeDigest, decodeReference } from './asked-names.ts'
import type { Asker } from './asker.ts'
import { engineRefusal } from './engine-refusal.ts'
import { tarSizeOf } from './facts.ts'
import type { Met } from './guard.ts'
import { diffIdOf, type TrustsDiffIds } from './identity.ts'
import { infoOf } from './layer-info.ts'
import { type NameClaim, nameClaimOf, nameClaimsOf } from './name-claim.ts'
import type { Leaving } from './outcome.ts'
import { LOOKUP_PATIENCE, patiently } from './patience.ts'
import { type Known, References } from './references.ts'
import {
  DIRECTORY,
  diffOf,
  LAYERS_DIRECTORY,
  layerPath,
  ShownLayers,
  type ShownParts,
  type StoreMount,
} from './shown-layers.ts'
import { checkTogether, togetherIn } from './together.ts'

export interface StoreParts extends ShownParts {
  images: Resolver
  layers: LayerOpener & Pick<Layers, 'prove' | 'everProven' | 'everRefuted'>
  /**
   * An engine says that it takes the layer at this path into use, or drops it; after the latter the kernel has detached what was
   * mounted there.
   */
  hint(op: 'use' | 'drop', path: readonly string[]): void
  /** Whose lookup of what is not known yet it is: registries may be asked for that. */
  asker: Asker
  /** Puts what engines see of a layer when this agent does not run, below the mount, at this path from the root. */
  standIn(path: readonly string[]): Promise<void>
  /** Whether that was done, in this life or an earlier one. */
  hasStandIn(path: readonly string[]): Promise<boolean>
  /** Has fetched ahead what is wanted first of a layer of an image. @throws what that throws */
  prefetch(image: ResolvedImage, layer: OpenLayer): Promise<void>
  /** Grows with every byte and request: tells a slow registry from a dead one. */
  progress(): number
  trustsDiffIds: TrustsDiffIds
  left: Leaving
}

/** A reference of which nothing is shown: its next lookup costs no more than the first. */
const IDLE_MS = 3_600_000
/** An engine asks for the layers of an image it pulls one after the other; what it has not asked for by then it will not. */
const PULL_MS = 120_000

export class AdditionalLayerStore implements Door {
  static readonly DIRECTORY = LAYERS_DIRECTORY
  readonly #parts: StoreParts
  readonly #top = controlNode(LAYERS_DIRECTORY)
  #mount: StoreMount | undefined
  readonly #references: References
  readonly #shown: ShownLayers
  /** What came of keeping an image apart from others. */
  readonly #met = new WeakMap<ImageLayers, Promise<Met>>()
  /** What was logged: once is enough. */

  /** @param shownMax layers that are shown at a time; default: as many as are in use at most */
  constructor(parts: StoreParts, shownMax?: number) {
    this.#parts = parts
    this.#references = new References((known) => this.#mounted.remove(this.#top, known.name), parts.now)
    this.#shown = new ShownLayers(parts, this.#references, () => this.#mounted, shownMax)
  }

  /** Puts the store into a mount that asks this object for what it does not know. */
  show(mount: StoreMount): void {
    this.#mount = mount
    mount.addDirectory(this.#top, ROOT_NODE, LAYERS_DIRECTORY, DIRECTORY, true)
  }

  owns(node: bigint): boolean {
    return node === this.#top || this.#references.get(node) !== undefined || this.#shown.owns(node)
  }

  async lookup(parent: bigint, name: string, uid: number): Promise<void> {
    if (parent === this.#top) {
      await this.#lookupReference(name, uid)
      return
    }
    // The directory of a layer is filled by several calls: who looked in between has us look again, now that it is whole.
    if (this.#shown.has(parent)) return
    const known = this.#references.get(parent)
    const digest = decodeDigest(name)
    if (known === undefined || digest === undefined) throw Failure.missing(`${name} is not in the store`)
    const end = this.#references.use(known)
    try {
      this.#admit(uid)
      await this.#lookupLayer(known, digest)
    } finally {
      end()
    }
  }

  /** References and layers that are here. */
  get size(): { references: number; layers: number } {
    return { references: this.#references.size, layers: this.#shown.size }
  }

  /** Has references and layers leave that nobody uses. To be called from time to time. @throws what reading the mount table throws */
  async letGo(): Promise<void> {
    this.#references.expire(IDLE_MS, PULL_MS)
    await this.#shown.letGo()
  }

  late(node: bigint): Promise<LateFile> {
    return this.#shown.late(node)
  }

  /**
   * Engines say when they take a layer into use and drop it; they do not repeat it after a restart, so it is only a hint. But the
   * kernel takes the answer to a removal at its word.
   */
  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void {
    if (op === 'create') {
      const path = name === 'use' ? this.#shown.use(parent) : undefined
      if (path !== undefined) this.#parts.hint('use', path)
      return
    }
    const known = this.#references.get(parent)
    if (known !== undefined) this.#parts.hint('drop', diffOf(known, name))
  }

  /** What is refused is logged by whoever counts. */
  #admit(uid: number): void {
    if (this.#parts.asker(uid) === 'refused') throw Failure.missing(`user ${uid} asks too often`)
  }

  async #lookupReference(name: string, uid: number): Promise<void> {
    const reference = decodeReference(name)
    if (reference === undefined) throw Failure.missing(`${name} is no reference`)
    const node = controlNode(LAYERS_DIRECTORY, name)
    if (this.#references.get(node) !== undefined) return
    this.#admit(uid)
    const { images, layers } = this.#parts
    const asked = new AskedImage(reference, images, layers, (...opening) => void this.#opened(...opening)) // logs its own errors
    this.#mounted.addDirectory(node, this.#top, name, DIRECTORY, true)
    this.#references.add({ node, name, text: referenceText(reference), asked, user: uid })
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
      if (await this.#wasWithdrawn(known, digest, layer, error)) this.#shown.addEmpty(known, digest)
      else throw Failure.missing(`layer ${digest} is not served`, { cause: error })
    } finally {
      end()
    }
  }

  /** Whether a layer that is not served for its quarantine was shown before it: engines may hold on to that. */
  async #wasWithdrawn(known: Known, name: Digest, blob: Digest, error: unknown): Promise<boolean> {
    if (!(error instanceof Failure) || error.code !== 'corrupt') return false
    const { layers } = this.#parts
    const refuted = [false, true].map((together) => layers.everRefuted(blob, together).catch(() => false))
    if (!(await Promise.all(refuted)).includes(true)) return false
    return await this.#parts.hasStandIn(layerPath(known, name))
  }

  async #showFound(known: Known, digest: Digest, found: AskedLayer, listing: ImageLayers): Promise<void> {
    const { descriptor, index, dialect } = found
    const { layers } = this.#parts
    const byDiffId = dialect === 'layer'
    const refused = engineRefusal(listing.image.manifest)
    if (refused !== undefined) throw Failure.unsupported('engines refuse its image', { why: refused })
    const plan = layers.plan(listing.image.manifest)
    await this.#meet(listing)
    const isTogether = togetherIn(plan, descriptor) !== undefined
    const believed = byDiffId ? await this.#parts.trustsDiffIds(listing.image) : 'it is asked for by its index'
    const wasShown = await this.#parts.hasStandIn(layerPath(known, digest))
    if (!byDiffId && !this.#parts.byIndex && !wasShown) {
      throw nameless('no layer is named by its index here (serve --diffid-only)')
    }
    if (byDiffId && believed !== true && !wasShown && !isTogether && !(await layers.everProven(descriptor.digest))) {
      // said before anything is opened: the engine will fetch all of it
      throw nameless(believed)
    }
    const claimed = (i: number, { tree }: OpenLayer) => nameClaimOf(listing.image, i, plan, tree)
    const trusted = (i: number, opened: OpenLayer) =>
      believed === true ? (this.#parts.guard.whyNot(claimed(i, opened)) ?? true) : believed
    const layer = await this.#open(found, listing, byDiffId && wasShown)
    try {
      if (layer.together !== undefined) {
        const open = (i: number) =>
          listing.open({ ...found, index: i, descriptor: listing.image.manifest.layers[i] ?? descriptor })
        await checkTogether(listing.image, layer.together, open, layers, {
          trusted,
          all: wasShown && believed !== true,
        })
      } else if (byDiffId && wasShown && believed !== true && (await layer.verdict()) === undefined) {
        await layers.prove(layer, listing.image.blob(descriptor))
      }
      // it may have been opened with the rest of its image before it was read whole
      const verdict = await layer.verdict()
      const claim = claimed(index, layer)
      if (verdict?.verdict === 'refuted') throw refusal(layer, verdict)
      if (byDiffId) {
        const diffId = listing.image.config.diffIds[index] as Digest // parseConfig: one a layer
        const name = diffIdOf({ verdict, together: layer.together }, diffId, trusted(index, layer))
        // an engine may hold on to what it was shown when nothing was known against it
        if ('why' in name && wasShown && believed === true) return this.#shown.addEmpty(known, digest, claim)
        if ('why' in name) throw nameless(name.why)
      }
      const size = await tarSizeOf(layer)
      await this.#parts.standIn(layerPath(known, digest))
      const { image } = listing
      const info = infoOf(found, layer, image, size)
      const named = byDiffId ? claim : undefined
      const isProven = verdict !== undefined
      const blob = image.blob(descriptor)
      const toShow = { known, name: digest, descriptor, blob, info, claim: named, isProven }
      const slot = await this.#parts.attach(layer, diffOf(known, digest), image)
      let isShown = false
      try {
        isShown = this.#shown.add(toShow, layer, slot)
        if (isShown && byDiffId) this.#parts.guard.shown({ image, descriptor, claim }, isProven)
      } finally {
        if (!isShown) this.#parts.release(slot)
      }
      if (byDiffId && isProven) await this.#replace(claim, layer, image)
    } finally {
      await layer.close() // what is shown is held by the mount
    }
  }

  /**
   * Shows a proven layer also where one was shown that lost its DiffID to it: an engine knows a layer by its DiffID, and goes on to look
   * where it found that first, whichever image it makes a container of.
   */
  async #replace(claim: NameClaim, layer: LayerLease, image: ResolvedImage): Promise<void> {
    for (const { directory, path } of this.#shown.lostTo(claim.diffId)) {
      const slot = await this.#parts.attach(layer, path, image)
      if (!this.#shown.show(directory, layer, slot, claim)) this.#parts.release(slot)
    }
  }

  /** Has an image kept apart from others that say otherwise of its layers; once, however many of them are looked for. */
  #meet(listing: ImageLayers): Promise<Met> {
    const { guard, layers, trustsDiffIds } = this.#parts
    const { image } = listing
    const plan = layers.plan(image.manifest)
    const known = this.#met.get(listing)
    if (known !== undefined) return known
    const isBelieved = async () => (await trustsDiffIds(image)) === true
    const claims = async () => {
      // of an image that is not believed no layer is opened for this
      const trees = (await isBelieved()) ? await listing.trees() : []
      return nameClaimsOf(image, plan, trees)
    }
    const met = guard.meet({ image, said: nameClaimsOf(image, plan, []), claims, isBelieved })
    this.#met.set(listing, met)
    met.catch(() => this.#met.delete(listing))
    return met
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
      await this.#parts.prefetch(image, layer)
    } catch (error) {
      this.#leave(referenceText(image.reference), descriptor.digest, error)
    }
  }

  #leave(reference: string, layer: Digest, error: unknown): void {
    this.#parts.left.leave(`${reference}: layer ${layer} is left to the engine: ${describe(error)}`, 1, error)
  }

  get #mounted(): StoreMount {
    if (this.#mount === undefined) throw new TypeError('a lookup before the store was mounted')
    return this.#mount
  }
}

function nameless(why: string): Failure {
  return Failure.unsupported('its identity is not proven', { why })
}

function notLazy({ why }: EagerLayer): Failure {
  return Failure.unsupported('it is not lazy', { why })
}
