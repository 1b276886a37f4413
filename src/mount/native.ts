// The Rust addon (`native/`), as the rest of the agent sees it. This file is the only one that loads it.
//
// Node IDs (u64, also st_ino's source): a pure function of what is on disk, so that a successor process answers for them.
//   1                       the root of the FUSE mount
//   2^63 | 63 bits          a control node: chosen by the caller (a hash of its path), never reused for another path
//   slot << 40 | nid        inode `nid` of the EROFS image in tree slot `slot` (1 … 2^22 - 1; slots are persisted by the store)
// st_ino of tree nodes is the tree's inodeBase + nid, of control nodes the node ID; d_ino is the same. Bases are persisted with the
// slots, and far apart enough that no two files of a mount share a number (engines make one filesystem of several layers).
import { createRequire } from 'node:module'
import type { Unit } from '../format/format.ts'
import type { UsualTrees } from '../format/parser.ts'
import { type Digest, hex } from '../image/digest.ts'
import type { Part } from '../image/part.ts'
import type { Disk } from '../store/disk.ts'
import { ChunkTable } from '../tree/chunk-table.ts'

/** A device: one sparse file that chunks are written to, and one byte a chunk that says which are there. */
export interface DeviceSpec {
  /** Read by the session; dup'ed, so the caller may close its own. Bytes that no chunk covers read as zeros. */
  deviceFd: number
  /** The ready file: a header of READY_HEADER_BYTES, then one byte a chunk: READY_VERIFIED means its places may be read. Mapped shared. */
  readyFd: number
  chunks: number
  /** Bytes. */
  size: number
  /** Packed little-endian records {at: u64, length: u64, chunk: u32, zero: u32}, sorted by `at`, disjoint. */
  places: Uint8Array
}

export interface TreeSpec {
  /** The EROFS image; mapped. Its digest was checked by the caller. */
  imageFd: number
  /** Device numbers (of addDevice) for the image's device slots 1…n. */
  devices: number[]
  /** st_ino of a node is this + nid. */
  inodeBase: number
}

export interface SessionOptions {
  /** Descriptor of an open /dev/fuse on which mountFuse succeeded; the session owns it from now on. */
  fuseFd: number
  /** What node 1 is: the control tree's root, or a tree's root. */
  rootSlot: number | null
  /** Serving threads, ≥ 1. */
  threads: number
  /** A parked read fails with EIO after that many milliseconds without being settled. */
  missTimeoutMs: number
  /** The same for lookups (ENOENT) and late files (EIO). */
  lookupTimeoutMs: number
  lateTimeoutMs: number
  /** Overlayfs's marks, which images have as `trusted.overlay.*`, are shown as `user.overlay.*` to who asks by name, and not listed. */
  userMarks: boolean
  /** Whether another process may go on with the connection when this one is gone, where the kernel can (Linux 6.9). */
  resend: boolean
  /** It is a connection of a process that is gone: nothing is read before `begin`. Nothing else may read it. */
  resumed: boolean
}

/**
 * What the native side asks of JavaScript; each is called on the main thread and must return at once. Names that are not UTF-8 are not
 * asked for: they do not exist. At most 4096 reads wait at a time, more are EIO; and 4096 lookups, 2048 by others than root, 256 by one
 * user: more are ENOENT.
 */
export interface Upcalls {
  /** These chunks of a device are missing and not yet under way: call `settle` for each. */
  miss(device: number, chunks: Uint32Array): void
  /**
   * `name` is not in control directory `parent`, which asks: add nodes, then call `answerLookup(ticket, errno)`. `uid`: who
   * asks. Of a thread's users it is the first that is not root; UNKNOWN_UID where the thread is not seen from our PID namespace.
   */
  lookup(ticket: number, parent: bigint, name: string, uid: number): void
  /** A late file is read for the first time: call `settleLate(node, fd or -1, errno)`. */
  late(node: bigint): void
  /**
   * A hint, nothing to answer: somebody tried to create `name` in control directory `parent` (use), or to remove `parent/name` (rmdir).
   * The kernel detaches every mount below a directory whose rmdir is answered ENOENT: make them again.
   */
  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void
  /**
   * The kernel and we have agreed on what the connection can, which stays so as long as it lives; not called when it is resumed.
   * `resends`: a process that goes on with it gets what this one has read and not answered.
   */
  initialized(minor: number, flags: bigint, resends: boolean): void
  /** The connection ended: unmounted, or aborted. Called once. */
  ended(reason: string): void
}

export interface NodeAttributes {
  mode: number
  uid: number
  gid: number
  /** Nanoseconds since 1970. */
  mtime: bigint
}

export interface SessionCounters {
  /** Bytes answered to READ. */
  served: bigint
  reads: bigint
  /** READs that had to wait for at least one chunk. */
  missed: bigint
  lookups: bigint
  /** READs, lookups that ended in a deadline. */
  expired: bigint
  /** READs that failed with EIO for any reason. */
  failed: bigint
  /** Lookups for which there was no room to wait. */
  refused: bigint
  /** READs that wait for a chunk now, and how long those took that had to wait. */
  waiting: bigint
  waits: WaitCounters
}

/** `counts`: of what took no longer than each of `upTo`, and longer than the one before; and, one more, of what took longer than all. */
export interface WaitCounters {
  /** Seconds. */
  readonly upTo: readonly number[]
  readonly counts: readonly number[]
  /** Of all together. */
  readonly seconds: number
}

/** A FUSE session; its threads run until the mount ends. Its methods throw on arguments that break a bound, and never wait. */
export interface NativeSession {
  /** Serves a resumed connection from now on, with what the process before has read and not answered. */
  begin(): void
  /** @returns the device's number */
  addDevice(spec: DeviceSpec): number
  /**
   * Reads that wait for its chunks are EIO, and so are those that would from now on; nobody is asked for them. Descriptor and mapping go
   * with the last tree that has it. Its files stay in the control tree, as EIO, until they are removed.
   */
  removeDevice(device: number): void
  /** From now on chunks of the device may also be in a second pair of files of the same layout: what the first has not is read there. */
  spillDevice(device: number, deviceFd: number, readyFd: number, chunks: number): void
  /** What was read of a device since the last time: a bit a mebibyte, the lowest first. */
  takeTouched(device: number): Uint8Array
  /**
   * The places of a device that were read for the first time since the last call, in that order: start, end, and milliseconds since 1970 of
   * each. Noted from the device's beginning until there are 16384; also what was then not there.
   */
  takeReads(device: number): Float64Array
  /** Notes reads of a device anew, as if nothing of it had been read. */
  noteReads(device: number): void
  /** Notes no more of them. */
  ignoreReads(device: number): void
  /** Makes slot number `slot` answer from an image. Throws when the image breaks a bound. */
  addTree(slot: number, spec: TreeSpec): void
  /** What the kernel still knows of it is ESTALE. Where it is grafted there is nothing any more, and the name may be removed. */
  removeTree(slot: number): void
  /**
   * `asks`: names that are not in the directory are asked for by `lookup`; otherwise they do not exist. With node 1 it sets the
   * root's own attributes and whether it asks (0755, root, no).
   */
  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void
  /** A file with fixed contents. */
  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  /**
   * The name of a file is this one's from now on: a new node, immutable as the old one, which stays readable for whoever has it open.
   * Throws when there is no such file.
   */
  replaceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void
  addSymlink(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, target: string): void
  /** A file whose contents come on first read; until then `size` (bytes, not 0) may be a guess. */
  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void
  /** A device file: reads are served from the device, misses wait. */
  addDeviceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, device: number): void
  /** `parent/name` is the root of the tree in `slot`. */
  graft(parent: bigint, name: string, slot: number): void
  /** From now on a control directory is its owner's alone. */
  restrict(node: bigint): void
  /**
   * Has the kernel let go of `parent/name`, of what it knows below it and nobody uses, and of what is mounted there; it stays there. The
   * kernel does so soon after.
   */
  invalidate(parent: bigint, name: string): void
  /** Whether the kernel knows a control node: it forgets soon what nobody uses and was invalidated. */
  isKnown(node: bigint): boolean
  /** Whether it knows any node of a tree. */
  isTreeKnown(slot: number): boolean
  /** Forgets `parent/name` and what is below it, and tells the kernel. */
  remove(parent: bigint, name: string): void
  /** A chunk is ready (errno 0, its ready byte already set) or will not be: wakes the reads that wait for it. */
  settle(device: number, chunk: number, errno: number): void
  /** Reads that wait for chunks have missTimeoutMs from now on: whoever fills chunks is at it. */
  extend(): void
  answerLookup(ticket: number, errno: number): void
  /** Gives a late file its contents (fd is dup'ed) or fails the reads that wait (they may ask again later). */
  settleLate(node: bigint, fd: number, errno: number): void
  counters(): SessionCounters
  /**
   * Detaches nothing and returns at once: what waits, and what would from now on, is EIO; the threads end with the connection. Until
   * `ended` or this, the session keeps the event loop alive; await `ended` first where it matters.
   */
  close(): void
}

export interface MountOptions {
  fsname: string
  allowOther: boolean
  /** Bytes; the kernel's read-ahead for this mount. */
  readAhead: number
  /** SELinux label of everything in the mount. */
  context?: string | undefined
  /** The filesystem is, not this mount alone. */
  readOnly: boolean
}

/** Bytes `start` up to `end` of a file. */
export interface FilePart {
  path: string
  start: number
  end: number
}

/** What fails in the system throws with `code`: EBUSY, EINVAL, EPERM … */
export interface NativeModule {
  /** Opens /dev/fuse (O_CLOEXEC). */
  openFuse(): number
  /** mount(2) of a FUSE filesystem with descriptor `fuseFd` on `dir`: nosuid, nodev, default_permissions. */
  mountFuse(fuseFd: number, dir: string, options: MountOptions): void
  /**
   * The same by fusermount3, for users who may not mount: it opens /dev/fuse and hands the descriptor over. `readAhead` is the
   * kernel's own then. Off the main thread. @returns the descriptor
   */
  mountFuseByHelper(dir: string, options: MountOptions): Promise<number>
  Session: new (options: SessionOptions, upcalls: Upcalls) => NativeSession
  /**
   * Mounts an EROFS image in the kernel, read-only, nosuid and nodev; `devices` are the paths of its device slots. Off the main thread,
   * because the paths may lie in our own mount. `context`: SELinux label of everything in it.
   */
  mountErofs(imageFd: number, devices: readonly string[], target: string, context: string | undefined): Promise<void>
  /**
   * Mounts `dir`, a directory of a mount of ours, on itself, read-only. Off the main thread. Throws ENOSYS before Linux 5.12 (as E38).
   */
  bindReadOnly(dir: string): Promise<void>
  /** umount2(2); lazy: MNT_DETACH. By fusermount3 where this user may not. Off the main thread. */
  unmount(dir: string, lazy: boolean): Promise<void>
  /** Whether `dir` is a mount whose server is gone (stat says ENOTCONN). Off the main thread, at most a second. */
  isDead(dir: string): Promise<boolean>
  /**
   * Of parts of files below mounted `dir`, by their paths from there: a byte each, 1 where the kernel has pages of it. Off the main thread.
   * Throws ENOSYS (as E38) before Linux 6.5.
   */
  cachedParts(dir: string, parts: readonly FilePart[]): Promise<Uint8Array>
  /** Sends copies of at most 8 descriptors with a message over a unix socket. Never waits: EAGAIN when its buffer is full. */
  sendDescriptors(socket: number, message: string, descriptors: number[]): void
  /** flock(2) without waiting: whether the lock was got. Ends with the descriptor. */
  tryLock(fd: number, exclusive: boolean): boolean
  /** What makes room in the cache (store/disk.ts); null: nothing does. */
  readonly disk: Disk | null
  /** Makes trees of usual indexes; null: nothing does. */
  readonly usualTrees: UsualTrees | null
  /** Sets read_ahead_kb of the bdi behind mounted `dir`, if the system lets us; returns whether it did. */
  setReadAhead(dir: string, kib: number): boolean
}

const SLOT_BITS = 22n
export const SLOT_MAX = Number((1n << SLOT_BITS) - 1n)
export const ROOT_NODE = 1n
/** uid_t's -1, which is nobody's. */
export const UNKNOWN_UID = 2 ** 32 - 1

/** What the addon has beside its own interface, as it has it. */
interface Addon {
  /**
   * @param vouched the digest by which the unit's manifest vouches for the index, 32 bytes @param blobs the unit's
   * @returns null where the index is not usual
   */
  usualTree(
    format: string,
    index: Uint8Array,
    vouched: Uint8Array,
    blobs: readonly UnitBlob[],
  ): Promise<UsualTree | null>
}

type UnitBlob = Unit['blobs'][number]

/** As a worker's answer (format/worker.ts). */
interface UsualTree {
  image: Uint8Array
  digest: Digest
  chunks: Uint8Array
  content: Digest
  parts?: Part[]
}

/** Loads the addon. Throws the loader's own error where it was not built. */
export function loadNative(): NativeModule {
  const require = createRequire(import.meta.url)
  const addon = require('../../native/lazylayer.node') as Omit<NativeModule, 'disk' | 'usualTrees'> & Disk & Addon // the addon's own types are these interfaces
  return { ...addon, disk: addon, usualTrees: usualTreesBy(addon) }
}

function usualTreesBy(addon: Addon): UsualTrees {
  return async (index, { format, index: vouched, blobs }) => {
    const tree = await addon.usualTree(format, index, Buffer.from(hex(vouched), 'hex'), blobs)
    if (tree === null) return undefined
    const { image, digest, chunks, content, parts } = tree
    // on memory that other threads may be given
    const built = { image: image.slice(), digest, chunks: new ChunkTable(chunks.slice(), content) }
    return parts === undefined ? built : { ...built, parts }
  }
}
