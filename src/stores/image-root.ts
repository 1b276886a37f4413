// What the additional image store looks like in a mount (image-store.ts has the drawing): directories, links and files, and the list in its
// versions.
import { type Digest, digestOf } from '../image/digest.ts'
import { type NodeAttributes, ROOT_NODE } from '../mount/native.ts'
import { controlNode } from '../mount/session.ts'
import { linkName } from './chain.ts'
import { layersJson } from './layers-json.ts'

/** The part of a mount that the store builds. */
export interface ImageStoreMount {
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addSymlink(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, target: string): void
  replaceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  graft(parent: bigint, name: string, slot: number): void
  remove(parent: bigint, name: string): void
}

/** Where versions of the list are kept over restarts. */
export interface ListVersions {
  /** The version that the process before this one showed last. */
  readonly restored: { version: bigint; contents: Digest } | undefined
  keep(version: bigint, bytes: Uint8Array): void
  /** Resolves when the last version is on disk. */
  close(): Promise<void>
}

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
const SYMLINK: NodeAttributes = { mode: 0o120777, uid: 0, gid: 0, mtime: 0n }
/**
 * The size that a tar-split file is given until it is made: less than any has. Readers that come to the end ask for the size again. Were
 * the given size too large, the kernel would fill up the rest with zeros when two readers read the file at once.
 */
const SPLIT_BYTES = 1

export class ImageRoot {
  readonly #mount: ImageStoreMount
  readonly #name: string
  readonly #overlay: bigint
  readonly #links: bigint
  readonly #layers: bigint
  /** Tar-split files by layer ID. */
  readonly #splits = new Map<string, bigint>()
  readonly #ids = new Map<bigint, string>()
  readonly #versions: ListVersions
  /** The last process's version, until this process has written a list. */
  #restored: ListVersions['restored']
  #version: bigint

  /** Shows an empty store as `name` in the mount's root. */
  constructor(mount: ImageStoreMount, name: string, versions: ListVersions) {
    this.#mount = mount
    this.#name = name
    this.#versions = versions
    this.#restored = versions.restored
    this.#version = versions.restored?.version ?? 0n
    this.#overlay = this.#node('overlay')
    this.#links = this.#node('overlay', 'l')
    this.#layers = this.#node('overlay-layers')
    const root = this.#node()
    mount.addDirectory(root, ROOT_NODE, name, DIRECTORY, false)
    for (const each of ['overlay', 'overlay-images', 'overlay-layers']) {
      mount.addDirectory(this.#node(each), root, each, DIRECTORY, false)
    }
    mount.addDirectory(this.#links, this.#overlay, 'l', DIRECTORY, false)
    const empty = layersJson([])
    for (const [directory, file, bytes] of [
      ['overlay-images', 'images.json', empty],
      ['overlay-images', 'images.lock', new Uint8Array()],
      ['overlay-layers', 'layers.json', empty],
      ['overlay-layers', 'layers.lock', new Uint8Array()],
    ] as const) {
      mount.addFile(this.#node(directory, file), this.#node(directory), file, FILE, bytes)
    }
  }

  /**
   * Shows a layer, or shows it otherwise than before.
   * @param below short names of the layers below; they never change
   * @param slot of the tree that its files are in; undefined: it has none
   * @param of names what the files are made of: the same name is the same file over restarts
   */
  put(id: string, below: readonly string[], slot: number | undefined, of: string): void {
    const directory = this.#node('overlay', id)
    const split = `${id}.tar-split.gz`
    const old = this.#splits.get(id)
    if (old === undefined) this.#addDirectory(id, directory, below)
    else
      for (const [parent, name] of [[directory, 'diff'] as const, [this.#layers, split] as const])
        this.#mount.remove(parent, name)
    // No overlay mounts a file: engines list and remove images as ever, and start no container of this one.
    if (slot === undefined)
      this.#mount.addFile(this.#node('overlay', id, 'diff'), directory, 'diff', FILE, new Uint8Array())
    else this.#mount.graft(directory, 'diff', slot)
    // a file that was made from other bytes is another file
    const node = this.#node('overlay-layers', id, 'tar-split', of)
    this.#mount.addLate(node, this.#layers, split, FILE, SPLIT_BYTES)
    if (old !== undefined) this.#ids.delete(old)
    this.#splits.set(id, node)
    this.#ids.set(node, id)
  }

  /** Takes a layer that was put out of the store, with all its files. */
  remove(id: string): void {
    const split = this.#splits.get(id)
    if (split !== undefined) this.#ids.delete(split)
    this.#splits.delete(id)
    this.#mount.remove(this.#layers, `${id}.tar-split.gz`)
    this.#mount.remove(this.#links, linkName(id))
    this.#mount.remove(this.#overlay, id)
  }

  /** Where a layer's files answer, from the mount's root. */
  diffOf(id: string): string[] {
    return [this.#name, 'overlay', id, 'diff']
  }

  /** The layer whose tar-split file a node is. */
  idOfSplit(node: bigint): string | undefined {
    return this.#ids.get(node)
  }

  #addDirectory(id: string, directory: bigint, below: readonly string[]): void {
    const short = linkName(id)
    const text = (name: string, contents: string) =>
      this.#mount.addFile(this.#node('overlay', id, name), directory, name, FILE, new TextEncoder().encode(contents))
    this.#mount.addDirectory(directory, this.#overlay, id, DIRECTORY, false)
    text('link', short)
    if (below.length > 0) text('lower', below.map((each) => `l/${each}`).join(':'))
    this.#mount.addSymlink(this.#node('overlay', 'l', short), this.#links, short, SYMLINK, `../${id}/diff`)
  }

  /** Shows a list as a new version, which is another file with a later time; or as the last process's version, if the contents are the same. */
  writeList(entries: readonly string[]): void {
    const bytes = layersJson(entries)
    const isSame = this.#restored !== undefined && this.#restored.contents === digestOf(bytes)
    if (!isSame) this.#version = this.#later()
    this.#restored = undefined
    const node = this.#node('overlay-layers', 'layers.json', String(this.#version))
    const attributes = { ...FILE, mtime: this.#version }
    this.#mount.replaceFile(node, this.#layers, 'layers.json', attributes, bytes)
    this.#versions.keep(this.#version, bytes)
  }

  #later(): bigint {
    const now = BigInt(Date.now()) * 1_000_000n
    return now > this.#version ? now : this.#version + 1n
  }

  #node(...path: string[]): bigint {
    return controlNode(this.#name, ...path)
  }
}
