// A tree's device (one sparse file) and its ready file (which of the chunks are there), open and locked.
//
// Why a power cut, a kill or a flipped byte never makes an unverified chunk be served:
// - Only READY_VERIFIED is served, and it is trusted only while somebody who saw it being set is alive: every user holds a shared
//   flock on the ready file for as long as it uses the device, and whoever can get the exclusive one is alone. Whatever it finds
//   was written in an earlier life (of the process or of the machine), so it demotes all of it to READY_STORED before anybody
//   else gets in; such a chunk is read back and hashed before its first use.
// - So the order in which a dying machine wrote the data and the bytes to its disk does not matter, and neither needs an fsync: a
//   byte that outlived its data leads to a hash that does not match and to a fetch; data that outlived its byte are fetched again.
// - Within one life the worker writes the data, then the byte, both through the page cache, which all processes share.
// - A verdict that bytes are damaged is one process's, and is not written down: another may have put them right meanwhile, and told its
//   readers so. The byte stays READY_STORED until right bytes are there, and whoever looks before that finds the same.
// - Opening is done under the folder's lock, so that nobody sees the files half made, set aside or half demoted.
//
// And why none that is taken back is served as a hole: who takes back is alone with the device (device-lock.ts), unsets bytes, counts up,
// punches (tree/ready.ts); nobody remembers that a byte was set; what the kernel has mounted itself is never punched, whoever mounted it.
import { read as readCallback, readSync } from 'node:fs'
import { type FileHandle, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Failure } from '../errors.ts'
import { digestOf, hex } from '../image/digest.ts'
import type { ChunkTable } from '../tree/chunk-table.ts'
import {
  READY_HEADER_BYTES,
  READY_MISSING,
  READY_MOUNTED_AT,
  READY_STORED,
  READY_TAKEN_BACK_AT,
  READY_VERIFIED,
  readyLength,
} from '../tree/ready.ts'
import { UseClock } from './clock.ts'
import { devicePair, readableKept, readFully, readyHeader } from './device-files.ts'
import { DeviceLock } from './device-lock.ts'
import type { Disk } from './disk.ts'
import { diskFailure, lockedFolder } from './durable.ts'
import { Holes } from './holes.ts'
import { type Locks, lock } from './locks.ts'
import { memoryFile } from './memory-files.ts'
import { ZeroRuns } from './zero-runs.ts'

const readAt = promisify(readCallback)

export interface SlotsParts {
  locks: Locks
  disk: Disk | undefined
  /** A folder on the same filesystem. */
  temporary: string
  /** Is told why files are renamed to `*.corrupt`. */
  aside(why: string): void
}

export class Slots {
  readonly chunks: number
  /** Whether chunks may be written to it; else the disk took nothing when it was opened. */
  readonly isWritable: boolean
  readonly lock: DeviceLock
  readonly clock: UseClock
  readonly #table: ChunkTable
  readonly #device: FileHandle
  readonly #ready: FileHandle
  /** What stands in for others' sake only: its lock. */
  readonly #kept: FileHandle | undefined
  readonly #disk: Disk | undefined
  readonly #zeros: ZeroRuns
  #holes: Holes | undefined

  private constructor(
    folder: string,
    { locks, disk }: Pick<SlotsParts, 'locks' | 'disk'>,
    table: ChunkTable,
    { device, ready, kept }: Files,
    isWritable: boolean,
  ) {
    this.chunks = table.length
    this.isWritable = isWritable
    this.#table = table
    this.#zeros = new ZeroRuns(table)
    this.#device = device
    this.#ready = ready
    this.#kept = kept
    this.#disk = disk
    this.lock = new DeviceLock(locks, disk, device.fd, join(folder, 'device'))
    this.clock = new UseClock(folder, table.deviceSize)
  }

  /**
   * Opens `folder/device` and `folder/ready`, or makes them. Files that are not what `chunks` describes are renamed to
   * `*.corrupt` (in place of earlier ones).
   * @throws Failure system (no space, no rights), timeout (a lock)
   */
  static async open(folder: string, chunks: ChunkTable, parts: SlotsParts): Promise<Slots> {
    const { locks, temporary, aside } = parts
    try {
      const slots = await lockedFolder(locks, folder, async () => {
        const { device, ready } = await devicePair(folder, temporary, chunks, aside)
        try {
          if (locks.tryLock(ready.fd, true)) {
            const states = new Uint8Array(chunks.length)
            await readFully(ready, states, READY_HEADER_BYTES)
            demote(states)
            await ready.write(states, 0, states.length, READY_HEADER_BYTES)
          }
          // the folder's lock keeps all others out until the shared lock stands in for the exclusive one
          await lock(locks, ready.fd, false, join(folder, 'ready'))
          return new Slots(folder, parts, chunks, { device, ready, kept: undefined }, true)
        } catch (error) {
          await device.close()
          await ready.close()
          throw error
        }
      })
      await slots.clock.read()
      return slots
    } catch (cause) {
      throw diskFailure(folder, cause)
    }
  }

  /**
   * The same where the disk takes nothing, not even a mark. What an earlier life left there is read, and verified before its first use;
   * what says so is in memory, as is whatever stands in for files that are not there.
   * @throws Failure system, timeout (a lock)
   */
  static async openUnwritable(folder: string, chunks: ChunkTable, locks: Locks, disk: Disk): Promise<Slots> {
    const found = await readableKept(folder, chunks)
    let ready: FileHandle | undefined
    let device: FileHandle | undefined
    try {
      const states = new Uint8Array(chunks.length)
      if (found !== undefined) {
        await lock(locks, found.ready.fd, false, join(folder, 'ready'))
        await readFully(found.ready, states, READY_HEADER_BYTES)
        demote(states)
      }
      ready = await memoryFile(disk, 'lazylayer-ready')
      const header = readyHeader(chunks)
      await ready.write(header, 0, header.length, 0)
      await ready.write(states, 0, states.length, header.length)
      await ready.truncate(readyLength(chunks.length, chunks.deviceSize))
      device = found?.device ?? (await memoryFile(disk, 'lazylayer-device'))
      if (found === undefined) await device.truncate(chunks.deviceSize)
      const slots = new Slots(folder, { locks, disk }, chunks, { device, ready, kept: found?.ready }, false)
      // others may be able to write, and would not see here that what they take back is in use
      if (found !== undefined) await slots.lock.hold()
      return slots
    } catch (cause) {
      for (const each of new Set([found?.device, found?.ready, ready, device])) await each?.close()
      throw diskFailure(folder, cause)
    }
  }

  get deviceFd(): number {
    return this.#device.fd
  }

  /** Descriptors made of this one by dup(2) share its lock, which ends when the last is closed. */
  get readyFd(): number {
    return this.#ready.fd
  }

  /** READY_MISSING, READY_VERIFIED or READY_STORED, as of now: workers and other processes set the byte, and take it back. */
  state(chunk: number): number {
    return this.statesOf([chunk])[0] as number // one each
  }

  /** The states of some chunks, as `state` gives each, in one read: a system call a chunk would hold up the thread. */
  statesOf(chunks: readonly number[]): number[] {
    const first = chunks.reduce((least, each) => Math.min(least, each), this.chunks)
    const last = chunks.reduce((most, each) => Math.max(most, each), -1)
    if (chunks.length === 0) return []
    if (!(first >= 0 && last < this.chunks)) throw new RangeError(`chunks ${first} to ${last} of ${this.chunks}`)
    const states = new Uint8Array(last + 1 - first)
    // bytes of the page cache (a microsecond), so they are worth no thread's time
    readSync(this.#ready.fd, states, 0, states.length, READY_HEADER_BYTES + first)
    return chunks.map((chunk) => meaning(states[chunk - first]))
  }

  /** The states of all chunks as of now, in one read: for large layers, where `state` chunk by chunk would hold up the thread. */
  async states(): Promise<Uint8Array> {
    const states = new Uint8Array(this.chunks)
    await readFully(this.#ready, states, READY_HEADER_BYTES)
    return states
  }

  /** How often chunks were taken back of it, in all processes. */
  takenBack(): number {
    const count = new Uint32Array(1)
    readSync(this.#ready.fd, count, 0, 4, READY_TAKEN_BACK_AT)
    return count[0] as number
  }

  /** Reads device bytes as the file has them, but for zeros that no chunk holds. @throws Failure corrupt: it is shorter than its layout; what the system throws */
  async read(into: Uint8Array, at: number): Promise<void> {
    for (let got = 0; got < into.length; ) {
      const { bytesRead } = await readAt(this.#device.fd, into, got, into.length - got, at + got)
      if (bytesRead === 0) throw Failure.corrupt('the device file is shorter than its layout')
      got += bytesRead
    }
    this.#zeros.clear(into, at)
  }

  /**
   * Before the kernel mounts the device itself: nothing of it is taken back until the function is called that this resolves with. Then
   * overlays may still have it mounted, so that it is marked; the mark counts until nobody has it open.
   * @returns undefined: some of it is not there or could not be made sure of, or it cannot be marked
   */
  async hold(): Promise<(() => void) | undefined> {
    if (!this.isWritable) return undefined // it cannot be marked
    const release = await this.lock.hold()
    try {
      const isThere = (await this.states()).every((state) => state === READY_VERIFIED)
      if (isThere && (await this.#zeros.restore(this.#device.fd, this.#disk))) {
        const mark = await thisBoot()
        await this.#ready.write(mark, 0, mark.length, READY_MOUNTED_AT)
        return release
      }
    } catch (error) {
      release()
      throw error
    }
    release()
    return undefined
  }

  /**
   * Takes back those chunks that `choose` names, given the states of all: they are missing, and their space is the disk's again.
   * @returns how many bytes they had; 0 as well where somebody writes to the device or has it mounted
   * @throws what the system throws
   */
  async takeBack(choose: (states: Uint8Array) => Iterable<number>): Promise<number> {
    const disk = this.#disk
    if (disk === undefined) return 0
    const taken = await this.lock.take(async () => {
      if (await this.#isMounted(disk)) return 0
      const states = await this.states()
      const gone = [...choose(states)].filter((chunk) => states[chunk] !== READY_MISSING)
      if (gone.length === 0) return 0
      let bytes = 0
      for (const chunk of gone) {
        states[chunk] = READY_MISSING
        this.#table.places(chunk, (_, length) => {
          bytes += length
        })
      }
      // nobody writes meanwhile, so the bytes between are what they were
      const [first, last] = gone.reduce(([a, b], each) => [Math.min(a, each), Math.max(b, each)], [this.chunks, 0])
      await this.#ready.write(states, first, last + 1 - first, READY_HEADER_BYTES + first)
      await this.#ready.write(Uint32Array.of(this.takenBack() + 1), 0, 4, READY_TAKEN_BACK_AT)
      this.#holes ??= new Holes(this.#table)
      await disk.punchHoles(
        this.#device.fd,
        this.#holes.of(gone, (chunk) => states[chunk] !== READY_MISSING),
      )
      return bytes
    })
    return taken ?? 0
  }

  /** Whether the kernel may have the device itself mounted, by whomever: also by who died since. */
  async #isMounted(disk: Disk): Promise<boolean> {
    const mark = new Uint8Array(MARK_BYTES)
    await readFully(this.#ready, mark, READY_MOUNTED_AT)
    if (!Buffer.from(mark).equals(await thisBoot())) return false
    if (!disk.isOnlyOpener(this.#device.fd)) return true
    await this.#ready.write(new Uint8Array(MARK_BYTES), 0, MARK_BYTES, READY_MOUNTED_AT)
    return false
  }

  /** Lets go of the device. Nobody may write through its descriptors any more. */
  async close(): Promise<void> {
    await this.lock.settled()
    await this.clock.keep()
    await this.#device.close()
    await this.#ready.close()
    await this.#kept?.close()
  }
}

interface Files {
  device: FileHandle
  ready: FileHandle
  kept: FileHandle | undefined
}

const MARK_BYTES = 8
const BOOT_ID = '/proc/sys/kernel/random/boot_id'
let boot: Promise<Uint8Array> | undefined

/** What marks a device that was mounted since the machine started. */
function thisBoot(): Promise<Uint8Array> {
  boot ??= readFile(BOOT_ID).then((id) => Buffer.from(hex(digestOf(id)), 'hex').subarray(0, MARK_BYTES))
  return boot
}

/** A byte that means nothing means that nothing is there. */
function meaning(byte: number | undefined): number {
  return byte === READY_VERIFIED || byte === READY_STORED ? byte : READY_MISSING
}

function demote(states: Uint8Array): void {
  states.forEach((state, i) => {
    states[i] = meaning(state) === READY_MISSING ? READY_MISSING : READY_STORED
  })
}
