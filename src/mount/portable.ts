// The portable rung: an image served by JavaScript through fuse-native, from the same EROFS image and the same devices as all others.
// It is for where our own addon cannot be loaded, and slow: libfuse 2 asks by path, and every answer is made on the main thread.
//
//   kernel -> libfuse 2 -> fuse-native -> PortableTree: ErofsReader; for reads filler.fill(chunks), then the device file
//
// What libfuse 2 and fuse-native do not carry: times are in milliseconds and not before 1970 (which is said), a READ has at most 128 KiB,
// ACLs are not obeyed (such a tree is refused), and the directory must not be a mount point.
import type { FileHandle } from 'node:fs/promises'
import { Failure } from '../errors.ts'
import { type FuseMount, loadFuseNative } from './fuse-native.ts'
import type { SessionCounters } from './native.ts'
import { type PortableLayer, PortableTree } from './portable-tree.ts'
import { isBusy, MISS_TIMEOUT_MS, type Session } from './session.ts'

export interface PortableSettings {
  dir: string
  fsname: string
  allowOther: boolean
  /** The merged image, whose digest the caller checked; read whole before mount resolves. */
  image: FileHandle
  /** Of its device slots 1…n. */
  layers: readonly PortableLayer[]
  log(line: string): void
  /** Resolves when nothing is mounted on `dir` any more: fuse-native does not tell. */
  gone(dir: string): Promise<string>
  /** Grows with whatever is fetched or decoded. */
  progress: () => number
}

/** Who unmounts. */
export interface Unmounter {
  unmount(dir: string, lazy: boolean): Promise<void>
}

/** Seconds, about 30 years: the tree never changes. */
const FOREVER = 1e9
/** libfuse 2's largest. */
const READ_MAX_BYTES = 128 << 10
/** fuse-native keeps the directory and all options in 1,024 bytes each, and cuts off what is longer. */
const DIR_MAX_BYTES = 1023
const FSNAME_MAX = 200

export class PortableSession implements Session {
  readonly dir: string
  readonly ended: Promise<string>
  readonly #unmounter: Unmounter
  readonly #tree: PortableTree
  readonly #fuse: FuseMount
  readonly #end: (reason: string) => void

  private constructor(unmounter: Unmounter, settings: PortableSettings, tree: PortableTree, fuse: FuseMount) {
    this.dir = settings.dir
    this.#unmounter = unmounter
    this.#tree = tree
    this.#fuse = fuse
    const { promise, resolve } = Promise.withResolvers<string>()
    this.ended = promise
    this.#end = resolve
    void settings.gone(settings.dir).then(resolve) // never rejects
  }

  /** Mounts. @throws Failure unsupported: fuse-native cannot be loaded, or says no; corrupt */
  static async mount(unmounter: Unmounter, settings: PortableSettings): Promise<PortableSession> {
    const { dir } = settings
    if (Buffer.byteLength(dir) > DIR_MAX_BYTES) {
      throw Failure.unsupported(`${dir} cannot be mounted on by fuse-native`, { why: 'its path is too long' })
    }
    const Fuse = loadFuseNative()
    const { size } = await settings.image.stat()
    const image = new Uint8Array(size)
    for (let at = 0; at < size; ) {
      const { bytesRead } = await settings.image.read(image, at, size - at, at)
      if (bytesRead === 0) throw Failure.corrupt('the merged image became shorter')
      at += bytesRead
    }
    const tree = new PortableTree(image, settings.layers, MISS_TIMEOUT_MS, settings.progress)
    const { acl, early } = await tree.limits()
    if (acl !== undefined) {
      throw Failure.unsupported(`${settings.fsname} cannot be mounted by fuse-native`, {
        why: `${acl} has an access control list, and libfuse 2 would have the kernel go by the mode alone`,
        fix: 'Use --mount fuse.',
      })
    }
    if (early > 0)
      settings.log(`${dir}: ${early} files of before 1970 are shown as of 1970, which is all that fuse-native knows`)
    const fuse = new Fuse(dir, tree, optionsOf(settings))
    await new Promise<void>((resolve, reject) => fuse.mount((error) => (error ? reject(error) : resolve()))).catch(
      (cause) => {
        throw Failure.unsupported(`${dir} cannot be mounted on by fuse-native`, { cause })
      },
    )
    return new PortableSession(unmounter, settings, tree, fuse)
  }

  counters(): SessionCounters {
    return this.#tree.counters()
  }

  async unmount(): Promise<boolean> {
    try {
      await this.#unmounter.unmount(this.dir, false)
    } catch (error) {
      if (isBusy(error)) return false
      throw error
    }
    this.#end('unmounted')
    return true
  }

  async detach(): Promise<void> {
    await this.#unmounter.unmount(this.dir, true)
    this.#end('unmounted')
  }

  close(): void {
    this.#tree.close()
    this.#fuse.unmount(() => {}) // never fails: it only lets go
  }
}

function optionsOf({ fsname, allowOther }: PortableSettings): Record<string, unknown> {
  // What fuse-native has no name for goes behind an option that it has; it joins them by commas.
  const more = ['ro', 'use_ino', 'readdir_ino', `negative_timeout=${FOREVER}`]
  return {
    timeout: false, // reads have a deadline of their own, and it is longer than any that the library could have
    defaultPermissions: true,
    allowOther,
    kernelCache: true,
    entryTimeout: FOREVER,
    attrTimeout: FOREVER,
    maxRead: READ_MAX_BYTES,
    // commas would begin another option
    fsname: fsname.replace(/[^\w.:/@+-]/g, '_').slice(0, FSNAME_MAX),
    subtype: ['lazylayer', ...more].join(','),
  }
}
