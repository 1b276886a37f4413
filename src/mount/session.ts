// One FUSE mount: the native session with its devices, trees and control nodes, and the way of an upcall to who answers it.
//
//   kernel -> native -> miss(device, chunks) -> the device's filler -> settle(device, chunk, errno) -> native answers the read
import { createHash } from 'node:crypto'
import { errno } from '../errors.ts'
import type {
  DeviceSpec,
  NativeModule,
  NativeSession,
  NodeAttributes,
  SessionCounters,
  TreeSpec,
  Upcalls,
} from './native.ts'

/** Who answers for a device: calls `settled` once for each chunk that is asked for. */
export interface DeviceFiller {
  fillEach(wanted: Iterable<number>, settled: (chunk: number, error?: unknown) => void): void
}

/** Who answers for the control tree. A lookup adds nodes, or throws. */
export interface ControlTree {
  lookup(parent: bigint, name: string): Promise<void>
  /** The contents of a late file: a descriptor, closed here after use. */
  late(node: bigint): Promise<{ fd: number; close(): Promise<void> }>
  hint(op: 'create' | 'rmdir', parent: bigint, name: string): void
}

export interface SessionSettings {
  dir: string
  fsname: string
  allowOther: boolean
  /** The slot whose tree is the mount's root; null: a control tree. */
  rootSlot: number | null
  control?: ControlTree
  /** A read that waits longer than this for the registry fails with EIO. */
  missTimeoutMs?: number
}

/** Longer than the registry client's own deadlines and retries: those give the better error. */
const MISS_TIMEOUT_MS = 120_000
/** The stores answer ENOENT after 10 s at the latest; this is the net below them. */
const LOOKUP_TIMEOUT_MS = 15_000
/** A whole blob is fetched for a late file: 10 GB at 100 Mbit/s take 800 s. */
const LATE_TIMEOUT_MS = 900_000
/** Two threads saturate what one connection gives; more only help on more cores. */
const THREADS = 2
/** The kernel's largest FUSE read. */
export const READ_AHEAD_BYTES = 1 << 20

export class MountSession {
  readonly dir: string
  /** Resolves when the mount has ended, however it did. */
  readonly ended: Promise<string>
  readonly #native: NativeModule
  readonly #session: NativeSession
  readonly #fillers = new Map<number, DeviceFiller>()

  private constructor(native: NativeModule, settings: SessionSettings) {
    this.#native = native
    this.dir = settings.dir
    const { promise, resolve } = Promise.withResolvers<string>()
    this.ended = promise
    const fuseFd = native.openFuse()
    native.mountFuse(fuseFd, settings.dir, {
      fsname: settings.fsname,
      allowOther: settings.allowOther,
      readAhead: READ_AHEAD_BYTES,
    })
    const upcalls: Upcalls = {
      miss: (device, chunks) => this.#miss(device, chunks),
      lookup: (ticket, parent, name) => void this.#lookup(settings.control, ticket, parent, name), // answers its own errors
      late: (node) => void this.#late(settings.control, node), // answers its own errors
      hint: (op, parent, name) => settings.control?.hint(op, parent, name),
      ended: resolve,
    }
    this.#session = new native.Session(
      {
        fuseFd,
        rootSlot: settings.rootSlot,
        threads: THREADS,
        missTimeoutMs: settings.missTimeoutMs ?? MISS_TIMEOUT_MS,
        lookupTimeoutMs: LOOKUP_TIMEOUT_MS,
        lateTimeoutMs: LATE_TIMEOUT_MS,
      },
      upcalls,
    )
  }

  /** Mounts. Throws what mount(2) throws. */
  static mount(native: NativeModule, settings: SessionSettings): MountSession {
    return new MountSession(native, settings)
  }

  addDevice(spec: DeviceSpec, filler: DeviceFiller): number {
    const device = this.#session.addDevice(spec)
    this.#fillers.set(device, filler)
    return device
  }

  addTree(slot: number, spec: TreeSpec): void {
    this.#session.addTree(slot, spec)
  }

  addDirectory(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, asks: boolean): void {
    this.#session.addDirectory(node, parent, name, attributes, asks)
  }

  addFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, bytes: Uint8Array): void {
    this.#session.addFile(node, parent, name, attributes, bytes)
  }

  addDeviceFile(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, device: number): void {
    this.#session.addDeviceFile(node, parent, name, attributes, device)
  }

  addLate(node: bigint, parent: bigint, name: string, attributes: NodeAttributes, size: number): void {
    this.#session.addLate(node, parent, name, attributes, size)
  }

  graft(parent: bigint, name: string, slot: number): void {
    this.#session.graft(parent, name, slot)
  }

  counters(): SessionCounters {
    return this.#session.counters()
  }

  /** @returns false when the mount is busy, and then nothing has changed */
  async unmount(): Promise<boolean> {
    try {
      await this.#native.unmount(this.dir, false)
      return true
    } catch (error) {
      if (isBusy(error)) return false
      throw error
    }
  }

  /** Takes the mount out of the tree at once; it lives until its last user is gone, or this process. */
  async detach(): Promise<void> {
    await this.#native.unmount(this.dir, true)
  }

  /** Fails every request that waits; for after the unmount. */
  close(): void {
    this.#session.close()
  }

  #miss(device: number, chunks: Uint32Array): void {
    const filler = this.#fillers.get(device)
    if (filler === undefined) {
      for (const chunk of chunks) this.#session.settle(device, chunk, errno(undefined))
      return
    }
    filler.fillEach(chunks, (chunk, error) =>
      this.#session.settle(device, chunk, error === undefined ? 0 : errno(error)),
    )
  }

  async #lookup(control: ControlTree | undefined, ticket: number, parent: bigint, name: string): Promise<void> {
    let code = 0
    try {
      if (control === undefined) code = errno(undefined)
      else await control.lookup(parent, name)
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

export function isBusy(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EBUSY'
}

const CONTROL_BIT = 1n << 63n

/** The node ID of a control node: a hash of its path, so that a successor finds the same one. */
export function controlNode(...path: string[]): bigint {
  const hash = createHash('sha256').update(path.join('\0')).digest()
  return hash.readBigUInt64BE(0) | CONTROL_BIT
}
