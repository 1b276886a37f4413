// One FUSE mount: the native session with its devices, trees and control nodes, and the way of an upcall to who answers it.
//
//   kernel -> native -> miss(device, chunks) -> the device's filler -> settle(device, chunk, errno) -> native answers the read
import { createHash } from 'node:crypto'
import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { errno, Failure, readErrno } from '../errors.ts'
import type { ReadNotes } from '../store/device.ts'
import { mountPoints } from './mount-table.ts'
import type {
  DeviceSpec,
  MountOptions,
  NativeModule,
  NativeSession,
  NodeAttributes,
  SessionCounters,
  TreeSpec,
  Upcalls,
} from './native.ts'
import type { SessionState } from './session-state.ts'
import { inUserNamespace } from './user-namespace.ts'

/** Who answers for a device: calls `settled` once for each chunk that is asked for. */
export interface DeviceFiller {
  fillEach(wanted: Iterable<number>, priority: 'demand', settled: (chunk: number, error?: unknown) => void): void
}

interface Answering {
  filler: DeviceFiller
  failed: (error: unknown) => void
}

/** A descriptor that its receiver closes after use. */
export interface LateFile {
  fd: number
  close(): Promise<void>
}

/** Who answers for the control tree. A lookup, by this user, adds nodes, or throws. */
export interface ControlTree {
  lookup(parent: bigint, name: string, uid: number): Promise<void>
  /** The contents of a late file. */
  late(node: bigint): Promise<LateFile>
  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void
}

export interface SessionSettings {
  dir: string
  fsname: string
  allowOther: boolean
  /** The slot whose tree is the mount's root; null: a control tree. */
  rootSlot: number | null
  control?: ControlTree
  /** SELinux label of everything in it. */
  context?: string | undefined
  /** As for the native session. Default: whether this process is in a user namespace, for overlays are mounted in the same. */
  userMarks?: boolean
  /** Nothing of it may be opened for writing. Default: no, because engines tell of use by what would be writing. */
  readOnly?: boolean
  /** A read that waits longer than this while nothing progresses fails with EIO. */
  missTimeoutMs?: number
  /** What a process that goes on with it must know. */
  state?: SessionState
  /** Called when another process may go on with the connection, which is this descriptor of the session's. */
  resumable?: (fuseFd: number) => void
  /** Grows with whatever is fetched or decoded; reads wait as long as it does. Default: nothing ever progresses. */
  progress?: () => number
}

/** Longer than the registry client bears a host that gives nothing: it gives the better error, and this is the net below. */
export const MISS_TIMEOUT_MS = 120_000
/** How often it is looked whether there was progress, as a share of that time. */
const LOOKS = 4
/** The stores answer ENOENT after 10 s at the latest; this is the net below them. */
const LOOKUP_TIMEOUT_MS = 15_000
/** A whole blob is fetched for a late file: 10 GB at 100 Mbit/s take 800 s. */
const LATE_TIMEOUT_MS = 900_000
/** Two threads saturate what one connection gives; more only help on more cores. */
const THREADS = 2
/**
 * How far the kernel reads around a page fault of a mapped file, and ahead of a reader who goes through one: what a program fetches
 * without having asked for it. Sequential reads of what is cached gain a tenth or two from more, and every fault pays for it.
 */
export const READ_AHEAD_BYTES = 256 << 10

/** 0: a successor is not offered what was not answered, as before Linux 6.9. */
const RESEND = 'LAZYLAYER_RESEND'

/** A mount that answers, whoever does. */
export interface Session {
  readonly dir: string
  /** What a process that goes on with it must know; undefined: none can. */
  readonly state?: SessionState | undefined
  /** Resolves when the kernel has agreed on what the connection can, so that whether a successor can go on is settled. */
  readonly initialized?: Promise<void>
  /** Resolves when the mount has ended, however it did. */
  readonly ended: Promise<string>
  counters(): SessionCounters
  /** @returns false when the mount is busy, and then nothing has changed */
  unmount(): Promise<boolean>
  /** Takes the mount out of the tree at once; it lives until its last user is gone, or this process. */
  detach(): Promise<void>
  /** Fails every request that waits; for after the unmount. */
  close(): void
}

export class MountSession implements Session {
  readonly dir: string
  readonly initialized: Promise<void>
  readonly state: SessionState | undefined
  readonly ended: Promise<string>
  readonly #native: NativeModule
  readonly #session: NativeSession
  readonly #fillers = new Map<number, Answering>()
  /** Directories that are mounted on themselves. */
  readonly #readOnly: string[] = []
  /** Slots of trees that nobody but root may look at. */
  readonly #rootsAlone = new Set<number>()
  readonly #progress: () => number
  readonly #missTimeoutMs: number
  /** Chunks that were asked for and are not settled. */
  #missing = 0
  #looking: NodeJS.Timeout | undefined

  /**
   * @param fuseFd of an open /dev/fuse that is mounted; the session's from now on
   * @param resumed whether it is a process's that is gone
   */
  private constructor(native: NativeModule, settings: SessionSettings, fuseFd: number, resumed = false) {
    this.#native = native
    this.dir = settings.dir
    this.state = settings.state
    this.#progress = settings.progress ?? (() => 0)
    this.#missTimeoutMs = settings.missTimeoutMs ?? MISS_TIMEOUT_MS
    const { promise, resolve } = Promise.withResolvers<string>()
    this.ended = promise
    const initialized = Promise.withResolvers<void>()
    this.initialized = initialized.promise
    if (resumed) initialized.resolve()
    const upcalls: Upcalls = {
      miss: (device, chunks) => this.#miss(device, chunks),
      lookup: (ticket, ...asked) => void this.#lookup(settings.control, ticket, ...asked), // answers its own errors
      late: (node) => void this.#late(settings.control, node), // answers its own errors
      hint: (op, parent, name) => settings.control?.hint(op, parent, name),
      initialized: (_minor, _flags, resends) => {
        if (resends) settings.resumable?.(fuseFd)
        initialized.resolve()
      },
      ended: resolve,
    }
    this.#session = new native.Session(
      {
        fuseFd,
        rootSlot: settings.rootSlot,
        threads: THREADS,
        missTimeoutMs: this.#missTimeoutMs,
        lookupTimeoutMs: LOOKUP_TIMEOUT_MS,
        lateTimeoutMs: LATE_TIMEOUT_MS,
        userMarks: settings.userMarks ?? inUserNamespace(),
        resend: settings.resumable !== undefined && process.env[RESEND] !== '0',
        resumed,
      },
      upcalls,
    )
  }

  /** Mounts. @throws Failure denied: this user may not; what mount(2) throws otherwise */
  static mount(native: NativeModule, settings: SessionSettings): MountSession {
    let fuseFd: number | undefined
    try {
      fuseFd = openFuse(native)
      native.mountFuse(fuseFd, settings.dir, optionsOf(settings))
    } catch (cause) {
      if (fuseFd !== undefined) closeSync(fuseFd)
      if (cause instanceof Failure || !isRefusal(cause)) throw cause
      throw Failure.denied(`${settings.dir} cannot be mounted on`, {
        cause,
        fix: 'Root may, and so may everybody in a user namespace: podman unshare lazylayer …',
      })
    }
    return new MountSession(native, settings, fuseFd)
  }

  /**
   * Goes on with the mount of a process that is gone, from `begin` on: until then its requests wait.
   * @param fuseFd the session's from now on
   */
  static resume(native: NativeModule, settings: SessionSettings, fuseFd: number): MountSession {
    return new MountSession(native, settings, fuseFd, true)
  }

  /** What the process before knew is here again. */
  begin(): void {
    this.#session.begin()
  }

  /** Mounts by fusermount3, as plain users must. Throws what it complains about. */
  static async mountByHelper(native: NativeModule, settings: SessionSettings): Promise<MountSession> {
    const fuseFd = await native.mountFuseByHelper(settings.dir, optionsOf(settings))
    return new MountSession(native, settings, fuseFd)
  }

  /** @param failed is told of each chunk that cannot be read: programs see an I/O error and no more */
  addDevice(spec: DeviceSpec, filler: DeviceFiller, failed: (error: unknown) => void): number {
    const device = this.#session.addDevice(spec)
    this.#fillers.set(device, { filler, failed })
    return device
  }

  spillDevice(device: number, deviceFd: number, readyFd: number, chunks: number): void {
    this.#session.spillDevice(device, deviceFd, readyFd, chunks)
  }

  takeTouched(device: number): Uint8Array {
    return this.#session.takeTouched(device)
  }

  /** As NativeSession has them. */
  readsOf(device: number): ReadNotes {
    return {
      take: () => this.#session.takeReads(device),
      begin: () => this.#session.noteReads(device),
      end: () => this.#session.ignoreReads(device),
    }
  }

  addTree(slot: number, spec: TreeSpec): void {
    this.#session.addTree(slot, spec)
  }

  /** Directories that show this tree are to be root's alone. */
  restrict(slot: number): void {
    this.#rootsAlone.add(slot)
  }

  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void {
    this.#session.addDirectory(node, parent, name, attributes, asks)
  }

  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void {
    this.#session.addFile(node, parent, name, attributes, bytes)
  }

  replaceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void {
    this.#session.replaceFile(node, parent, name, attributes, bytes)
  }

  addSymlink(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, target: string): void {
    this.#session.addSymlink(node, parent, name, attributes, target)
  }

  addDeviceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, device: number): void {
    this.#session.addDeviceFile(node, parent, name, attributes, device)
  }

  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void {
    this.#session.addLate(node, parent, name, attributes, size)
  }

  graft(parent: bigint, name: string, slot: number): void {
    if (this.#rootsAlone.has(slot)) this.#session.restrict(parent)
    this.#session.graft(parent, name, slot)
  }

  remove(parent: bigint, name: string): void {
    this.#session.remove(parent, name)
  }

  /** As NativeSession has it. */
  invalidate(parent: bigint, name: string): void {
    this.#session.invalidate(parent, name)
  }

  isKnown(node: bigint): boolean {
    return this.#session.isKnown(node)
  }

  isTreeKnown(slot: number): boolean {
    return this.#session.isTreeKnown(slot)
  }

  /** What still waits for it fails. */
  removeDevice(device: number): void {
    this.#fillers.delete(device)
    this.#session.removeDevice(device)
  }

  removeTree(slot: number): void {
    this.#session.removeTree(slot)
    this.#rootsAlone.delete(slot)
  }

  counters(): SessionCounters {
    return this.#session.counters()
  }

  /**
   * Makes a directory of the root read-only, whatever a part of the mount must allow. It must be there, and what is to be mounted below
   * comes after this.
   * @throws what the system throws: Linux before 5.12 cannot
   */
  async closeDirectory(name: string): Promise<void> {
    const dir = join(this.dir, name)
    // by the process before this one
    if (!(await mountPoints()).has(dir)) await this.#native.bindReadOnly(dir)
    this.#readOnly.push(dir)
  }

  async unmount(): Promise<boolean> {
    const ended: string[] = []
    try {
      for (const dir of this.#readOnly) {
        await this.#native.unmount(dir, false).catch((error) => {
          if (!isGone(error)) throw error
        })
        ended.push(dir)
      }
      await this.#native.unmount(this.dir, false)
      return true
    } catch (error) {
      for (const dir of ended) await this.#native.bindReadOnly(dir)
      if (isBusy(error)) return false
      throw error
    }
  }

  async detach(): Promise<void> {
    await this.#native.unmount(this.dir, true)
  }

  close(): void {
    clearInterval(this.#looking)
    this.#session.close()
  }

  #miss(device: number, chunks: Uint32Array): void {
    const answering = this.#fillers.get(device)
    if (answering === undefined) {
      for (const chunk of chunks) this.#session.settle(device, chunk, errno(undefined))
      return
    }
    this.#missing += chunks.length
    this.#look()
    const { filler, failed } = answering
    filler.fillEach(chunks, 'demand', (chunk, error) => {
      this.#missing--
      this.#session.settle(device, chunk, error === undefined ? 0 : readErrno(error))
      if (error !== undefined) failed(error)
    })
  }

  /** Has reads wait longer while there is progress. */
  #look(): void {
    if (this.#looking !== undefined) return
    let last = this.#progress()
    const look = () => {
      const now = this.#progress()
      if (now !== last) this.#session.extend()
      last = now
      if (this.#missing > 0) return
      clearInterval(this.#looking)
      this.#looking = undefined
    }
    this.#looking = setInterval(look, this.#missTimeoutMs / LOOKS).unref()
  }

  async #lookup(
    control: ControlTree | undefined,
    ticket: number,
    ...asked: Parameters<ControlTree['lookup']>
  ): Promise<void> {
    let code = 0
    try {
      if (control === undefined) code = errno(undefined)
      else await control.lookup(...asked)
    } catch (error) {
      code = errno(error)
    }
    this.#session.answerLookup(ticket, code)
  }

  async #late(control: ControlTree | undefined, node: bigint): Promise<void> {
    try {
      if (control === undefined) throw new TypeError('a late file in a mount without a control tree')
      const { fd, close } = await control.late(node)
      try {
        this.#session.settleLate(node, fd, 0)
      } finally {
        await close()
      }
    } catch (error) {
      this.#session.settleLate(node, -1, errno(error))
    }
  }
}

function optionsOf({ fsname, allowOther, context, readOnly = false }: SessionSettings): MountOptions {
  const label = context === undefined ? {} : { context }
  return { fsname, allowOther, readAhead: READ_AHEAD_BYTES, ...label, readOnly }
}

/** @throws Failure denied: this user may not open it; what open(2) throws otherwise */
function openFuse(native: NativeModule): number {
  try {
    return native.openFuse()
  } catch (cause) {
    if (!isRefusal(cause)) throw cause
    throw Failure.denied('/dev/fuse cannot be opened by this user', {
      cause,
      fix: 'Let it: root may chmod 666 /dev/fuse, which is the mode that udev gives it.',
    })
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EPERM' || error.code === 'EACCES')
}

/** Somebody else unmounted it (EINVAL: no mount point), or removed what it was on. */
export function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EINVAL' || error.code === 'ENOENT')
}

export function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EBUSY'
}

const CONTROL_BIT = 1n << 63n

/** The node ID of a control node: a hash of its path, so that a successor finds the same one. */
export function controlNode(...path: string[]): bigint {
  const hash = createHash('sha256').update(path.join('\0')).digest()
  return hash.readBigUInt64BE(0) | CONTROL_BIT
}
