// An image as the operations that libfuse 2 asks for by path. Its reads fetch what is missing, as every reader's do.
import { setImmediate as turn } from 'node:timers/promises'
import { errno, Failure, readErrno } from '../errors.ts'
import type { OpenLayer } from '../layer/layer.ts'
import { S_IFDIR, S_IFMT, S_IFREG } from '../tree/entry.ts'
import { encodeDevice, isAcl } from '../tree/erofs-format.ts'
import { ErofsReader } from '../tree/erofs-reader.ts'
import { BLOCK_BYTES } from '../tree/inode.ts'
import type { FuseOperations, FuseStat } from './fuse-native.ts'
import type { SessionCounters } from './native.ts'
import { PlaceIndex } from './place-index.ts'

/** What of a layer is read. */
export type PortableLayer = Pick<OpenLayer, 'chunks' | 'filler' | 'slots'>

interface Device extends PortableLayer {
  places: PlaceIndex
}

const NAME_MAX_BYTES = 255
const EROFS = 30
const ENAMETOOLONG = 36
const W_OK = 2
/** Of a write or read-write open; O_RDONLY is 0. */
const O_ACCMODE = 3
/** Of the walk at the start: a few milliseconds, then others get their turn. */
const WALKED_AT_ONCE = 1000
/** Directories whose numbers are kept at hand; at about 100 bytes each. */
const DIRECTORIES_MAX = 10_000

export class PortableTree implements FuseOperations {
  readonly #reader: ErofsReader
  readonly #devices: readonly Device[]
  readonly #missTimeoutMs: number
  readonly #progress: () => number
  /** Of the reads that wait. */
  readonly #waits = new Set<AbortController>()
  #closed = false
  readonly #directories = new Map<string, number>()
  readonly #counters = {
    served: 0n,
    reads: 0n,
    missed: 0n,
    lookups: 0n,
    expired: 0n,
    failed: 0n,
    refused: 0n,
    waiting: 0n,
    waits: { upTo: [], counts: [0], seconds: 0 }, // nobody asks it
  }

  /**
   * @param layers of the image's device slots 1…n
   * @param missTimeoutMs a read that waits longer while `progress` stands still fails with EIO
   * @throws Failure corrupt
   */
  constructor(image: Uint8Array, layers: readonly PortableLayer[], missTimeoutMs: number, progress = () => 0) {
    this.#reader = new ErofsReader(image)
    if (this.#reader.devices.length !== layers.length) {
      throw Failure.corrupt(`the image has ${this.#reader.devices.length} devices for ${layers.length} layers`)
    }
    this.#devices = layers.map(({ chunks, filler, slots }) => ({
      chunks,
      filler,
      slots,
      places: new PlaceIndex(chunks),
    }))
    this.#missTimeoutMs = missTimeoutMs
    this.#progress = progress
  }

  /**
   * What fuse-native shows otherwise than it is, found by a walk through the tree.
   * @returns the path of a file with an ACL, which nobody would obey, if there is one; and how many times are before 1970
   */
  async limits(): Promise<{ acl: string | undefined; early: number }> {
    let [seen, early] = [0, 0]
    const pending = [{ path: '/', nid: this.#reader.root }]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { path, nid } = next
      const { mode, mtime } = this.#reader.attributes(nid)
      if (mtime < 0n) early++
      if ([...this.#reader.xattrs(nid).keys()].some(isAcl)) return { acl: path, early }
      if ((mode & S_IFMT) === S_IFDIR) {
        const above = path === '/' ? '' : path
        for (const child of this.#reader.readdir(nid)) pending.push({ path: `${above}/${child.name}`, nid: child.nid })
      }
      if (++seen % WALKED_AT_ONCE === 0) await turn()
    }
    return { acl: undefined, early }
  }

  /** Lookups are those that reached us by path: libfuse 2 does not tell them from stats. */
  counters(): SessionCounters {
    return { ...this.#counters }
  }

  /** Fails what waits, and what would from now on. */
  close(): void {
    this.#closed = true
    for (const each of this.#waits) each.abort()
  }

  access: FuseOperations['access'] = (path, mode, done) =>
    answer(done, () => {
      this.#find(path)
      return mode & W_OK ? [-EROFS] : [0]
    })

  statfs: FuseOperations['statfs'] = (_, done) => {
    const blocks = this.#devices.reduce((sum, { chunks }) => sum + Math.ceil(chunks.deviceSize / BLOCK_BYTES), 0)
    done(0, { bsize: BLOCK_BYTES, frsize: BLOCK_BYTES, blocks, files: 0, namemax: NAME_MAX_BYTES })
  }

  getattr: FuseOperations['getattr'] = (path, done) => {
    this.#counters.lookups++
    answer(done, () => (isNamed(path) ? [0, this.#stat(this.#find(path))] : [-ENAMETOOLONG]))
  }

  readdir: FuseOperations['readdir'] = (path, done) =>
    answer(done, () => {
      const names = ['.', '..']
      const stats: FuseStat[] = [{ ino: this.#find(path), mode: 0o040000 }]
      stats.push({ ino: this.#find(parentOf(path)), mode: 0o040000 })
      for (const { name, nid } of this.#reader.readdir(this.#find(path))) {
        names.push(name)
        stats.push({ ino: nid, mode: this.#reader.attributes(nid).mode })
      }
      return [0, names, stats]
    })

  readlink: FuseOperations['readlink'] = (path, done) =>
    answer(done, () => [0, this.#reader.readlink(this.#find(path))])

  open: FuseOperations['open'] = (path, flags, done) =>
    answer(done, () => {
      const nid = this.#find(path)
      // a descriptor is the file's number, so that reads need no path; it has 31 bits, and images have under 64 GiB
      return (flags & O_ACCMODE) === 0 ? [0, nid] : [-EROFS]
    })

  read: FuseOperations['read'] = (_, nid, into, length, at, done) => {
    this.#counters.reads++
    // answers its own errors
    void this.#read(nid, into.subarray(0, length), at).then(
      (count) => {
        this.#counters.served += BigInt(count)
        done(count)
      },
      (error) => {
        this.#counters.failed++
        done(-readErrno(error))
      },
    )
  }

  getxattr: FuseOperations['getxattr'] = (path, name, done) =>
    answer(done, () => [0, this.#reader.xattrs(this.#find(path)).get(name)])

  listxattr: FuseOperations['listxattr'] = (path, done) =>
    answer(done, () => [0, [...this.#reader.xattrs(this.#find(path)).keys()]])

  #stat(nid: number): FuseStat {
    const { mode, nlink, uid, gid, mtime, size, rdev } = this.#reader.attributes(nid)
    // fuse-native has no times before 1970
    const ms = Math.max(0, Number(mtime / 1_000_000n))
    const blocks = (mode & S_IFMT) === S_IFREG ? Math.ceil(size / 512) : 0
    const times = { atime: ms, mtime: ms, ctime: ms }
    return {
      ino: nid,
      mode,
      nlink,
      uid,
      gid,
      size,
      blocks,
      blksize: BLOCK_BYTES,
      rdev: rdev ? encodeDevice(rdev) : 0,
      ...times,
    }
  }

  /** @throws Failure missing */
  #find(path: string): number {
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    if (name === '') return this.#reader.root
    const above = path.slice(0, slash)
    let parent = this.#directories.get(above)
    if (parent === undefined) {
      parent = this.#reader.resolve(above.slice(1))
      if (parent === undefined) throw Failure.missing(`no ${above}`)
      if (this.#directories.size >= DIRECTORIES_MAX) this.#directories.clear()
      this.#directories.set(above, parent)
    }
    const found = this.#reader.lookup(parent, name)
    if (found === undefined) throw Failure.missing(`no ${path}`)
    return found
  }

  async #read(nid: number, into: Uint8Array, at: number): Promise<number> {
    const content = this.#reader.content(nid)
    const length = Math.min(into.length, (content?.size ?? 0) - at)
    if (content === null || length <= 0) return 0
    const device = this.#devices[content.device - 1]
    if (device === undefined) throw Failure.corrupt(`file ${nid} lies on device ${content.device}, which there is not`)
    const start = content.offset + at
    const { filler, slots, places } = device
    const chunks = [...places.chunksAt(start, start + length)]
    let missed = false
    const fill = async (missing: number[]) => {
      if (!missed) this.#counters.missed++
      missed = true
      await this.#fill(filler, missing)
    }
    await slots.read(into.subarray(0, length), start, chunks, fill)
    return length
  }

  async #fill(filler: PortableLayer['filler'], missing: readonly number[]): Promise<void> {
    if (this.#closed) throw Failure.aborted('the mount has ended')
    const wait = new AbortController()
    let last = this.#progress()
    const deadline = setInterval(() => {
      const now = this.#progress()
      if (now === last) {
        this.#counters.expired++
        wait.abort()
      }
      last = now
    }, this.#missTimeoutMs)
    this.#waits.add(wait)
    try {
      await filler.fill(missing, 'demand', wait.signal)
    } finally {
      clearInterval(deadline)
      this.#waits.delete(wait)
    }
  }
}

/** Whether a name could be the last one of this path. */
function isNamed(path: string): boolean {
  return Buffer.byteLength(path.slice(path.lastIndexOf('/') + 1)) <= NAME_MAX_BYTES
}

function parentOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}

/** Calls `done` with what `work` returns, or with the errno of what it throws. */
function answer<T extends unknown[]>(
  done: (code: number, ...result: Partial<T>) => void,
  work: () => [code: number, ...result: Partial<T>],
): void {
  let result: [code: number, ...result: Partial<T>]
  try {
    result = work()
  } catch (error) {
    done(-errno(error), ...([] as unknown as Partial<T>))
    return
  }
  done(...result)
}
