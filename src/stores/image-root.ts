// What the additional image store looks like in a mount (image-store.ts has the drawing): directories, links and files, and the list in its
// versions.
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

const DIRECTORY: NodeAttributes = { mode: 0o40555, uid: 0, gid: 0, mtime: 0n }
const FILE: NodeAttributes = { mode: 0o100444, uid: 0, gid: 0, mtime: 0n }
const SYMLINK: NodeAttributes = { mode: 0o120777, uid: 0, gid: 0, mtime: 0n }
/**
 * What a tar-split file is said to have until it was made: less than any has. Readers ask again when they come to its end; of a file
 * that is shorter than was said the kernel fills up the rest with zeros when two read it at once.
 */
const SPLIT_BYTES = 1

export class ImageRoot {
  readonly #mount: ImageStoreMount
  readonly #name: string
  readonly #overlay: bigint
  readonly #links: bigint
  readonly #layers: bigint
  /** Tar-split files by layer ID, and how often each layer was put before. */
  readonly #splits = new Map<string, { node: bigint; times: number }>()
  readonly #ids = new Map<bigint, string>()
  #version = 0n

  /** Shows an empty store as `name` in the mount's root. */
  constructor(mount: ImageStoreMount, name: string) {
    this.#mount = mount
    this.#name = name
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
   */
  put(id: string, below: readonly string[], slot: number | undefined): void {
    const directory = this.#node('overlay', id)
    const split = `${id}.tar-split.gz`
    const old = this.#splits.get(id)
    const times = old === undefined ? 0 : old.times + 1
    if (old === undefined) this.#addDirectory(id, directory, below)
    else
      for (const [parent, name] of [[directory, 'diff'] as const, [this.#layers, split] as const])
        this.#mount.remove(parent, name)
    // An empty file: no overlay mounts that. Images are listed and removed as ever, and no container starts.
    if (slot === undefined)
      this.#mount.addFile(this.#node('overlay', id, 'diff'), directory, 'diff', FILE, new Uint8Array())
    else this.#mount.graft(directory, 'diff', slot)
    // another each time: what was made from other bytes is not this one's
    const node = this.#node('overlay-layers', id, String(times))
    this.#mount.addLate(node, this.#layers, split, FILE, SPLIT_BYTES)
    if (old !== undefined) this.#ids.delete(old.node)
    this.#splits.set(id, { node, times })
    this.#ids.set(node, id)
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

  /** A new version of the list, which is another file with a later time. */
  writeList(entries: readonly string[]): void {
    const now = BigInt(Date.now()) * 1_000_000n
    this.#version = now > this.#version ? now : this.#version + 1n
    const node = this.#node('overlay-layers', 'layers.json', String(this.#version))
    const attributes = { ...FILE, mtime: this.#version }
    this.#mount.replaceFile(node, this.#layers, 'layers.json', attributes, layersJson(entries))
  }

  #node(...path: string[]): bigint {
    return controlNode(this.#name, ...path)
  }
}
