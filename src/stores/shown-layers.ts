// The directories of layers in the layer store (layer-store.ts has the drawing): what stands in them, and when it leaves.
import { describe, Failure } from '../errors.ts'
import type { Digest } from '../image/digest.ts'
import type { Descriptor } from '../image/manifest.ts'
import type { ResolvedImage } from '../layer/image.ts'
import type { LayerLease, OpenLayer } from '../layer/layer.ts'
import { refusal } from '../layer/layer.ts'
import { mapLimited } from '../limit.ts'
import type { NodeAttributes } from '../mount/native.ts'
import { controlNode, type LateFile } from '../mount/session.ts'
import { isOf, type Quarantine } from '../proof/quarantine.ts'
import type { StoredBlob } from '../registry/source.ts'
import type { Guard } from './guard.ts'
import { isOf as isNamed, isSame as isSameName, type NameClaim } from './name-claim.ts'
import type { Known, References } from './references.ts'

/** The part of a mount that the store builds. */
export interface StoreMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  graft(parent: bigint, name: string, slot: number): void
  remove(parent: bigint, name: string): void
}

/** What becomes of layers in the mount that they are shown in. */
export interface ShownParts {
  quarantine: Pick<Quarantine, 'of' | 'watch'>
  guard: Pick<Guard, 'meet' | 'shown' | 'watch' | 'whyNot'>
  /** Makes a layer's tree, of this image, answer in the mount at this path from the root, and holds it open. @returns its slot there */
  attach(layer: LayerLease, path: readonly string[], image: ResolvedImage): Promise<number>
  /** Ends that: nothing shows that slot any more. */
  release(slot: number): void
  /** The paths from the root of layers that overlays are made of. */
  inUse(): Promise<Set<string>>
  /** Whether nobody uses a layer that is shown in this directory, overlays or others; then it is not covered any more. */
  isFree(slot: number, directory: bigint): Promise<boolean>
  /**
   * Mounts a layer that was just grafted at this path from the root in the kernel, where that is done; resolves when it is, or when
   * it is not, which is logged. Undefined: it is not done here.
   */
  cover: ((layer: OpenLayer, path: readonly string[]) => Promise<void>) | undefined
  /** Ends what `cover` did at this path, also for those who use it; what overlays are made of lives on in them. */
  uncover(path: readonly string[]): void
  /** The whole verified blob of a layer in a file. */
  wholeBlob(layer: OpenLayer, blob: StoredBlob): Promise<LateFile>
  /** Bytes in a file. */
  fileOf(bytes: Uint8Array): Promise<LateFile>
  /** Whether layers are found by their indexes; if not, those that were in an earlier life still are. */
  byIndex: boolean
  /** Milliseconds of a clock that only goes forward. */
  now(): number
  log(message: string): void
}

/** A layer to be shown in a reference's directory. */
export interface ToShow {
  readonly known: Known
  /** Of its directory. */
  readonly name: Digest
  readonly descriptor: Descriptor
  readonly blob: StoredBlob
  /** What engines are told of it. */
  readonly info: Uint8Array
  /** What its image claims, if it is shown under the DiffID; undefined: it is found by its index. */
  readonly claim: NameClaim | undefined
  /** Whether that is proven. */
  readonly isProven: boolean
}

/** A layer's directory: `name` in that of a reference. */
interface Shown extends Pick<ToShow, 'known' | 'name' | 'claim'> {
  /** Undefined: it is quarantined, or lost its DiffID, and has no files. */
  layer: OpenLayer | undefined
  /** In which its files are; undefined: it has none. */
  slot: number | undefined
  /** When it was last known to be used. */
  usedAt: number
  /** Lets its reference leave. */
  readonly end: () => void
}

export const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }

/** All in use, with three descriptors each: a node runs some hundred containers, and an image has some ten layers. */
const SHOWN_MAX = 5_000
/** Of those, so many stay though nobody uses them: what is pulled and not run, what engines walk through to list their images. */
const UNUSED_MAX = 500
/** An engine that pulls has not yet made an overlay of what it was shown. */
const YOUNG_MS = 120_000
/** Where very many are pulled at once, those that were shown first may be looked for again sooner. */
const UNUSED_MANY = 1_500
const YOUNG_OF_MANY_MS = 20_000
/** Nobody came back for it. */
const OLD_MS = 24 * 3_600_000
/** That many are looked at at once. */
const FREED_AT_ONCE = 8

export class ShownLayers {
  readonly #parts: ShownParts
  readonly #mount: () => StoreMount
  readonly #references: References
  readonly #max: number
  /** By the node of its directory. */
  readonly #shown = new Map<bigint, Shown>()
  readonly #blobs = new Map<bigint, { layer: OpenLayer; blob: StoredBlob }>()
  readonly #infos = new Map<bigint, { bytes: Uint8Array; covered: Promise<void> }>()
  /** Whether it was said that no more layers are shown, since there was room. */
  #isFull = false
  /** With so many it is time to look who uses them. */
  #lookAt = UNUSED_MAX
  #lettingGo: Promise<void> | undefined

  /** @param max layers that are shown at a time */
  constructor(parts: ShownParts, references: References, mount: () => StoreMount, max = SHOWN_MAX) {
    this.#parts = parts
    this.#references = references
    this.#mount = mount
    this.#max = max
    parts.quarantine.watch((lie) => this.#withdraw((layer) => isOf(lie, layer)))
    parts.guard.watch({
      hide: (claim) => this.#withdraw((layer, of) => of !== undefined && isNamed(claim, layer, of.diffId)),
      prove: (claim) => this.#findAgain(claim),
    })
  }

  get size(): number {
    return this.#shown.size
  }

  has(directory: bigint): boolean {
    return this.#shown.has(directory)
  }

  owns(node: bigint): boolean {
    return this.#shown.has(node) || this.#blobs.has(node) || this.#infos.has(node)
  }

  /** Shows a layer that is attached in `slot`. @returns false when it is shown already. @throws Failure corrupt, limit: it is not shown */
  add(toShow: ToShow, layer: OpenLayer, slot: number): boolean {
    const { known, name, descriptor, claim } = toShow
    const mount = this.#mount()
    const node = layerNodeOf(known, name)
    if (this.#shown.has(node)) return false // another lookup came first
    this.#throwIfNot(layer, toShow)
    const path = diffOf(known, name)
    const end = this.#references.use(known)
    // from here on nothing fails but by a fault of ours
    this.#shown.set(node, { known, name, claim, layer, slot, usedAt: this.#parts.now(), end })
    const blob = blobNodeOf(node)
    this.#blobs.set(blob, { layer, blob: toShow.blob })
    mount.addDirectory(node, known.node, name, DIRECTORY, true)
    mount.graft(node, 'diff', slot)
    if (!this.#hasInfo(name, layer)) void this.#parts.cover?.(layer, path)
    else this.#putInfo(node, toShow.info, layer, path)
    mount.addLate(blob, node, 'blob', FILE, descriptor.size)
    if (this.#shown.size >= this.#lookAt) {
      this.letGo().catch((error) => this.#parts.log(`layers that nobody uses stay: ${describe(error)}`))
    }
    return true
  }

  /** Shows a layer without files as the one that it was withdrawn from, for engines that took it into use before. @param claim that lost, if one did */
  addEmpty(known: Known, name: Digest, claim?: NameClaim): void {
    const node = layerNodeOf(known, name)
    if (this.#shown.has(node)) return
    const end = this.#references.use(known)
    this.#shown.set(node, { known, name, claim, layer: undefined, slot: undefined, usedAt: this.#parts.now(), end })
    this.#mount().addDirectory(node, known.node, name, DIRECTORY, true)
    this.#putFile(node)
  }

  /** Directories of layers that lost a DiffID, which engines go on to know by it. */
  lostTo(diffId: Digest): { directory: bigint; path: string[] }[] {
    const lost = [...this.#shown].filter(([, { layer, claim }]) => layer === undefined && claim?.diffId === diffId)
    return lost.map(([directory, { known, name }]) => ({ directory, path: diffOf(known, name) }))
  }

  /** Shows the layer that has the DiffID in such a directory. @param slot where it is attached @returns whether it is shown there */
  show(directory: bigint, layer: OpenLayer, slot: number, claim: NameClaim): boolean {
    const shown = this.#shown.get(directory)
    if (shown === undefined || shown.layer !== undefined || this.#parts.quarantine.of(layer) !== undefined) return false
    this.#mount().remove(directory, 'diff')
    this.#mount().graft(directory, 'diff', slot)
    this.#shown.set(directory, { ...shown, layer, slot, claim, usedAt: this.#parts.now() })
    void this.#parts.cover?.(layer, diffOf(shown.known, shown.name))
    return true
  }

  /** An engine takes it into use. @returns its path from the root */
  use(directory: bigint): string[] | undefined {
    const shown = this.#shown.get(directory)
    if (shown === undefined) return undefined
    shown.usedAt = this.#parts.now()
    return diffOf(shown.known, shown.name)
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
   * Has layers leave that nobody uses: those beyond what is kept, the least recently used first, and those that nobody came back for.
   * @throws what reading the mount table throws
   */
  letGo(): Promise<void> {
    this.#lookAt = Number.POSITIVE_INFINITY
    this.#lettingGo ??= this.#letGo().finally(() => {
      this.#lettingGo = undefined
      this.#lookAt = this.#shown.size + UNUSED_MAX
    })
    return this.#lettingGo
  }

  async #letGo(): Promise<void> {
    const used = await this.#parts.inUse()
    const now = this.#parts.now()
    const unused: [bigint, Shown][] = []
    for (const [node, shown] of this.#shown) {
      if (used.has(diffOf(shown.known, shown.name).join('/'))) shown.usedAt = now
      else unused.push([node, shown])
    }
    unused.sort(([, one], [, other]) => one.usedAt - other.usedAt)
    const young = unused.length > UNUSED_MANY ? YOUNG_OF_MANY_MS : YOUNG_MS
    const beyond = unused.length - UNUSED_MAX
    const leaving = unused.filter(([, { usedAt }], i) => now - usedAt > (i < beyond ? young : OLD_MS))
    await mapLimited(leaving, FREED_AT_ONCE, ([node, shown]) =>
      this.#letGoOf(node, shown).catch((error) =>
        this.#parts.log(`a layer that nobody uses stays: ${describe(error)}`),
      ),
    )
  }

  async #letGoOf(node: bigint, shown: Shown): Promise<void> {
    const { slot, usedAt } = shown
    if (slot !== undefined && !(await this.#parts.isFree(slot, node))) {
      shown.usedAt = this.#parts.now()
      return
    }
    if (this.#shown.get(node) !== shown || shown.slot !== slot) return // it was withdrawn meanwhile
    if (shown.usedAt !== usedAt) {
      if (shown.layer !== undefined) void this.#parts.cover?.(shown.layer, diffOf(shown.known, shown.name))
      return
    }
    this.#remove(node, shown)
  }

  #remove(node: bigint, { known, name, slot, end }: Shown): void {
    this.#forgetFiles(node)
    this.#shown.delete(node)
    this.#mount().remove(known.node, name)
    if (slot !== undefined) this.#parts.release(slot)
    end()
    this.#isFull = false
  }

  /** The verdict may have fallen since the layer was opened; from here on it is withdrawn. */
  #throwIfNot(layer: OpenLayer, { claim, isProven }: ToShow): void {
    const refutation = this.#parts.quarantine.of(layer)
    if (refutation !== undefined) throw refusal(layer, refutation)
    const doubt = claim === undefined || isProven ? undefined : this.#parts.guard.whyNot(claim)
    if (doubt !== undefined) throw Failure.unsupported('its identity is not proven', { why: doubt })
    if (this.#shown.size < this.#max) return
    const what = `${this.#max} layers are shown already`
    if (!this.#isFull)
      this.#parts.log(`${what}: what engines ask for now is left to them until some are not used any more`)
    this.#isFull = true
    throw Failure.limit(what)
  }

  #putInfo(directory: bigint, bytes: Uint8Array, layer: OpenLayer, path: readonly string[]): void {
    const node = infoNodeOf(directory)
    if (this.#parts.cover === undefined) {
      this.#mount().addFile(node, directory, 'info', FILE, bytes)
      return
    }
    // The engine's lookup of this very directory still waits for us, so the mount, which walks the same path, is made behind it;
    // the engine reads `info` before it takes the layer, and that waits for the mount.
    this.#infos.set(node, { bytes, covered: this.#parts.cover(layer, path) })
    this.#mount().addLate(node, directory, 'info', FILE, bytes.length)
  }

  /** A layer without `info` is none to whoever would take it into use; who does already reads it no more. */
  #hasInfo(name: Digest, { indexDigest }: OpenLayer): boolean {
    return this.#parts.byIndex || name !== indexDigest
  }

  /** Has engines look again for a layer that lost its DiffID, and is proven to bear it. */
  #findAgain(claim: NameClaim): void {
    for (const [node, shown] of this.#shown) {
      if (shown.layer === undefined && shown.claim !== undefined && isSameName(claim, shown.claim))
        this.#remove(node, shown)
    }
  }

  /** Takes the files of a layer that lies away, in every reference and dialect. */
  #withdraw(isIt: (layer: OpenLayer, claim: NameClaim | undefined) => boolean): void {
    for (const [node, shown] of this.#shown) {
      const { known, name, layer, slot } = shown
      if (layer === undefined || !isIt(layer, shown.claim)) continue
      shown.layer = undefined
      shown.slot = undefined
      shown.usedAt = this.#parts.now()
      const isOwn = this.#blobs.has(blobNodeOf(node)) // what was put in the place of another has a tree alone
      const beside = ['blob', ...(this.#hasInfo(name, layer) ? ['info'] : [])]
      this.#forgetFiles(node)
      for (const each of ['diff', ...(isOwn ? beside : [])]) this.#mount().remove(node, each)
      this.#putFile(node)
      this.#parts.uncover(diffOf(known, name))
      if (slot !== undefined) this.#parts.release(slot)
    }
  }

  #forgetFiles(directory: bigint): void {
    this.#blobs.delete(blobNodeOf(directory))
    this.#infos.delete(infoNodeOf(directory))
  }

  /**
   * Engines sum up sizes of images by walking `diff`, and fail as a whole where it is missing; a file is what no overlay mounts. A layer
   * without `info` is none to whoever would take it into use, and is pulled.
   */
  #putFile(directory: bigint): void {
    const node = controlNode(String(directory), 'no files')
    this.#mount().addFile(node, directory, 'diff', FILE, new Uint8Array())
  }
}

/** Of the directory of all references, below the root. */
export const LAYERS_DIRECTORY = 'layers'

/** From the root. */
export function layerPath(known: Known, name: string): string[] {
  return [LAYERS_DIRECTORY, known.name, name]
}

export function diffOf(known: Known, name: string): string[] {
  return [...layerPath(known, name), 'diff']
}

function layerNodeOf({ node }: Known, name: Digest): bigint {
  return controlNode(LAYERS_DIRECTORY, String(node), name)
}

function blobNodeOf(layer: bigint): bigint {
  return controlNode(String(layer), 'blob')
}

function infoNodeOf(layer: bigint): bigint {
  return controlNode(String(layer), 'info')
}
